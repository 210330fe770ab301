"""The benchmarks of decisions, on toy data with a tiny model, and the tables of their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Exported

from benchmarks.decisions import coherence, decision_cost, decisions
from benchmarks.decisions.sets import LEVELS, Decision, DecisionSet, read_sets
from benchmarks.lib.eval_data import OUT_OF_SCOPE
from benchmarks.lib.toy_data import write_labels, write_lines, write_questions
from benchmarks.mini.sets import part_of
from benchmarks.pages import decisions as pages
from gliclass_rerank import Choice, Noul, NoulAnswer, Score

Run = Callable[..., dict[str, Any]]
TEXTS = [{"text": "play some jazz", "label": "play music"}, {"text": "is it raining", "label": "get weather"}]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_questions(root / "train/decisions/strategyqa")
    names = ["play music", "get weather", OUT_OF_SCOPE]
    write_labels(root / "eval/routing/clinc150", names, [*TEXTS, {"text": "hm", "label": OUT_OF_SCOPE}])
    write_labels(root / "eval/labels/sst5", sorted(LEVELS), [{"text": "dreadful", "label": "very negative"}])
    return root


@pytest.fixture
def run(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a script with a tiny model, as its command line does, and return what it wrote."""

    def run(script: Any, *options: str) -> dict[str, Any]:
        model = ["--model", str(exported("bert-simple")), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["bench", *model, *options])
        script.main()
        (file,) = tmp_path.glob("*/*.json")
        report: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return report

    return run


def test_sets_become_questions_with_their_true_answers(data: Path) -> None:
    sets = read_sets(data, 9)
    assert {name: type(one.decisions[0].question) for name, one in sets.items()} == {
        "strategyqa": Noul, "clinc150": Choice, "sst5": Score,
    }  # fmt: skip
    for name, one in sets.items():
        for asked in one.decisions:
            answer = asked.question.labels[asked.gold]
            wanted = {"strategyqa": "Yes" if "dough" in asked.state else "No", "sst5": "very negative"}
            wanted |= {"clinc150": "play music" if "jazz" in asked.state else "get weather"}
            assert answer.endswith(wanted[name])
    assert len(sets["clinc150"].decisions) == 2
    assert all(part_of(asked.state) != "train" for asked in sets["strategyqa"].decisions)
    assert sets["sst5"].described() == {"type": "score", "questions": 1, "of": 1, "options": 5}
    with pytest.raises(SystemExit, match="no set snips in"):
        read_sets(data, 9, ["snips"])


def test_texts_of_the_training_part_are_never_asked(tmp_path: Path) -> None:
    texts = [f"text number {i}" for i in range(300)]
    records = [{"text": text, "question": "Is it?", "answer": True} for text in texts]
    write_lines(tmp_path / "train/decisions/condaqa_dev/noul.jsonl.gz", records)
    (found,) = read_sets(tmp_path, 999).values()
    assert {asked.state for asked in found.decisions} == {text for text in texts if part_of(text) != "train"}


def test_certain_answers_have_a_brier_score_of_0_if_right_and_2_if_wrong() -> None:
    question = Choice(None, ["a", "b"])
    one = DecisionSet("set", (Decision("x", question, 0), Decision("y", question, 1)), 2)
    right = decisions.answered_by(lambda _: [np.array([1.0, 0.0]), np.array([0.0, 1.0])], one)
    wrong = decisions.answered_by(lambda _: [np.array([0.0, 1.0]), np.array([1.0, 0.0])], one)
    even = decisions.answered_by(lambda _: [np.array([0.5, 0.5])] * 2, one)
    assert decisions.outcomes_of([right]) == {"accuracy": 1, "brier": 0, "ece": 0}
    assert decisions.outcomes_of([wrong]) == {"accuracy": 0, "brier": 2, "ece": 1}
    assert decisions.outcomes_of([even]) == {"accuracy": 0.5, "brier": 0.5, "ece": 0}
    assert decisions.outcomes_of([right, wrong])["accuracy"] == 0.5
    low, high = decisions.intervals_of([even])["accuracy"]
    assert (low, high) == (0, 1)
    assert decisions.probabilities_of(NoulAnswer(0.25)).tolist() == [0.25, 0.75]


def test_decisions_are_measured_and_shown(run: Run, data: Path) -> None:
    report = run(decisions, "--data", str(data), "--no-dense", "--threads", "1")
    ((name, rows),) = report["results"].items()
    assert list(rows) == ["strategyqa", "clinc150", "sst5", "mean"]
    assert "eval/routing/snips" in report["not in the data"]
    for of, row in rows.items():
        assert set(row) == {"accuracy", "brier", "ece"}
        for measure, value in row.items():
            low, high = report["intervals"][name][of][measure]
            assert 0 <= low <= high <= 2
            assert 0 <= value <= (2 if measure == "brier" else 1)
    assert rows["mean"]["brier"] == pytest.approx(np.mean([rows[of]["brier"] for of in report["sets"]]))
    text = pages.decisions(report)
    assert "| clinc150, choice of 2 |" in text
    assert f"| {name} | {rows['mean']['accuracy']:.3f} (" in text


def test_the_cost_of_questions_is_measured_and_shown(run: Run) -> None:
    report = run(decision_cost, "--rounds", "3")
    (model,) = report["model"]
    assert list(report["results"]) == [model, f"{model}, described options"]
    for name, row in report["results"].items():
        assert {count: len(taken) for count, taken in report["rounds"][name].items()} == {"1": 3, "4": 3, "16": 3}
        assert 0 < row["least"] <= row["16 of 1"] <= row["most"]
        assert f"({row['least']:.1f} to {row['most']:.1f})" in pages.cost(report)


def test_scores_of_jevbench_are_shown() -> None:
    scores = {"overall": None, "pillars": {"REP": 0.5, "BAT": 1.0, "MEA": 0.25, "LOG": None, "CHO": 0.0}}
    found = {
        "scores": scores | {"n_cases": 3, "n_outcomes": 20},
        "result": {"suite": {"name": "mini", "version": "1"}},
    }
    row = coherence.scores_of(found)
    assert row == {"overall": None, "REP": 0.5, "BAT": 1.0, "MEA": 0.25, "LOG": None, "CHO": 0.0}
    report = {"results": {"m": row}, "suites": {"m": coherence.suite_of(found)}, "jevbench": ["jevbench==0.1.0"]}
    shown = pages.coherence(report)
    assert "| m |  | 50% | 100% | 25% |  | 0% |" in shown
    assert "20 tests of 3 cases, jevbench==0.1.0, mini." in shown
