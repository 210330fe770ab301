"""The playground without a browser: what is read, what is drawn, what a page says, and how it is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping

import pytest

pytest.importorskip("streamlit")

from conftest import needs_mini
from fakes import OverlapScorer
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest
from test_cli import Run, run

from gliclass_rerank import Choice, InputError, Noul, Ranked, Reranker, Route, RouteDecision, Score
from gliclass_rerank.cli.playground import _settings
from gliclass_rerank.passage_files import SourcedPassage
from gliclass_rerank.playground import examples
from gliclass_rerank.playground.check_tab import pieces
from gliclass_rerank.playground.reading import read_decisions, read_labels, read_passages, read_routes, read_state
from gliclass_rerank.playground.render import (
    SHOWN_CHARACTERS,
    VERDICTS,
    answer_block,
    claim_panel,
    decision_block,
    excerpt,
    labels_table,
    model_lines,
    problem,
)
from gliclass_rerank.playground.render import ranking_table as table_of
from gliclass_rerank.playground.rerank_tab import best_spans
from gliclass_rerank.tasks.decide.answers import Answer, ChoiceAnswer, NoulAnswer, ScoreAnswer
from gliclass_rerank.tasks.fact_check.checker import ClaimVerdict
from gliclass_rerank.types import ModelInfo

__all__ = ["run"]  # the fixture of the commands' tests

ATTACK = '<img src=x onerror="alert(1)">**bold** :red[red] <mark>'


# What is read


@pytest.mark.parametrize(
    ("backend", "device", "told"),
    [
        ("onnx", "cpu", "Texts stay on this machine."),
        ("torch", "cuda:0", "Texts stay on this machine."),
        ("http", "http://host:8000", "Texts are sent to http://host:8000."),
        ("openai", "http://host/v1", "Texts are sent to http://host/v1."),
        ("systemone", "https://host/v1", "Texts are sent to https://host/v1."),
        ("escalating", "cpu, https://host/v1", "Texts are sent to cpu, https://host/v1."),
    ],
)
def test_the_page_tells_where_texts_go(backend: str, device: str, told: str) -> None:
    info = ModelInfo("a model", "0", "uni-encoder", backend, device, "unknown", 0)
    assert told in model_lines(info)
    assert "length unknown" in model_lines(info)


def test_passages_are_parted_by_blank_lines_and_followed_by_files() -> None:
    files = [("notes.md", b"# A note\n\nin two paragraphs"), ("more.jsonl", b'"one"\n\n{"text": "two", "id": 7}\n')]
    read = read_passages("first\nstill first\r\n  \t\r\nsecond\n\n\n", files)
    assert [passage.text for passage in read] == [
        "first\nstill first", "second", "# A note\n\nin two paragraphs", "one", "two",
    ]  # fmt: skip
    assert [passage.source for passage in read] == ["", "", "notes.md", "more.jsonl, line 1", "more.jsonl, line 3"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("picture.png", b"\x89PNG\r\n", "picture.png: expected UTF-8, got byte 0x89 at 0"),
        ("empty.txt", b" \n", "empty.txt: expected some text"),
        ("broken.jsonl", b'"one"\n{"tex', "broken.jsonl, line 2: expected JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_passages("typed", [(name, content)])


def test_no_passages_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least one passage, got none"):
        read_passages(" \n\n ")


def test_routes_have_names_descriptions_and_examples_below() -> None:
    assert read_routes("billing: invoices: all of them\n\twhy so much?\n\n  and twice?\ntech\n") == [
        Route("billing", "invoices: all of them", ("why so much?", "and twice?")),
        Route("tech"),
    ]
    with pytest.raises(InputError, match="expected a name before the colon"):
        read_routes(": nameless")


def test_labels_are_a_list_or_nested_by_indentation() -> None:
    assert read_labels(" a\n\n b b\n") == ["a", "b b"]
    assert read_labels("x\n  y\n    1\n    2\n  z\n    3\nw\n\t4") == {"x": {"y": ["1", "2"], "z": ["3"]}, "w": ["4"]}
    assert read_labels("") == []


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("x\n  y\nalone", "expected labels below 'alone'"),
        ("x\n  y\nx\n  z", "expected each group once, got 'x' twice"),
        ("\n".join(" " * i + "x" for i in range(2000)), "at most 32 levels"),
    ],
)
def test_labels_that_are_no_tree_are_refused(typed: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_labels(typed)


def test_questions_are_lines_with_options_or_a_scale_below() -> None:
    assert read_decisions(
        "Is it late?\n\nWhich team?\n\ta: b: c\n  d\nHow bad?\n  fine < so so<bad\nOnly this?\n  one"
    ) == {
        "Is it late?": Noul("Is it late?"),
        "Which team?": Choice("Which team?", {"a": "b: c", "d": None}),
        "How bad?": Score("How bad?", ["fine", "so so", "bad"]),
        "Only this?": Choice("Only this?", ["one"]),
    }
    assert read_decisions(' {"late": {"type": "noul", "instructions": "Is it late?"}}') == {"late": Noul("Is it late?")}


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("x?\ny?\nx?", "expected each once, got 'x\\?' twice"),
        ("x?\n a: b\n a", "question 'x\\?': options: expected each once, got 'a' twice"),
        ("x?\n : b", "question 'x\\?': option 0"),
        ("x?\n a < < b", "question 'x\\?': level 1"),
        ('{"x": 1', "questions: not readable as JSON"),
        ('{"x": {"type": "box"}}', "question 'x': type: expected 'noul', 'choice' or 'score', got 'box'"),
    ],
)
def test_questions_that_cannot_be_read_are_named(typed: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_decisions(typed)


def test_a_state_is_json_or_a_text_even_if_it_begins_like_json() -> None:
    assert read_state(' {"b": 1, "a": [2]}') == {"b": 1, "a": [2]}
    assert read_state("[sic] a text") == "[sic] a text"
    assert read_state("12") == "12"


# What is drawn


def test_the_best_span_is_the_sentence_that_answers_within_the_best_window() -> None:
    reranker = Reranker(OverlapScorer(window=12))
    passages = [
        "All is well. The answer is forty two. So it goes.",
        "one",
        "filler words only here now. " * 5 + "Forty two.",
    ]
    ranking = reranker.rank("answer forty two", passages)
    spans = best_spans(reranker, "answer forty two", passages, ranking)
    found = {hit.index: passages[hit.index][slice(*span)] for hit, span in zip(ranking, spans, strict=True)}
    assert found[0] == "The answer is forty two."
    assert found[1] == "one"
    assert "two" in found[2]


@given(st.integers(1, 5000), st.data())
def test_an_excerpt_holds_the_beginning_of_its_span_and_no_more_than_is_shown(length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    first, last = excerpt("x" * length, (start, data.draw(st.integers(start + 1, length))))
    assert 0 <= first <= start < last <= length
    assert last - first == min(length, SHOWN_CHARACTERS)


def test_a_ranking_shows_where_each_passage_was_and_marks_its_span() -> None:
    passages = [SourcedPassage("low", ""), SourcedPassage("it is high. yes.", "a.txt")]
    drawn = table_of(passages, [Ranked(1, 0.75, 1.0), Ranked(0, 0.25, -1.0)], [(0, 11), (0, 3)])
    up, down = drawn.split("</tr>")[1:3]
    assert ('2 <span class="gr-up">↑' in up, '1 <span class="gr-down">↓' in down) == (True, True)
    assert ("0.750" in up, "a.txt" in up, "<mark>it is high.</mark> yes." in up) == (True, True, True)


def test_labels_stand_below_their_groups_and_those_that_hold_stand_out() -> None:
    drawn = labels_table([("a", "x"), ("a", "y"), ("b", "c", "z")], [0.9, 0.2, 0.6], {0, 2}, 0.5)
    assert [part.split("</div>")[0] for part in drawn.split('"gr-group">')[1:]] == ["a", "b › c"]
    assert drawn.count('<tr class="gr-chosen">') == 2
    assert drawn.count("left:50.0%") == 3
    assert "gr-group" not in labels_table([("x",), ("y",)], [0.9, 0.2], {0}, None)


@pytest.mark.parametrize(
    ("answer", "chosen", "shown"),
    [
        (NoulAnswer(0.25), "no", ["yes", "0.250", "no", "0.750"]),
        (NoulAnswer(0.75), "yes", ["yes", "0.750", "no", "0.250"]),
        (ChoiceAnswer("b", {"a": 0.2, "b": 0.8}, 0.6), "b", ["a", "0.200", "b", "0.800", "Confidence 0.600"]),
        (
            ScoreAnswer(1.25, (0.25, 0.25, 0.5), 0.4, ("low", "so so", {"text": "high"})),
            "2: {&quot;text&quot;: &quot;high&quot;}",
            ["0: low", "0.250", "1: so so", "0.250", "0.500", "Score 1.25 of 2, confidence 0.400"],
        ),
    ],
)
def test_an_answer_shows_all_probabilities_and_the_likeliest_stands_out(
    answer: Answer, chosen: str, shown: list[str]
) -> None:
    drawn = answer_block("A question?", answer)
    assert f'<span class="gr-chip gr-chosen">{chosen}</span>' in drawn
    assert f'<tr class="gr-chosen"><th scope="row">{chosen}</th>' in drawn
    assert drawn.count('<tr class="gr-chosen">') == 1
    places = [drawn.index(part) for part in shown]
    assert all(part in drawn for part in ("A question?", *shown))
    assert places[-1] == max(places)
    assert "vocabulary" not in drawn


def test_an_answer_about_an_unreadable_text_says_so() -> None:
    assert "vocabulary" in answer_block("A question?", NoulAnswer(0.5, readable=False))


@pytest.mark.parametrize("verdict", list(VERDICTS))
def test_each_verdict_has_its_words_and_its_colour(verdict: str) -> None:
    claim = ClaimVerdict("A claim.", 0, 8, verdict, 0.4, 0.6, 0, (4, 7))  # type: ignore[arg-type]
    drawn = claim_panel(claim, SourcedPassage("no, yes, no", ""))
    assert f'<span class="gr-chip gr-{verdict}">{VERDICTS[verdict]}</span>' in drawn
    assert "… yes …" in drawn


def test_pieces_make_up_the_answer() -> None:
    answer = "- One. Two?\n\nThree."
    spans = [(2, 6), (7, 11), (13, 19)]
    claims = [ClaimVerdict(answer[a:b], a, b, "supported", 1, 0, 0) for a, b in spans]
    cut = pieces(answer, claims)
    assert "".join(str(piece["text"]) for piece in cut) == answer
    assert [piece["claim"] for piece in cut if "verdict" in piece] == [0, 1, 2]


def test_nothing_that_a_user_writes_becomes_markup() -> None:
    passage = SourcedPassage(ATTACK, ATTACK)
    scores: Mapping[str, float] = {ATTACK: 0.9}
    for drawn in (
        problem(ATTACK),
        table_of([passage], [Ranked(0, 0.5, 0.0)], [(0, 9)]),
        decision_block(ATTACK, RouteDecision(ATTACK, 0.9, scores, (ATTACK,), False), 0.5),
        labels_table([(ATTACK, ATTACK)], [0.5], set(), None),
        claim_panel(ClaimVerdict(ATTACK, 0, 9, "refuted", 0.1, 0.9, 0), passage),
        answer_block(ATTACK, ChoiceAnswer(ATTACK, {ATTACK: 1.0}, 1.0)),
        answer_block(ATTACK, ScoreAnswer(0.0, (1.0,), 1.0, (ATTACK,))),
    ):
        assert "<img" not in drawn
        assert "&lt;" in drawn


# The page


def page() -> AppTest:
    def script() -> None:
        from gliclass_rerank.playground.app import page

        page()

    return AppTest.from_function(script, default_timeout=120).run()


def ask(opened: AppTest, query: str) -> None:
    [field] = (field for field in opened.text_input if field.label == "Query")
    field.set_value(query)
    opened.button[0].click().run()


def html_of(opened: AppTest) -> str:
    assert not opened.exception
    bodies = [str(element.proto.body) for element in opened.get("html")]
    return "".join(body for body in bodies if not body.startswith("<style>"))


@needs_mini
def test_what_is_wrong_is_said_on_the_page_and_can_be_put_right() -> None:
    opened = page()
    assert "gr-ranking" in html_of(opened)
    ask(opened, " ")
    assert "query: expected some text" in html_of(opened)
    assert "gr-ranking" not in html_of(opened)
    ask(opened, examples.QUERY)
    assert "gr-ranking" in html_of(opened)


@needs_mini
def test_a_model_that_is_not_there_is_said_on_the_page() -> None:
    opened = page()
    opened.sidebar.text_input[0].set_value("/no/such/folder").run()
    assert "gr-problem" in html_of(opened)
    assert "/no/such/folder" in html_of(opened)
    assert not opened.tabs


@needs_mini
def test_a_page_for_others_does_not_let_its_model_be_changed() -> None:
    def script() -> None:
        from gliclass_rerank.playground.app import page

        page(fixed_model=True)

    opened = AppTest.from_function(script, default_timeout=120).run()
    assert opened.sidebar.text_input[0].disabled
    assert "gr-ranking" in html_of(opened)


# How it is started


def test_without_streamlit_the_extra_is_named() -> None:
    """In a process of its own, since this one has it."""
    script = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "streamlit" else real(name, package)
from gliclass_rerank.cli.main import main
main(["playground"])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "the playground needs the extra [playground]" in ended.stderr


def test_an_address_that_is_taken_is_named(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("playground", "--port", port)
    assert ended.code == 2
    assert f"expected an address that is free here, got 127.0.0.1 {port}" in ended.err


def test_it_says_nothing_to_anybody_and_answers_to_this_machine_alone() -> None:
    settings = _settings("127.0.0.1", 8501)
    assert "--browser.gatherUsageStats=false" in settings
    assert [one for one in settings if "allowedHosts" in one] == [
        "--server.allowedHosts=127.0.0.1", "--server.allowedHosts=localhost",
    ]  # fmt: skip
    everywhere = _settings("0.0.0.0", 8501)
    assert "--server.address=0.0.0.0" in everywhere
    assert not [one for one in everywhere if "allowedHosts" in one]
