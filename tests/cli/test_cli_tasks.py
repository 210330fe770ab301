"""The commands of the tasks: the same answers as the library's, readable or as JSON, and clear errors."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Exported
from test_cli import Run, run

from gliclass_rerank import Classifier, Decider, FactChecker, Reranker, Route, Router
from gliclass_rerank.tasks.decide.questions import read_questions
from gliclass_rerank.tasks.decide.state import text_of

__all__ = ["run"]  # the fixture of the other commands' tests

ROUTES = {"billing": "invoices and payments", "travel": "flights, hotels and trains"}
QUERIES = ["my invoice is wrong", "which train goes to the sea?"]
QUESTIONS = {
    "urgent": {"type": "noul", "instructions": "Is it urgent?"},
    "team": {"type": "choice", "instructions": "Which team?", "criteria": {"billing": "invoices", "travel": None}},
    "anger": {"type": "score", "instructions": "How angry?", "criteria": ["calm", "furious"]},
}
ANSWER = "The river is long. Bread is baked at night! Who asks?"


@pytest.fixture
def model(exported: Exported) -> Path:
    """A tiny model with random weights: these tests are of what stands around it."""
    return exported("bert-average-text")


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    file = tmp_path / "routes.json"
    file.write_text(json.dumps(ROUTES), "utf-8")
    return file


@pytest.fixture
def evidence(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    files[0].write_text("A river flows through the town.", "utf-8")
    files[1].write_text("The baker works at night.", "utf-8")
    return files


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))


def test_route_gives_the_routers_decisions(run: Run, model: Path, routes: Path) -> None:
    router = Router([Route(*item) for item in ROUTES.items()], model)
    ended = run("route", *QUERIES, "--routes", routes, "--model", model, "--json")
    assert ended.code == 0
    results = json.loads(ended.out)["results"]
    assert [result["query"] for result in results] == QUERIES
    for result, decision in zip(results, router.route_many(QUERIES), strict=True):
        assert (result["name"], result["abstained"], result["names"]) == (decision.name, False, [decision.name])
        assert result["scores"] == pytest.approx(dict(decision.scores))
    table = run("route", *QUERIES, "--routes", routes, "--model", model)
    assert all(text in table.out for text in ("invoice", results[0]["name"], f"{results[0]['score']:.3f}"))


def test_route_abstains_by_the_files_threshold_and_reads_stdin(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "saved.json"
    Router([Route(*item) for item in ROUTES.items()], model, threshold=1.0, fallback="person").save(file)
    typed(monkeypatch, '"my invoice is wrong"\n{"text": "which train?"}\n')
    ended = run("route", "-", "--routes", file, "--model", model, "--json")
    results = json.loads(ended.out)["results"]
    assert [(result["query"], result["name"], result["abstained"]) for result in results] == [
        ("my invoice is wrong", "person", True),
        ("which train?", "person", True),
    ]


def test_check_gives_the_checkers_verdicts(run: Run, model: Path, evidence: list[Path]) -> None:
    report = FactChecker(model, threshold=0.3).check(ANSWER, [file.read_text("utf-8") for file in evidence])
    options = ("--threshold", 0.3, "--model", model)
    ended = run("check", ANSWER, "--evidence", *evidence, *options, "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert (found["supported"], found["passed"]) == (report.supported, report.passed)
    assert [claim["text"] for claim in found["claims"]] == [claim.text for claim in report.claims]
    for shown, claim in zip(found["claims"], report.claims, strict=True):
        assert (shown["verdict"], shown["evidence"]) == (claim.verdict, claim.evidence)
        assert shown["source"] == str(evidence[claim.evidence])
        assert (shown["support"], shown["refute"]) == pytest.approx((claim.support, claim.refute))
    table = run("check", ANSWER, "--evidence", evidence[0], "--evidence", evidence[1], *options)
    assert "of the claims are supported" in table.out
    assert "Bread is baked" in table.out


def test_check_filters_what_it_reads_from_stdin(
    run: Run, model: Path, evidence: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, ANSWER)
    everything = run("check", "-", "--evidence", evidence[0], "--threshold", 0, "--model", model, "--filter")
    kept = FactChecker(model, threshold=0).filter(ANSWER, evidence[0].read_text("utf-8"))
    assert (everything.code, everything.out) == (0, f"{kept}\n")
    typed(monkeypatch, ANSWER)
    nothing = run("check", "-", "--evidence", evidence[0], "--threshold", 1, "--model", model, "--filter", "--json")
    assert json.loads(nothing.out)["answer"] == ""


def test_classify_gives_the_classifiers_labels(run: Run, model: Path, tmp_path: Path) -> None:
    expected = Classifier(model).classify(QUERIES, ["money", "travel", "food"], threshold=0.1)
    options = ("--threshold", 0.1, "--model", model)
    ended = run("classify", *QUERIES, "--labels", "money, travel,food", *options, "--json")
    assert ended.code == 0
    for result, one in zip(json.loads(ended.out)["results"], expected, strict=True):
        assert result["scores"] == pytest.approx(one.scores)
        assert [label["label"] for label in result["labels"]] == [label.label for label in one.labels]
    nested = tmp_path / "labels.json"
    nested.write_text(json.dumps({"topic": ["money", "travel"], "tone": ["calm", "angry"]}), "utf-8")
    ended = run("classify", QUERIES[0], "--labels", nested, "--single", "--model", model, "--json")
    (result,) = json.loads(ended.out)["results"]
    assert set(result["tree"]) == {"topic", "tone"}
    assert len(result["labels"]) == 1
    table = run("classify", QUERIES[0], "--labels", "money,travel", "--threshold", 1, "--model", model)
    assert "(none)" in table.out


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(QUESTIONS), "utf-8")
    return file


def test_decide_gives_the_deciders_answers(run: Run, model: Path, questions: Path) -> None:
    expected = Decider(model).decide("my invoice is wrong", read_questions(QUESTIONS))
    ended = run("decide", "my invoice is wrong", "--questions", questions, "--model", model, "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["answers"] == {
        name: answer.as_dict() | {"readable": True} for name, answer in expected.items()
    }
    table = run("decide", "my invoice is wrong", "--questions", questions, "--model", model)
    team = expected["team"].as_dict()
    assert all(text in table.out for text in ("urgent", "team", "anger", str(team["choice"]), "calm", "yes", "no"))


def test_decide_reads_json_from_the_argument_a_file_or_stdin(
    run: Run, model: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"subject": "my invoice", "paid": True}
    files = [tmp_path / "state.json", tmp_path / "state.txt"]
    files[0].write_text(json.dumps(state, indent=2), "utf-8")
    files[1].write_text(text_of(state, "state"), "utf-8")
    typed(monkeypatch, json.dumps(state, indent=1))
    answers = [
        run("decide", given, "--questions", questions, "--model", model, "--json").out
        for given in (text_of(state, "state"), *files, "-")
    ]
    assert len(set(answers)) == 1
    other = run("decide", "[my invoice] paid", "--questions", questions, "--model", model, "--json").out
    assert json.loads(other)["answers"] != json.loads(answers[0])["answers"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("route", "q", "--routes", "none.json"), "none.json"),
        (("route", "", "--routes", "{routes}"), "query"),
        (("check", "", "--evidence", "{evidence}"), "answer"),
        (("check", "Rain falls.", "--evidence", "none.txt"), "none.txt"),
        (("check", "-", "--evidence", "-"), "got it for both"),
        (("check", "Rain falls.", "--evidence", "{evidence}", "--threshold", "2"), "threshold"),
        (("classify", "t", "--labels", "none.json"), "not readable as JSON"),
        (("route", "q", "--routes", "{empty}"), "expected at least one route"),
        (("route", "-", "-", "--routes", "{routes}"), "expected once, got it 2 times"),
        (("check", "Rain falls.", "--evidence", "{folder}"), "evidence: expected at least one passage"),
        (("check", "Rain falls.", "--evidence", "-", "-"), "expected once, got it 2 times"),
        (("check", "Rain falls.", "--evidence", "{blank}"), "blank.txt: expected some text"),
        (("check", "Rain falls.", "--evidence", "{lines}"), "lines.jsonl, line 2: expected JSON"),
        (("rerank", "q", "{lines}"), "lines.jsonl, line 2: expected JSON"),
        (("rerank", "q", "-", "-"), "expected once, got it 2 times"),
        (
            ("rerank", "q", "{evidence}", "--criteria", "a=1", "--criteria", "a=2"),
            "criteria: expected each once, got 'a' twice",
        ),
        (("rerank", "q", "{evidence}", "--criteria", "=1"), "criteria: expected NAME=WEIGHT"),
        (("classify", "t", "--labels", "a,,b"), "labels: expected text between the commas, got none at position 2"),
        (("classify", "t", "--labels", "a, a"), "labels: expected each once, got 'a' twice"),
        (("classify", "t", "--labels", "{twice}"), "labels: expected each once, got 'a' twice"),
        (("classify", "t", "--labels", ""), "labels: expected text between the commas, got none at position 1"),
        (("classify", "-", "-", "--labels", "a"), "expected once, got it 2 times"),
        (("classify", "t", "--labels", "a", "--aggregate", "sum"), "aggregate"),
        (("decide", "t", "--questions", "none.json"), "questions: none.json: not readable as JSON"),
        (("decide", "t", "--questions", "{empty}"), "questions: expected at least one, got none"),
        (("decide", "t", "--questions", "{twice}"), "questions: expected an object from name to question, got list"),
        (("decide", "t", "--questions", "{routes}"), "question 'billing': expected an object, got str"),
        (("decide", "", "--questions", "{questions}"), "state: expected some text"),
        (("decide", "{broken}", "--questions", "{questions}"), "not readable as JSON"),
    ],
)
def test_bad_input_ends_with_2_and_says_why(
    arguments: tuple[str, ...], message: str, run: Run, model: Path, routes: Path, evidence: list[Path]
) -> None:
    folder = evidence[0].parent
    written = {"broken.json": "{", "questions.json": json.dumps(QUESTIONS)}
    written |= {"empty.json": "{}", "blank.txt": " \n", "lines.jsonl": '"fine"\n{oops', "twice.json": '["a", "b", "a"]'}
    for name, content in written.items():
        (folder / name).write_text(content, "utf-8")
    (folder / "nothing").mkdir()
    known = {"{" + Path(name).stem + "}": str(folder / name) for name in written}
    known |= {"{routes}": str(routes), "{evidence}": str(evidence[0]), "{folder}": str(folder / "nothing")}
    ended = run(*(known.get(argument, argument) for argument in arguments), "--model", model)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err


def test_rerank_fuses_the_scores_of_a_field(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passages, scores = ["The court ruled.", "Dough rises.", "A law was passed."], [0.1, 9.0, 0.3]
    lines = [json.dumps({"text": text, "bm25": score}) for text, score in zip(passages, scores, strict=True)]
    typed(monkeypatch, "\n".join(lines))
    ended = run("rerank", "law", "-", "--scores-field", "bm25", "--model", model, "--json")
    expected = Reranker(str(model)).rank("law", passages, first_stage_scores=scores)
    found = json.loads(ended.out)["results"]
    assert [one["index"] for one in found] == [one.index for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one.score for one in expected])
    typed(monkeypatch, "\n".join(lines))
    alone = json.loads(run("rerank", "law", "-", "--model", model, "--json").out)["results"]
    assert {one["index"]: one["score"] for one in alone} != {one["index"]: one["score"] for one in found}


def test_rerank_takes_an_instruction(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompted = tmp_path / "prompted"
    shutil.copytree(model, prompted)
    (prompted / "gliclass_rerank.json").write_text('{"prompts": true}', "utf-8")
    passages = ["The court ruled.", "Dough rises."]
    typed(monkeypatch, "\n".join(map(json.dumps, passages)))
    ended = run("rerank", "law", "-", "--instruction", "about courts", "--model", prompted, "--json")
    expected = Reranker(str(prompted)).rank("law", passages, instruction="about courts")
    assert [one["score"] for one in json.loads(ended.out)["results"]] == pytest.approx([one.score for one in expected])
    typed(monkeypatch, "\n".join(map(json.dumps, passages)))
    refused = run("rerank", "law", "-", "--instruction", "about courts", "--model", model)
    assert refused.code != 0
    assert "instruction: expected none, got one" in refused.err
