"""The benchmark of the GPU path: its models have the sizes they should have, goals are judged rightly, a toy runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MINI, needs_mini
from tokenizers import Tokenizer

from benchmarks.gpu import gpu
from benchmarks.gpu import report as gpu_report
from benchmarks.gpu.checks import against_upstream, all_passed
from benchmarks.gpu.models import SHAPES, TOYS, Shape, model_of, parameters
from benchmarks.gpu.speed import FULL, repeated

TOY = "toy edge"


@needs_mini
@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_shapes_have_their_published_numbers_of_parameters(shape: Shape) -> None:
    tokenizer = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    model = model_of(shape, tokenizer, torch.device("meta"))
    assert shape.parameters is not None
    assert parameters(model) / 1e6 == pytest.approx(shape.parameters, rel=0.015)


def test_what_is_published_is_measured() -> None:
    for name, row in gpu_report.PUBLISHED.items():
        assert name in SHAPES
        assert {int(count) for count in row} <= set(FULL.labels)
    assert set(gpu_report.SHARES) | set(gpu_report.P50_MS) <= set(SHAPES)


def test_scores_are_judged_by_their_differences_and_their_order() -> None:
    reference = [np.array([0.0, 1.0], np.float32), np.array([0.04], np.float32)]
    found = against_upstream([row + np.float32(0.03) for row in reference], reference)
    assert found["passed"]
    assert found["largest_difference"] == pytest.approx(0.03)
    assert (found["pairs_apart"], found["pairs_swapped"]) == (2, 0)  # 0 and 0.04 are not apart
    swapped = against_upstream([np.array([2.0, 1.0], np.float32), reference[1]], reference)
    assert (swapped["passed"], swapped["pairs_swapped"]) == (False, 1)
    assert all_passed({"a": found, "not checked": {"passed": None}})
    assert not all_passed({"a": found, "b": swapped})


def test_goals_are_told_as_met_or_missed() -> None:
    model = {
        "checks": {"upstream in fp32": {"passed": True}, "out of memory": {"passed": None}},
        "throughput": {"times_upstream_default": 9.0, "times_upstream_best": 2.0, "share_of_peak": 0.41},
        "latency": {"p50_ms": 14.0},
        "samples_per_second": {"one at a time": {"1": 112.0, "2": 9.0, "8": 111.0}},
    }
    report: dict[str, Any] = {"toy": False, "matrix_rate": 4 * gpu_report.A6000_RATE, "models": {"modern-base": model}}
    met = {name.removeprefix("modern-base: "): goal["met"] for name, goal in gpu_report.goals(report).items()}
    assert met == {
        "upstream in fp32": True, "× upstream's default": True, "× upstream's best": False,
        "share of the card's rate": True, "p50 in ms": True,
        "× an A6000, 1 labels": True, "× an A6000, 8 labels": False,  # twice 56.0 and 55.7
    }  # fmt: skip
    assert gpu_report.goals(report | {"toy": True}) == {}


def test_a_measurement_has_as_many_runs_as_it_needs() -> None:
    runs: list[int] = []
    assert len(repeated(lambda: runs.append(1), 0, least=4)) == 4
    assert len(runs) == 5  # one to warm up


@needs_mini
@pytest.mark.slow
def test_a_toy_runs_through_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert TOY in TOYS
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", "--only", TOY, "--out", str(tmp_path)])
    gpu.main()
    told = capsys.readouterr()
    assert "a toy run" in told.err
    assert TOY in told.out
    (file,) = tmp_path.glob("*/gpu.json")
    assert file.with_suffix(".png").is_file()
    report = json.loads(file.read_text("utf-8"))
    assert (report["toy"], report["left_out"], report["goals"]) == (True, [], {})
    assert report["matrix_rate"] > 0
    model = report["models"][TOY]
    assert model["parameters"] < 5e6
    assert model["batch_tokens"] >= 1024
    assert {name: check["passed"] for name, check in model["checks"].items()} == {
        "upstream in fp32": True,
        "packed is padded": True,
        "out of memory": True if torch.cuda.is_available() else None,
    }
    assert model["latency"]["p50_ms"] <= model["latency"]["p95_ms"]
    assert {kind: set(row) for kind, row in model["samples_per_second"].items()} == {
        kind: {"1", "2"} for kind in ("one at a time", "batched")
    }
    speed = model["throughput"]
    assert set(speed["passages_per_second"]) == {"ours", "upstream, batch 8", "upstream, batch 4"}
    assert speed["times_upstream_best"] <= speed["times_upstream_default"]
    assert speed["share_of_peak"] > 0
    assert str(tmp_path) not in file.read_text("utf-8")


@needs_mini
def test_what_there_is_no_time_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["gpu.py", "--quick", "--only", TOY, "--limit", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=f"left out: {TOY}"):
        gpu.main()
