"""The benchmarks of the service: its traffic is understood, rows are summed up rightly, the scripts run to an end."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from conftest import Exported, needs_mini
from fakes import OverlapScorer
from fastapi.testclient import TestClient
from gliclass_rerank_service import Settings, create_app

from benchmarks.service.load import Row, Step, summed_up
from benchmarks.service.traffic import COUNTS, JOB_PASSAGES, MIXTURE, Call, Traffic

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("make", MIXTURE, ids=lambda make: make.__name__)
def test_the_service_understands_every_call(make: Callable[[Traffic], Call]) -> None:
    call = make(Traffic(1))
    with TestClient(create_app(OverlapScorer(), Settings())) as client:
        answer = client.post(call.path, json=call.body)
        assert answer.status_code == (202 if call.is_job else 200), answer.text
        if call.is_job:
            assert client.get(f"/result/{answer.json()['task_id']}").status_code in (200, 202)


def test_traffic_is_the_same_for_a_seed_bounded_and_of_all_kinds() -> None:
    first, again, other = (Traffic(seed) for seed in (1, 1, 2))
    calls = [first.next() for _ in range(600)]
    assert calls == [again.next() for _ in range(600)]
    assert calls[:20] != [other.next() for _ in range(20)]
    assert {call.name for call in calls} == {make(Traffic(0)).name for make in MIXTURE}
    sizes = {len(documents) for call in calls if isinstance(documents := call.body.get("documents"), list)}
    assert sizes <= {*COUNTS, JOB_PASSAGES}


def test_a_step_tells_rates_percentiles_and_what_was_refused() -> None:
    hundred: list[Row] = [("a", i / 10, (i + 1) / 1000, 200) for i in range(100)]
    others: list[Row] = [
        ("a", 5.0, 0.001, 429),
        ("b", 5.0, 0.001, 503),
        ("job", 1.0, 0.05, 202),
        ("job, to its end", 1.0, 30.0, 200),
        ("job", 2.0, 0.05, 202),
        ("job, to its end", 2.0, 120.0, 0),
    ]
    step = summed_up([*others, *hundred], 10.0)
    assert step.offered == 10
    assert step.answered == pytest.approx(102 / 10, rel=0.01)  # from the first request to the last answer
    assert step.p50 == pytest.approx(50, abs=1)
    assert step.p99 == pytest.approx(99, abs=1.1)
    assert step.statuses == {"200": 100, "202": 2, "429": 1, "503": 1}
    assert (step.refused, step.wrong) == (1 / 104, 1)
    assert (step.jobs_accepted, step.jobs_ended) == (2, 1)
    assert {name: len(times) for name, times in step.by_name.items()} == {"a": 100, "job": 2}
    with pytest.raises(SystemExit, match="no request"):
        summed_up([], 1.0)


def test_a_step_in_which_nothing_was_answered_has_no_percentiles() -> None:
    step = summed_up([("a", 0.0, 0.1, 429)], 1.0)
    assert (step.answered, step.refused) == (0, 1)
    assert step.p50 != step.p50


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gliclass_rerank.cli", "bench", name, *options]
    wide = {**os.environ, "COLUMNS": "160"}  # a table's names are folded where it is wider than the terminal
    done = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# Only looked for: to import it would replace the sockets of all tests after it.
@pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="locust is not installed")
@pytest.mark.long
def test_load_runs_and_every_answer_is_right(exported: Exported, tmp_path: Path) -> None:
    options = ["--model", str(exported("bert-simple")), "--rates", "5,20", "--users", "20", "--seconds", "4"]
    assert "20.00/s offered" in run("load", *options, "--out", str(tmp_path)).stdout
    (file,) = tmp_path.glob("*/load.json")
    assert file.with_suffix(".png").is_file()
    assert str(ROOT) not in file.read_text("utf-8")
    report = json.loads(file.read_text("utf-8"))
    steps = [Step(**step) for step in report["steps"]]
    assert [step.offered for step in steps] == [5, 20]
    assert sum(step.wrong for step in steps) == report["wrong answers"] == report["jobs not ended"] == 0
    assert all(0 < step.p50 <= step.p90 <= step.p99 for step in steps)
    assert len(steps[1].by_name) >= 3
    assert report["model"]["backend"] == "onnx"


@needs_mini
@pytest.mark.long
def test_the_checks_of_the_service_run(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    assert "ratio" in run("overhead", "--quick", "--out", str(tmp_path)).stdout
    (file,) = tmp_path.glob("*/service.json")
    assert file.with_suffix(".png").is_file()
    report = json.loads(file.read_text("utf-8"))
    assert len(report["alone"]["http"]) == len(report["alone"]["in_process"]) == 5
    assert report["busy"]["ratio"] > 0
    assert set(report["overload"]["statuses"]) <= {"200", "429"}
    assert report["overload"]["same_answers"]
    assert report["overload"]["rss_after"] > 0


def test_samples_of_texts_are_not_all_alike() -> None:
    traffic = Traffic(3)
    assert len({traffic.query() for _ in range(50)}) > 10
    assert len({len(traffic.passages()) for _ in range(100)}) >= 4
