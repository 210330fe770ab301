"""Decisions: how states and questions are read, what answers mean, and what an answer does not depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checkpoints import CORPUS, INDEPENDENT, Spec, build_checkpoint
from conftest import needs_mini
from fakes import ConstantScorer, OverlapScorer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gliclass_rerank import (
    Choice,
    ChoiceAnswer,
    Decider,
    InputError,
    InvalidTextError,
    Logits,
    NonFiniteError,
    Noul,
    NoulAnswer,
    OptionError,
    Score,
    ScoreAnswer,
    Scorer,
    ScoreRequest,
    UnreadableTextError,
    load_scorer,
)
from gliclass_rerank.calibration.calibrators import Calibrator, PlattCalibrator, TemperatureCalibrator
from gliclass_rerank.tasks.decide.answers import Answer, choice_confidence, score_confidence, task_of
from gliclass_rerank.tasks.decide.questions import MAX_OPTIONS, MAX_QUESTIONS, Question, read_questions
from gliclass_rerank.tasks.decide.state import text_of
from gliclass_rerank.types import FloatArray

WORDS = sorted({word for line in CORPUS for word in line.split() if word.isascii() and word.isalpha()})
STATE = "the invoice was paid twice and the parcel never came"
laws = settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
nouls = st.builds(Noul, words, st.none() | words, st.none() | words)
choices = st.builds(Choice, st.none() | words, st.dictionaries(words, st.none() | words, min_size=1, max_size=6))
scores = st.builds(Score, words, st.lists(words, min_size=1, max_size=5))
questions = st.lists(nouls | choices | scores, min_size=1, max_size=5)


def overlap(
    calibration: Mapping[str, Calibrator] | None = None, *, independent: bool = False, window: int | None = None
) -> OverlapScorer:
    scorer = OverlapScorer(window=window)
    scorer.info = replace(scorer.info, independent_labels=independent, calibration=calibration or {})
    return scorer


@pytest.fixture(scope="module", params=["independent", "joint"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """A tiny checkpoint with independent labels, or with labels that see each other."""
    flags = INDEPENDENT if request.param == "independent" else {}
    folder = build_checkpoint(Spec(f"decide-{request.param}", "bert", flags), tmp_path_factory.mktemp("d")).folder
    if flags:
        (folder / "gliclass_rerank.json").write_text('{"labels": "independent"}', "utf-8")
    scorer = load_scorer(folder)
    assert scorer.info.independent_labels == bool(flags)
    return scorer


def numbers(answer: Answer) -> dict[Any, float]:
    """The probabilities of an answer."""
    if isinstance(answer, NoulAnswer):
        return {"yes": answer.probability}
    if isinstance(answer, ChoiceAnswer):
        return dict(answer.probabilities)
    return dict(enumerate(answer.probabilities))


def requests_of(scorer: Scorer, asked: Mapping[str, Question], state: Any = STATE) -> list[ScoreRequest]:
    plan = Decider(scorer).plan(state, asked)
    requests = list(next(plan))
    plan.close()
    return requests


# States


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("a text\nof two lines ", "a text\nof two lines "),
        ({"b": 1, "a": [True, None, "é"]}, '{"b": 1, "a": [true, null, "é"]}'),
        ([1, 2.5, "x"], '[1, 2.5, "x"]'),
        (("x", {"k": ()}), '["x", {"k": []}]'),
        ([], "[]"),
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}], "user: hi\nassistant: "),
        (
            [{"type": "message", "role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}],
            "user: a\n\nb",
        ),
        ([{"role": "user", "content": "hi", "name": "Ann"}], '[{"role": "user", "content": "hi", "name": "Ann"}]'),
        ([{"role": "user", "content": 3}], '[{"role": "user", "content": 3}]'),
        (
            [{"role": "user", "content": [{"type": "call", "id": 1}]}],
            '[{"role": "user", "content": [{"type": "call", "id": 1}]}]',
        ),
        ({"role": "user", "content": "hi"}, '{"role": "user", "content": "hi"}'),
    ],
)
def test_a_state_has_one_rendering(state: Any, text: str) -> None:
    assert text_of(state, "state") == text
    assert requests_of(overlap(), {"q": Noul("paid?")}, state)[0].text == text


def endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (3, "state: expected a text, an object or an array, got int"),
        (None, "got NoneType"),
        (True, "got bool"),
        (b"bytes", "got bytes"),
        ("  ", "state: expected some text"),
        ("a\0b", "NUL"),
        ({"a": math.nan}, "JSON cannot express"),
        ({"a": {1, 2}}, "a set is no JSON value"),
        (endless(), "JSON cannot express"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "message 0: expected text, got 'im"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "reads texts only"),
    ],
)
def test_a_state_that_is_no_text_is_refused(state: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Decider(overlap()).decide(state, {"q": Noul("paid?")})


# Questions


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        (Noul("Is it paid?"), ("Is it paid? Yes", "Is it paid? No")),
        (Noul("Paid?", true="in full"), ("Paid? in full", "Paid? No")),
        (Noul("Paid?", true="in full", false="in part"), ("Paid? in full", "Paid? in part")),
        (Noul(None, "in full", "in part"), ("in full", "in part")),
        (Noul(true="in full"), ("in full Yes", "in full No")),
        (Noul(false="in part"), ("in part No", "in part Yes")),
        (Noul({"ask": "Paid?"}), ('{"ask": "Paid?"} Yes', '{"ask": "Paid?"} No')),
        (Choice("Which?", {"a": None, "b": "the other", "c": ""}), ("Which? a", "Which? b: the other", "Which? c")),
        (Choice(None, ["a", "b"]), ("a", "b")),
        (Choice("  ", {"a": {"k": [1]}}), ('a: {"k": [1]}',)),
        (Score("How?", ["low", {"k": 1}]), ("How? low", 'How? {"k": 1}')),
    ],
)
def test_a_question_is_read_as_labels_of_its_answers(question: Question, labels: tuple[str, ...]) -> None:
    assert question.labels == labels


def test_questions_are_values() -> None:
    options = {"a": None}
    choice = Choice("Which?", options)
    options["b"] = None
    assert list(choice.options) == ["a"]
    assert choice == Choice("Which?", ["a"])
    assert hash(Score("How?", [{"k": 1}])) == hash(Score("How?", [{"k": 1}]))
    assert Score("How?", ["a", "b"]).levels == ("a", "b")


any_noul: Any = Noul
any_choice: Any = Choice
any_score: Any = Score
any_decider: Any = Decider


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: any_noul(), "expected instructions, or criteria"),
        (lambda: any_noul("", " ", None), "expected instructions, or criteria"),
        (lambda: any_noul(3), "instructions: expected a text"),
        (lambda: any_noul("a\0"), "NUL"),
        (lambda: any_choice("Which?", {}), "options: expected 1 to 255, got 0"),
        (lambda: any_choice("Which?", [f"o{i}" for i in range(MAX_OPTIONS + 1)]), "got 256; divide"),
        (lambda: any_choice("Which?", "abc"), "options: expected a mapping"),
        (lambda: any_choice("Which?", ["a", "b", "a"]), "'a' twice"),
        (lambda: any_choice("Which?", {"": None}), "option 0: expected some text"),
        (lambda: any_choice("Which?", {"a": 3}), "description of 'a': expected a text"),
        (lambda: any_score("How?", []), "levels: expected 1 to 255, got 0"),
        (lambda: any_score("How?", {"0": "low"}), "levels: expected a sequence"),
        (lambda: any_score("How?", ["low", None]), "level 1: expected a text"),
        (lambda: any_decider(overlap(), unreadable="skip"), "unreadable: expected one of"),
        (lambda: any_decider(overlap()).decide(STATE, {}), "questions: expected at least one"),
        (lambda: any_decider(overlap()).decide(STATE, [Noul("a")]), "questions: expected a mapping"),
        (lambda: any_decider(overlap()).decide(STATE, {"": Noul("a")}), "not empty"),
        (lambda: any_decider(overlap()).decide(STATE, {"q": "Paid?"}), "question 'q': expected Noul"),
        (
            lambda: any_decider(overlap()).decide(STATE, {str(i): Noul("a") for i in range(MAX_QUESTIONS + 1)}),
            "at most 400, got 401; divide them",
        ),
    ],
)
def test_a_refusal_says_what_was_expected(make: Any, message: str) -> None:
    with pytest.raises((InputError, OptionError), match=message):
        make()


def test_questions_are_read_from_json() -> None:
    told = {
        "a b.": {"type": "noul", "instructions": "Paid?", "criteria": {"true": "in full", "false": None}},
        "n": {"type": "noul", "instructions": "Paid?", "criteria": None},
        "c": {"type": "choice", "criteria": {"x": None, "y": "the other"}},
        "s": {"type": "score", "instructions": ["How?"], "criteria": ["low", "high"]},
    }
    assert read_questions(told) == {
        "a b.": Noul("Paid?", "in full"),
        "n": Noul("Paid?"),
        "c": Choice(None, {"x": None, "y": "the other"}),
        "s": Score(["How?"], ["low", "high"]),
    }


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("Paid?", "question 'q': expected an object"),
        ({"instructions": "Paid?"}, "question 'q': type: expected 'noul', 'choice' or 'score', got None"),
        ({"type": "box", "instructions": "Where?"}, "got 'box'"),
        ({"type": "noul", "instructions": "Paid?", "criteria": {"yes": "x"}}, 'expected {"true": ..., "false": ...}'),
        ({"type": "choice", "criteria": ["x"]}, "an object from option to description"),
        ({"type": "score", "criteria": {"0": "x"}}, "an array of levels"),
    ],
)
def test_json_of_another_form_is_refused_with_the_name(question: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_questions({"q": question})
    assert message in str(raised.value)


# Answers


def test_probabilities_are_softmaxes_of_the_logits() -> None:
    asked = {
        "paid": Noul("paid twice", true="invoice", false="never"),
        "team": Choice(None, {"invoice": None, "parcel": "never came", "other": None}),
        "level": Score(None, ["nothing", "paid", "paid twice"]),
    }
    found = Decider(overlap()).decide(STATE, asked)
    # Each shared word adds 2 to a logit.
    assert found["paid"] == NoulAnswer(0.5)
    team = found["team"]
    assert isinstance(team, ChoiceAnswer)
    parts = np.exp([2.0, 4.0, 0.0])  # "parcel:" is not the text's "parcel"
    assert list(team.probabilities.values()) == pytest.approx((parts / parts.sum()).tolist())
    assert team.choice == "parcel"
    level = found["level"]
    assert isinstance(level, ScoreAnswer)
    parts = np.exp([0.0, 2.0, 4.0])
    assert level.probabilities == pytest.approx((parts / parts.sum()).tolist())
    assert level.score == pytest.approx(np.dot([0, 1, 2], parts / parts.sum()))
    assert level.legend == ("nothing", "paid", "paid twice")
    assert list(found) == list(asked)


def test_the_first_of_equal_options_is_chosen_and_one_option_is_certain() -> None:
    found = Decider(overlap()).decide(STATE, {"two": Choice(None, ["x", "y"]), "one": Choice(None, ["x"])})
    assert found["two"] == ChoiceAnswer("x", {"x": 0.5, "y": 0.5}, 0.0)
    assert found["one"] == ChoiceAnswer("x", {"x": 1.0}, 1.0)
    assert Decider(overlap()).decide(STATE, {"q": Score("a", ["only"])})["q"] == ScoreAnswer(
        0.0, (1.0,), 1.0, ("only",)
    )


@pytest.mark.parametrize(
    ("probabilities", "expected"), [([0.88, 0.12], 0.76), ([0.5, 0.5], 0.0), ([1.0], 1.0), ([0.0, 1.0, 0.0], 1.0)]
)
def test_confidence_of_a_choice(probabilities: list[float], expected: float) -> None:
    assert choice_confidence(probabilities) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [([0.0, 0.95, 0.05], 0.925), ([1.0], 1.0), ([0.5, 0.0, 0.5], 0.0), ([0.25] * 4, 0.0), ([0.0, 0.0, 1.0], 1.0)],
)
def test_confidence_of_a_score(probabilities: list[float], expected: float) -> None:
    assert score_confidence(probabilities) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("question", "task"),
    [
        (Noul("a"), "noul"),
        (Choice(None, ["a"]), "choice-2"),
        (Choice(None, ["a", "b"]), "choice-2"),
        (Choice(None, ["a", "b", "c"]), "choice-3-5"),
        (Score(None, ["a"] * 5), "score-3-5"),
        (Score(None, ["a"] * 6), "score-6-10"),
        (Choice(None, [str(i) for i in range(11)]), "choice-11+"),
    ],
)
def test_the_calibrator_depends_on_type_and_number_of_options(question: Question, task: str) -> None:
    assert task_of(question) == task
    if task != "noul" and len(question.labels) > 1:
        state = "a 1"
        flat, plain = (
            Decider(overlap({task: TemperatureCalibrator(t)})).decide(state, {"q": question})["q"] for t in (4.0, 1.0)
        )
        other = Decider(overlap({"noul": TemperatureCalibrator(4.0)})).decide(state, {"q": question})["q"]
        assert numbers(other) == numbers(plain)
        ratio = [np.log(np.array(list(numbers(one).values()))) for one in (flat, plain)]
        assert ratio[0] - ratio[0][0] == pytest.approx((ratio[1] - ratio[1][0]) / 4)


def test_a_noul_is_calibrated_by_the_difference_of_its_sides() -> None:
    question = {"q": Noul(None, "paid twice", "never mind")}
    difference = 2.0  # two shared words against one
    found = Decider(overlap({"noul": PlattCalibrator(0.5, 1.0)})).decide(STATE, question)["q"]
    assert isinstance(found, NoulAnswer)
    assert found.probability == pytest.approx(1 / (1 + math.exp(-(0.5 * difference + 1.0))))


def test_a_long_state_is_read_in_windows_of_which_the_largest_logits_count() -> None:
    asked = {"q": Choice(None, ["invoice paid", "parcel came"])}
    found = Decider(overlap(window=4)).decide("the invoice was paid and then the parcel came", asked)["q"]
    assert numbers(found) == {"invoice paid": pytest.approx(0.88079708), "parcel came": pytest.approx(0.11920292)}
    whole = Decider(overlap()).decide("the invoice was paid and then the parcel came", asked)["q"]
    assert numbers(whole) == {"invoice paid": 0.5, "parcel came": 0.5}


class _Unread(OverlapScorer):
    """Knows no word of labels with "ꙮ"."""

    def score(self, requests: Any) -> list[FloatArray]:
        return [
            Logits.over_windows(
                np.asarray(row)[None],
                [(0, len(one.text))],
                unread_labels=[i for i, label in enumerate(one.labels) if "ꙮ" in label],
            )
            for one, row in zip(requests, super().score(requests), strict=True)
        ]


def test_an_option_that_cannot_be_read_is_flagged_or_refused() -> None:
    asked = {"good": Noul("paid?"), "bad": Choice(None, ["paid", "ꙮꙮ"])}
    found = Decider(_Unread()).decide(STATE, asked)
    assert [found["good"].readable, found["bad"].readable] == [True, False]
    with pytest.raises(UnreadableTextError, match="question 'bad', answer 1"):
        Decider(_Unread(), unreadable="error").decide(STATE, asked)


def test_broken_models_are_refused() -> None:
    with pytest.raises(NonFiniteError):
        Decider(ConstantScorer(math.nan)).decide(STATE, {"q": Noul("paid?")})
    with pytest.raises(InvalidTextError):
        Decider(ConstantScorer(0.0)).decide("", {"q": Noul("paid?")})


# Requests


def test_independent_labels_are_read_with_one_reading_of_the_state() -> None:
    asked: dict[str, Question] = {f"q{i}": Choice(f"question {i}", ["a", "b", "c", "d"]) for i in range(16)}
    asked["same"] = asked["q0"]
    (request,) = requests_of(overlap(independent=True), asked)
    assert len(request.labels) == 64
    assert list(request.labels) == sorted(request.labels)


def test_other_models_read_each_question_alone_and_many_options_one_by_one() -> None:
    asked = {"a": Noul("paid?"), "b": Choice(None, ["z", "y"]), "c": Choice(None, ["y", "z"])}
    assert [one.labels for one in requests_of(overlap(), asked)] == [("paid? No", "paid? Yes"), ("y", "z")]
    many = [f"o{i}" for i in range(33)]
    assert [len(one.labels) for one in requests_of(overlap(), {"q": Choice(None, many[:32])})] == [32]
    assert [len(one.labels) for one in requests_of(overlap(), {"q": Choice(None, many)})] == [1] * 33


def test_the_most_options_and_questions_are_answered() -> None:
    many = Choice("Which?", [f"option {i}" for i in range(MAX_OPTIONS)])
    found = Decider(overlap(independent=True)).decide(STATE, {str(i): many for i in range(MAX_QUESTIONS)})
    assert len(found) == MAX_QUESTIONS
    assert len(numbers(found["0"])) == MAX_OPTIONS


# Laws


@laws
@given(asked=questions, state=words, more=questions, seed=st.randoms())
def test_an_answer_depends_on_its_own_question_alone(
    model: Scorer, asked: list[Question], state: str, more: list[Question], seed: Any
) -> None:
    decider = Decider(model)
    alone = [decider.decide(state, {"q": question})["q"] for question in asked]
    named = [(f"other name {i}", question) for i, question in enumerate([*asked, *more])]
    seed.shuffle(named)
    together = decider.decide(state, dict(named))
    assert list(together) == [name for name, _ in named]
    # Joint labels are read in one batch with other questions, which rounds the last bits of float32 differently.
    within = 1e-6 if model.info.independent_labels else 5e-6
    for i, answer in enumerate(alone):
        assert numbers(together[f"other name {i}"]) == pytest.approx(numbers(answer), abs=within)


@laws
@given(question=choices, state=words, seed=st.randoms())
def test_the_order_of_options_has_no_effect(model: Scorer, question: Choice, state: str, seed: Any) -> None:
    items = list(question.options.items())
    seed.shuffle(items)
    turned = Choice(question.instructions, dict(items))
    found, again = Decider(model).decide(state, {"a": question, "b": turned}).values()
    assert numbers(again) == pytest.approx(numbers(found), abs=1e-5)


@laws
@given(asked=questions, state=words)
def test_probabilities_sum_to_one(model: Scorer, asked: list[Question], state: str) -> None:
    for answer in Decider(model).decide(state, {str(i): one for i, one in enumerate(asked)}).values():
        assert all(0 <= share <= 1 for share in numbers(answer).values())
        if not isinstance(answer, NoulAnswer):
            assert sum(numbers(answer).values()) == pytest.approx(1, abs=1e-6)
            assert 0 <= answer.confidence <= 1


@needs_mini
def test_mini_tells_a_bill_from_a_bug() -> None:
    found = Decider("mini").decide(
        "I was charged twice for my invoice.",
        {"team": Choice(None, {"billing": "invoices, payments and refunds", "tech": "errors and crashes"})},
    )
    team = found["team"]
    assert isinstance(team, ChoiceAnswer)
    assert team.choice == "billing"
    assert team.probabilities["billing"] > 0.6


def test_many_states_are_answered_as_each_alone_in_one_batch() -> None:
    questions = {
        "a": Noul("red?"),
        "b": Choice("Which?", ["red apple", "green pear"]),
        "c": Score(None, ["red", "green"]),
    }
    states: list[Any] = ["a red apple", {"fruit": "green pear"}, "a red apple"]
    scorer = OverlapScorer()
    decider = Decider(scorer)
    assert decider.decide_many(states, questions) == [Decider(OverlapScorer()).decide(one, questions) for one in states]
    assert len(scorer.calls) == 1
    assert decider.decide_many([], questions) == []


@pytest.mark.parametrize("states", ["a red apple", b"a", 1, {"state": "a"}])
def test_many_states_are_a_sequence(states: Any) -> None:
    with pytest.raises(InputError, match="states: expected a sequence"):
        Decider(OverlapScorer()).decide_many(states, {"a": Noul("red?")})


def test_a_state_among_many_is_named() -> None:
    with pytest.raises(InputError, match="state 1: expected some text"):
        Decider(OverlapScorer()).decide_many(["a", ""], {"a": Noul("red?")})
