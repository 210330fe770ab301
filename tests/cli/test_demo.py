"""The demo: its data, its first stage, its figures, and one whole run without a runner."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from conftest import needs_mini
from fakes import OverlapScorer
from ir_measures import RR, nDCG
from rich.console import Console

from gliclass_rerank.cli.demo import show
from gliclass_rerank.demo.collection import Passage, load_collection
from gliclass_rerank.demo.evaluate import DemoReport, Outcome, Task, compare, prepare, rerank, run_demo
from gliclass_rerank.demo.first_stage import FirstStage, words
from gliclass_rerank.demo.questions import Judged, Question, calibration_requests, judge, load_questions


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    load_collection(folder)
    return folder


@pytest.fixture(scope="session")
def report(cache: Path) -> DemoReport:
    return run_demo(OverlapScorer(), candidates=10, cache_dir=cache)


# The questions


def test_there_are_questions_enough_and_thirty_are_held_out() -> None:
    questions = load_questions()
    assert len(questions) >= 80
    assert sum(question.split == "held_out" for question in questions) == 30
    assert {question.split for question in questions} == {"tune", "held_out"}
    assert (
        len({question.id for question in questions})
        == len({question.query for question in questions})
        == len(questions)
    )
    assert {grade for question in questions for grade in question.relevant.values()} == {1, 2}


def test_most_judged_names_are_in_this_pythons_documentation(cache: Path) -> None:
    judged = judge(load_questions(), {passage.name for passage in load_collection(cache)})
    names = {name for question in load_questions() for name in question.relevant}
    assert len(judged.missing_names) < 0.1 * len(names)
    assert len(judged.questions) >= 0.95 * len(load_questions())


def test_missing_names_are_left_out_and_told() -> None:
    questions = [
        Question("q1", "x", {"here": 1, "gone": 2}, "tune"),
        Question("q2", "y", {"gone": 2}, "held_out"),
        Question("q3", "z", {"here": 0, "lost": 1}, "tune"),
    ]
    judged = judge(questions, {"here"})
    assert judged == Judged((Question("q1", "x", {"here": 1}, "tune"),), ("gone", "lost"), ("q2", "q3"))


def test_calibration_uses_a_hundred_requests_and_no_held_out_question(cache: Path) -> None:
    requests = calibration_requests(cache)
    assert requests == calibration_requests(cache)
    assert len(requests) == len(set(requests)) == 100
    tune = {question.query for question in load_questions() if question.split == "tune"}
    assert {label for request in requests for label in request.labels} <= tune


# The first stage


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shutil.copy2(src)", ["shutil", "copy", "2", "src"]),
        ("__init__ MAX_REPEATS", ["init", "max", "repeats"]),
        ("getUserName HTTPServer", ["get", "user", "name", "http", "server"]),
        ("Straße, naïve", ["straße", "naïve"]),
        ("... -- !", []),
    ],
)
def test_identifiers_are_split_into_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_the_first_stage_finds_by_words_and_keeps_the_order_of_equals() -> None:
    stage = FirstStage(["copy a file", "sort a list", "copy", "list files"])
    hits = stage.candidates("copyFile", 3)
    assert hits.indices[0] == 0
    assert list(hits.scores) == sorted(hits.scores, reverse=True)
    assert stage.candidates("nothing known", 3).indices == (0, 1, 2)
    assert len(stage.candidates("copy", 9).indices) == 4


# The figures


def test_orders_are_permutations_of_the_candidates(report: DemoReport) -> None:
    for outcome in report.outcomes:
        assert len(outcome.before) == 10
        assert set(outcome.before) == set(outcome.after) == set(outcome.alone)


def test_figures_agree_with_ir_measures(report: DemoReport) -> None:
    names = [passage.name for passage in report.task.passages]
    qrels = {outcome.question.id: dict(outcome.question.relevant) for outcome in report.outcomes}
    for order, quality in (
        ("before", report.overall.before),
        ("after", report.overall.after),
        ("alone", report.overall.alone),
    ):
        run = {
            o.question.id: {names[i]: -float(rank) for rank, i in enumerate(getattr(o, order))} for o in report.outcomes
        }
        expected = ir_measures.calc_aggregate([nDCG @ 10, RR @ 10], qrels, run)
        assert quality.ndcg == pytest.approx(expected[nDCG @ 10], abs=1e-9)
        assert quality.mrr == pytest.approx(expected[RR @ 10], abs=1e-9)


def test_held_out_questions_are_counted_apart(report: DemoReport) -> None:
    held_out = [outcome for outcome in report.outcomes if outcome.question.split == "held_out"]
    assert report.held_out.queries == len(held_out)
    assert report.held_out == compare(report.task, held_out)


def test_alone_is_the_order_without_a_prior(cache: Path, report: DemoReport) -> None:
    without = rerank(prepare(10, cache_dir=cache), OverlapScorer(), 0.0)
    assert [outcome.after for outcome in without] == [outcome.alone for outcome in report.outcomes]


def test_the_weight_is_the_models_own(cache: Path, report: DemoReport) -> None:
    assert report.first_stage_weight == 1
    assert run_demo(OverlapScorer(first_stage_weight=3.5), candidates=2, cache_dir=cache).first_stage_weight == 3.5


def test_the_json_has_the_documented_keys(report: DemoReport) -> None:
    values = json.loads(json.dumps(report.as_dict()))
    assert values["collection"].startswith("documentation of Python")
    assert values["model"] == "overlap"
    assert (values["passages"], values["queries"]) == (len(report.task.passages), len(report.outcomes))
    for part in (values, values["held_out"]):
        for order in ("before", "after", "alone"):
            assert set(part[order]) == {"ndcg@10", "mrr@10"}
    assert {"collection", "first_stage", "rerank", "rerank_per_query"} <= set(values["seconds"])
    assert values["missing_names"] == list(report.task.judged.missing_names)


# What is shown


def shown(report: DemoReport, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=80, **options)  # type: ignore[arg-type]
    show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_tables_are_plain_text_where_there_is_no_terminal(report: DemoReport) -> None:
    text = shown(report)
    assert "\x1b" not in text
    assert f"{report.overall.before.ndcg:.3f}" in text
    assert f"{report.overall.after.ndcg:.3f}" in text
    assert f"{report.held_out.after.mrr:.3f}" in text
    assert "Where it helped most" in text


def test_the_tables_fit_a_terminal_of_eighty_columns(report: DemoReport) -> None:
    tables = [line for line in shown(report).splitlines() if re.match(r" *(BM25|reranked) +\S", line)]
    rows = [line for line in tables if re.search(r"\d\.\d{3} .*\d\.\d{3}", line)]
    assert len(rows) == 3
    assert all(len(line.rstrip()) <= 80 for line in rows)


def test_passages_that_move_point_the_way_they_went() -> None:
    question = Question("q", "which [b] is it", {"b": 2}, "tune")
    task = Task(tuple(Passage(name, name) for name in "abc"), Judged((question,), ("gone",), ()), ())
    outcome = Outcome(question, before=(0, 1, 2), after=(1, 0, 2), alone=(2, 1, 0))
    comparison = compare(task, [outcome])
    seconds = dict.fromkeys(("collection", "first_stage", "rerank", "rerank_per_query"), 0.1)
    report = DemoReport("tests", task, (outcome,), comparison, comparison, OverlapScorer().info, 3, 1.0, seconds)
    text = " ".join(shown(report).split())
    assert "which [b] is it" in text
    assert "1 2 ↑ b answers 2 1 ↓ a 3 3 = c" in text
    assert "1 judged names are not in this Python's documentation" in text


# The whole of it


@needs_mini
@pytest.mark.long
def test_the_demo_improves_on_bm25_without_a_network(cache: Path) -> None:
    unshare = shutil.which("unshare")
    cut_off = [unshare, "-rn"] if unshare else []
    if not unshare or subprocess.run([*cut_off, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare -rn is not permitted here, so that the runner cannot be cut off")
    command = [sys.executable, "-m", "gliclass_rerank.cli", "demo", "--collection-cache", str(cache)]
    as_json = subprocess.run([*cut_off, *command, "--json"], capture_output=True, text=True, check=True)
    values = json.loads(as_json.stdout)
    assert values["after"]["ndcg@10"] > values["before"]["ndcg@10"]
    assert values["queries"] >= 80
    table = subprocess.run(
        [*cut_off, *command, "--top-k", "3"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert "searched and reranked" in table.stdout
    assert "Traceback" not in as_json.stderr + table.stderr
    assert np.isfinite(values["seconds"]["rerank"])
