"""The laws of FactChecker, and of the sentences it judges, on scorers that count shared words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fakes import INFO, ConstantScorer, OverlapScorer, ShortScorer, windows
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import (
    GLiClassRerankError,
    InputError,
    InvalidTextError,
    LabelTooLongError,
    NonFiniteError,
    OptionError,
    Scorer,
    ScoreRequest,
    load_scorer,
)
from gliclass_rerank.calibration.calibrators import Calibrator, PlattCalibrator, sigmoid
from gliclass_rerank.tasks.fact_check.checker import ClaimVerdict, FactChecker, FactReport
from gliclass_rerank.tasks.fact_check.claims import claim_labels, claims_something, divide_claim
from gliclass_rerank.tasks.fact_check.removal import remove_sentences
from gliclass_rerank.tasks.fact_check.sentences import split, split_sentences
from gliclass_rerank.training.data.examples import fact_request
from gliclass_rerank.training.data.records import FactRecord
from gliclass_rerank.types import FloatArray
from gliclass_rerank.validation import is_blank

ANSWER = "Berlin has many lakes. Paris has many lakes. Rome sank in 1900."
EVIDENCE = [
    "Berlin has many lakes.\nSo it does.",
    "It is false that Paris has many lakes.",
    "Nothing of interest here.",
]

word = st.sampled_from("berlin paris rome has many lakes is false that it".split())
passage = st.lists(word, min_size=1, max_size=8).map(" ".join)
evidences = st.lists(passage, min_size=1, max_size=5)
sentence = passage.map(lambda words: f"{words.capitalize()}.")
gap = st.sampled_from([" ", "\n", "\n\n", "\r\n", "\n- ", "\n1. ", "  "])
pieces = st.sampled_from(
    [
        "e.g. ",
        "Dr. ",
        "3.75",
        "😀",
        "👩‍👩‍👧",
        "e\u0301",
        "\r\n",
        "\n\n",
        "\n- ",
        "\n1. ",
        "# ",
        "> ",
        "\u00a0A. ",
        "\u3000",
        "\u2028",
    ]
    + [
        "\u0085",
        "。",
        "؟",
        "?",
        "! ",
        ". ",
        "…",
        '"',
        "(",
        ")",
        " ",
        "\t",
        "Berlin",
        "is",
        "U.S. ",
        "---\n",
        ":\n",
        "42. ",
    ]
)
any_text = st.lists(pieces | st.text(max_size=3), max_size=25).map("".join).filter(lambda text: "\0" not in text)
answers = any_text.filter(lambda text: not is_blank(text))


class StatedScorer:
    """Finds a label likely if it is one of the lines of a text."""

    info = INFO

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        found = [[label in request.text.splitlines() for label in request.labels] for request in requests]
        return [np.where(row, 4, -4).astype(np.float32) for row in found]


class OrderedScorer:
    """Gives the support and refutation logits that a passage names for all claims: "3 -2"; calibrated if you like."""

    def __init__(self, **calibration: Calibrator) -> None:
        self.info = replace(INFO, calibration=calibration)

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        rows = [np.array(request.text.split()[:2], np.float32) for request in requests]
        return [np.tile(row, len(request.labels) // 2) for row, request in zip(rows, requests, strict=True)]


@st.composite
def written_answers(draw: st.DrawFn) -> str:
    """Sentences that stay sentences whichever of them are removed."""
    sentences = draw(st.lists(sentence, min_size=1, max_size=6))
    return sentences[0] + "".join(draw(gap) + one for one in sentences[1:])


def texts(answer: str) -> list[str]:
    return [answer[one.start : one.end] for one in split_sentences(answer)]


def outcomes(report: FactReport) -> list[tuple[str, float, float]]:
    return [(claim.verdict, claim.support, claim.refute) for claim in report.claims]


def only(report: FactReport) -> ClaimVerdict:
    (claim,) = report.claims
    return claim


# Verdicts


def test_each_sentence_is_judged_by_the_passage_that_says_most() -> None:
    report = FactChecker(StatedScorer()).check(ANSWER, EVIDENCE)
    assert [claim.text for claim in report.claims] == texts(ANSWER)
    assert [claim.verdict for claim in report.claims] == ["supported", "refuted", "not_enough_info"]
    assert [claim.evidence for claim in report.claims[:2]] == [0, 1]
    assert report.supported == pytest.approx(1 / 3)
    assert not report.passed
    assert all(claim.window is None for claim in report.claims)


def test_an_answer_whose_claims_are_all_supported_passes() -> None:
    report = FactChecker(StatedScorer()).check("Berlin has many lakes.", EVIDENCE)
    assert (report.supported, report.passed) == (1.0, True)


def test_an_answer_that_claims_nothing_passes_and_costs_nothing() -> None:
    scorer = OverlapScorer()
    report = FactChecker(scorer).check(" --- 😀!\n", EVIDENCE)
    assert (report.claims, report.supported, report.passed, scorer.calls) == ((), 1.0, True, [])


@pytest.mark.parametrize(
    ("passages", "verdict", "deciding"),
    [
        (["2 -1", "0 0"], "supported", 0),
        (["1 0", "0 1"], "supported", 0),  # as likely refuted: supported
        (["1 0", "0 2"], "refuted", 1),
        (["0 -9"], "supported", 0),  # at the threshold
        (["-3 -1", "-2 -9"], "not_enough_info", 1),
        (["-9 0"], "refuted", 0),
        (["40 0", "41 0"], "supported", 1),  # probabilities of 1, both
    ],
)
def test_the_verdict_follows_the_documented_rule(passages: list[str], verdict: str, deciding: int) -> None:
    claim = only(FactChecker(OrderedScorer()).check("A claim.", passages))
    support, refute = np.array([passage.split() for passage in passages], float).max(axis=0)
    assert (claim.verdict, claim.evidence) == (verdict, deciding)
    assert (claim.support, claim.refute) == pytest.approx((float(sigmoid(support)), float(sigmoid(refute))))


def test_thresholds_move_the_verdicts() -> None:
    def verdict(passage: str, **options: Any) -> str:
        return only(FactChecker(OrderedScorer(), **options).check("A claim.", passage)).verdict

    assert verdict("1 0", threshold=0.8) == "not_enough_info"
    assert verdict("-1 -2", threshold=0.2) == "supported"
    assert verdict("0 1", refute_threshold=0.8) == "not_enough_info"
    assert verdict("-2 -1", refute_threshold=0.2) == "refuted"


def test_support_and_refutation_have_calibrations_of_their_own() -> None:
    scorer = OrderedScorer(support=PlattCalibrator(2.0, -3.0), refutation=PlattCalibrator(1.0, 1.0))
    claim = only(FactChecker(scorer).check("A claim.", ["1 -1", "0 -2"]))
    assert (claim.support, claim.refute) == pytest.approx((float(sigmoid(-1)), float(sigmoid(0))))
    assert claim.verdict == "refuted"


def test_the_window_that_decided_is_told() -> None:
    long = "one two three four Berlin has many lakes. five six seven eight it is false that Paris"
    checker = FactChecker(OverlapScorer(window=4))
    supported, refuted = checker.check("Berlin has many lakes. Paris.", [long, "short"]).claims
    spans = windows(long, 4)
    assert supported.window == spans[1]
    assert (refuted.verdict, refuted.window) == ("refuted", next(s for s in spans if "false" in long[slice(*s)]))
    assert only(checker.check("Berlin has many lakes.", "Berlin has many lakes.")).window is None


# What is read


class RecordingScorer(ConstantScorer):
    """Remembers the labels that it was asked for."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.labels: list[str] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.labels = [label for request in requests for label in request.labels]
        return super().score(requests)


FACTS = ["Penguins cannot fly", "The museum is closed on Mondays", "Aspirin was first sold by Bayer"]
CITED = [
    "{} [1].",
    "{}. [1]",
    "{}[1].",
    "{} ([source](https://example.org/a)).",
    "{} (Smith, 2020).",
    "{}<sup>1</sup>.",
]
CITED += ["{}【4:0†source】.", "**{}.**", "[{}](https://example.org).", "- {}.", "## {}."]


def report_of(form: str, scorer: Scorer) -> tuple[str, FactReport]:
    answer = "\n".join(form.format(fact) for fact in FACTS)
    return answer, FactChecker(scorer).check(answer, "\n".join(f"{fact}." for fact in FACTS))


@pytest.mark.parametrize("form", CITED)
def test_a_claim_is_read_without_marks_and_told_with_them(form: str) -> None:
    scorer = RecordingScorer()
    answer, report = report_of(form, scorer)
    read = scorer.labels
    plain = "\n\n".join(f"{fact}." for fact in FACTS)
    FactChecker(scorer).check(plain, "Some evidence.")
    assert [claim.text for claim in report.claims] == [line.lstrip("-# ") for line in answer.split("\n")]
    assert read == scorer.labels
    assert all(answer[claim.start : claim.end] == claim.text for claim in report.claims)


def test_a_cited_answer_gets_the_probabilities_of_the_plain_one() -> None:
    scorer = load_scorer("mini")
    plain = report_of("{}.", scorer)[1]
    for form in CITED[:7]:
        answer, report = report_of(form, scorer)
        assert outcomes(report) == outcomes(plain)
        supported = [verdict for verdict, _, _ in outcomes(plain)].count("supported")
        assert report.filter(answer).count("[1]") == answer.count("[1]") * supported / len(FACTS)


@pytest.mark.parametrize(
    "answer", ["42.", "1. 2.", "[1] [2]", "**", "```\n---\n```", "![a picture](http://a.org/b.png)", "a)"]
)
def test_what_has_no_letters_is_no_claim(answer: str) -> None:
    assert not FactChecker(OverlapScorer()).check(answer, EVIDENCE).claims


@pytest.mark.parametrize("answer", ["It rained.", "他死了。", "是。", "No.", "Paris", "`rm -rf build`"])
def test_short_sentences_are_claims(answer: str) -> None:
    assert only(FactChecker(OverlapScorer()).check(answer, EVIDENCE)).text == answer


# What is too long for the model


@given(
    st.lists(
        written_answers() | st.text("ab,; \n。🏰", min_size=1, max_size=400).filter(str.strip), min_size=1, max_size=3
    )
)
def test_no_answer_is_too_long_and_others_are_judged_as_alone(texts: list[str]) -> None:
    checker = FactChecker(ShortScorer())
    pairs = [(text, EVIDENCE) for text in texts]
    reports = checker.check_many(pairs)
    assert reports == [checker.check(*pair) for pair in pairs]
    for text, report in zip(texts, reports, strict=True):
        whole = FactChecker(OverlapScorer()).check(text, EVIDENCE)
        assert [claim.text for claim in report.claims] == [claim.text for claim in whole.claims]
        for claim, read in zip(report.claims, whole.claims, strict=True):
            assert claim == read or len(claim.text) > 21  # 60 less the words of a denial, halved


def test_a_claim_in_parts_is_as_true_as_its_least_supported_part() -> None:
    parts = ["Berlin has many lakes", "Paris has many lakes", "Rome sank in 1900"]
    evidence = [f"{parts[0]},", f"{parts[1]},", f"It is false that {parts[2]}."]
    answer = f"Yes. {', '.join(parts)}."

    class Stated(StatedScorer):
        def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
            if max(len(label) for request in requests for label in request.labels) > 50:
                raise LabelTooLongError("too long")
            return super().score(requests)

    claim = FactChecker(Stated()).check(answer, evidence).claims[1]
    assert (claim.text, claim.parts) == (f"{', '.join(parts)}.", 3)
    assert (claim.verdict, claim.evidence) == ("refuted", 2)
    supported = FactChecker(Stated()).check(answer, [*evidence[:2], f"{parts[2]}."]).claims[1]
    assert (supported.verdict, supported.parts) == ("supported", 3)
    unknown = FactChecker(Stated()).check(answer, evidence[:2]).claims[1]
    assert (unknown.verdict, unknown.support < 0.5) == ("not_enough_info", True)


def test_a_model_that_takes_no_label_says_so() -> None:
    class NoRoom(ConstantScorer):
        def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
            raise LabelTooLongError("no room")

    with pytest.raises(LabelTooLongError, match="no room"):
        FactChecker(NoRoom(0.0)).check(ANSWER, EVIDENCE)


@given(st.text("ab,. \n🏰。", max_size=80), st.integers(1, 20))
def test_a_divided_text_loses_nothing(text: str, size: int) -> None:
    parts = divide_claim(text, size)
    assert all(0 < len(part) <= size for part in parts)
    assert [c for part in parts for c in part if c.isalnum()] == [c for c in text if c.isalnum()]


@pytest.mark.parametrize(
    "part",
    [
        "```python\n" + "\n".join(f"value_{i} = compute(source[{i}], target_{i})" for i in range(60)) + "\n```",
        json.dumps([{"name": f"City {i}", "people": i} for i in range(80)]),
        "The tower " + "}{;:," * 500 + " stands.",
        "他" * 1500 + "。",
    ],
)
def test_mini_reads_any_unit(part: str) -> None:
    report = FactChecker("mini").check(f"The Danube rises in Germany.\n\n{part}", "The Danube rises in Germany.")
    assert [claim.text for claim in report.claims] == ["The Danube rises in Germany.", part]
    assert report.claims[1].parts > 1


# Laws


@given(answers)
def test_offsets_slice_back(answer: str) -> None:
    claims = FactChecker(OverlapScorer()).check(answer, EVIDENCE).claims
    for claim in claims:
        assert answer[claim.start : claim.end] == claim.text == claim.text.strip()
        assert any(character.isalnum() for character in claim.text)
    assert all(one.end <= other.start for one, other in pairwise(claims))


@given(written_answers(), evidences, st.randoms())
def test_the_order_of_the_evidence_changes_no_verdict(answer: str, evidence: list[str], random: Any) -> None:
    checker = FactChecker(OverlapScorer())
    straight = outcomes(checker.check(answer, evidence))
    random.shuffle(evidence)
    assert outcomes(checker.check(answer, evidence)) == straight


@given(written_answers(), evidences, evidences)
def test_more_evidence_never_lowers_support_nor_refutation(answer: str, evidence: list[str], more: list[str]) -> None:
    checker = FactChecker(OverlapScorer())
    before, after = checker.check(answer, evidence), checker.check(answer, evidence + more)
    for less, full in zip(before.claims, after.claims, strict=True):
        assert full.support >= less.support
        assert full.refute >= less.refute


@given(written_answers(), evidences)
def test_one_request_a_passage_however_many_claims(answer: str, evidence: list[str]) -> None:
    scorer = OverlapScorer()
    FactChecker(scorer).check(answer, evidence)
    assert scorer.calls == [len(evidence)]


@given(st.lists(st.tuples(answers | written_answers(), passage | evidences), max_size=4))
def test_check_many_equals_check_on_each(pairs: list[tuple[str, Any]]) -> None:
    scorer = OverlapScorer()
    together = FactChecker(scorer).check_many(iter(pairs))
    assert len(scorer.calls) == any(report.claims for report in together)
    assert together == [FactChecker(scorer).check(*pair) for pair in pairs]


@given(written_answers(), passage)
def test_a_string_is_one_passage(answer: str, evidence: str) -> None:
    checker = FactChecker(OverlapScorer())
    assert checker.check(answer, evidence) == checker.check(answer, (evidence,))


# Filtering


def is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(character in rest for character in part)


@given(answers, evidences)
def test_filter_only_removes(answer: str, evidence: list[str]) -> None:
    checker = FactChecker(OverlapScorer())
    left = checker.filter(answer, evidence)
    assert is_subsequence(left, answer)
    if checker.check(answer, evidence).passed:
        assert left == answer
    assert checker.filter(answer, evidence, keep=("supported", "refuted", "not_enough_info")) == answer


@given(written_answers(), evidences)
def test_filter_keeps_what_is_supported_and_is_idempotent(answer: str, evidence: list[str]) -> None:
    checker = FactChecker(OverlapScorer())
    claims, left = checker.check(answer, evidence).claims, checker.filter(answer, evidence)
    assert texts(left) == [claim.text for claim in claims if claim.verdict == "supported"]
    assert not left or checker.filter(left, evidence) == left


@given(answers, evidences)
def test_a_report_filters_its_answer_as_the_checker_does(answer: str, evidence: list[str]) -> None:
    checker = FactChecker(OverlapScorer())
    report = checker.check(answer, evidence)
    assert report.filter(answer) == checker.filter(answer, evidence)
    if report.claims:
        with pytest.raises(InputError, match="the one that was checked"):
            report.filter("?" + answer)


def test_filter_keeps_the_verdicts_asked_for() -> None:
    checker = FactChecker(StatedScorer())
    assert checker.filter(ANSWER, EVIDENCE) == "Berlin has many lakes."
    assert checker.filter(ANSWER, EVIDENCE, keep=["supported", "not_enough_info"]) == (
        "Berlin has many lakes. Rome sank in 1900."
    )
    assert checker.filter(ANSWER, EVIDENCE, keep=()) == ""


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("No. Yes it is. No.", "Yes it is."),
        ("Yes it is. No. Yes it was.", "Yes it is. Yes it was."),
        ("Yes it is. No.\n\nNo. Yes it was.\n", "Yes it is.\n\nYes it was.\n"),
        ("Yes it is.\n\nNo.\n", "Yes it is.\n"),
        ("- Yes so.\r\n- No way. No how.\r\n- Yes sir.", "- Yes so.\r\n- Yes sir."),
        ("1. No way. Yes so.\n2. No how.\n\nYes it was.", "1. Yes so.\n\nYes it was."),
        ("- No way.\n  Yes so.\n- Yes sir. No how.", "- Yes so.\n- Yes sir."),
        ("# Yes\nNo.\n---\n> No!\n", "# Yes\n---\n"),
        ("  No way.\n", ""),
    ],
)
def test_what_goes_with_a_sentence(answer: str, left: str) -> None:
    removed = [one for one in split_sentences(answer) if answer[one.start : one.end].startswith("No")]
    assert remove_sentences(split(answer), removed) == left


# Sentences


@given(any_text)
def test_no_sentence_loses_anything(text: str) -> None:
    sentences = split_sentences(text)
    marked = {one.marker for one in sentences if one.marker}
    rest = list(text)
    for start, end in [*marked, *((one.start, one.end) for one in sentences)]:
        assert text[start:end] == text[start:end].strip() != ""
        rest[start:end] = " " * (end - start)
    # Markers of items without a sentence stay unnamed; there is nothing to be said of them.
    assert not any(character.isalpha() for character in rest)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Use fruit, e.g. apples. It cost $3.50. Dr. J. Smith left.", 3),
        ("It grew 2.5% in the U.S. economy. See Fig. 3 and www.example.com today.", 2),
        ("Soft wrapped\nline. Next\r\none.", 2),
        ("Title\n\nText", 2),
        ("Facts:\nBerlin is big", 2),
        ("- One. Two.\n- Three\n* Four", 4),
        ("1. One. Two.\n2. Three", 3),
        ("In all,\n42. That many", 2),
        ("# Heading\nText\n---\nMore", 4),
        ("第一句。第二句！", 2),
        ("Mr.\u00a0A. Smith\u3000B. came. He left.", 2),
    ],
)
def test_where_sentences_end(text: str, sentences: int) -> None:
    assert len(split_sentences(text)) == sentences


def test_list_markers_are_no_part_of_a_claim() -> None:
    assert texts("> - 1. One.\n  Two.\n## Three\n2) Four.\n7. Five") == ["One.", "Two.", "Three", "Four.", "7.", "Five"]


# What claims something


@pytest.mark.parametrize(
    "text",
    ["Is it big?", "Really?”", "Hello there!", "Hi Anna,", "Great question!", "Sure!", "Thank you very much."]
    + [
        "Please read on.",
        "Let me know if you need more.",
        "Here is a summary:",
        "**Key facts:**",
        "I hope this helps!",
        "Let me know if you have questions.",
        "Please feel free to ask.",
        "The following are the main facts:",
        "Let's look at the details.",
    ],
)
def test_what_claims_nothing(text: str) -> None:
    assert not claims_something(text)


@pytest.mark.parametrize(
    "text",
    ["Berlin", "42", "Please note that Berlin is big.", "Sure, Berlin is big.", "Here is Berlin.", "Yes, it is."]
    + ["Berlin has three airports:", "Hello Kitty is a cat.", "Thanks to rain, it grew.", "No.", "Yes."]
    + [
        "Please be advised that the tower is tall.",
        "Let's Encrypt was founded in 1780.",
        "Please Please Me is the last album.",
    ]
    + ["The tower is 500 metres tall, isn't it?", "The tower is 500 metres tall?", "Let me be clear: taxes rose by 5%."]
    + [
        "Let me know is a song.",
        "Feel free is a song by X.",
        "Please Mr. Postman was a hit.",
        "Did you know that it is big?",
    ]
    + [
        "It was built in 1889 (why?)",
        "In summary, the tower is tall:",
        "Please read on: it is in Bonn.",
        "Isn't it in Bonn?",
    ]
    + ["Let me tell you: it is tall.", "Let's Dance was released in 1983.", "Please see that it is tall."],
)
def test_in_doubt_it_claims_something(text: str) -> None:
    assert claims_something(text)


@pytest.mark.parametrize(("heading", "claims"), [("Lakes of Berlin", False), ("Berlin is in France", True)])
def test_a_heading_that_states_something_is_a_claim(heading: str, claims: bool) -> None:
    assert claims_something(heading, is_heading=True) == claims
    assert bool(FactChecker(OverlapScorer(), only_claims=True).check(f"## {heading}", EVIDENCE).claims) == claims


def test_only_claims_passes_over_the_rest_and_filter_keeps_it() -> None:
    answer = "# Lakes\nHello! Here is a summary:\n- Berlin has many lakes.\n- Rome sank in 1900.\n\nAny questions?"
    everything, claims = (FactChecker(StatedScorer(), only_claims=only_claims) for only_claims in (False, True))
    assert len(everything.check(answer, EVIDENCE).claims) == 6
    assert [claim.text for claim in claims.check(answer, EVIDENCE).claims] == [
        "Berlin has many lakes.",
        "Rome sank in 1900.",
    ]
    assert claims.filter(answer, EVIDENCE) == answer.replace("- Rome sank in 1900.", "").replace("\n\n\n", "\n\n")


def test_claims_are_denied_in_the_words_of_the_training() -> None:
    record = FactRecord("p", "{x} is {claim}.", "not_enough_info")
    assert fact_request(record).labels == claim_labels(record.hypothesis)
    assert claim_labels("{x} is {claim}.") == ("{x} is {claim}.", "It is false that {x} is {claim}.")


# Bad input


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ("", InvalidTextError, "answer: expected some text"),
        (" \n", InvalidTextError, "answer: expected some text"),
        (None, InvalidTextError, "answer: expected a string, got NoneType"),
        (["A claim."], InvalidTextError, "answer: expected a string, got list"),
        ("a\0b", InvalidTextError, "answer: NUL character at position 1"),
        ("a\udc80", InvalidTextError, "answer: lone surrogate"),
    ],
)
def test_bad_answers(answer: Any, error: type[Exception], message: str) -> None:
    for call in (FactChecker(OverlapScorer()).check, FactChecker(OverlapScorer()).filter):
        with pytest.raises(error, match=message):
            call(answer, EVIDENCE)


@pytest.mark.parametrize(
    ("evidence", "error", "message"),
    [
        ("", InvalidTextError, "evidence: expected some text"),
        ([], InputError, "evidence: expected at least one passage, got none"),
        (["x", " "], InvalidTextError, "evidence 1: expected some text"),
        (["x", None], InvalidTextError, "evidence 1: expected a string, got NoneType"),
        (None, InputError, "evidence: expected a string or a sequence of strings, got NoneType"),
        (b"bytes", InputError, "evidence: expected a string or a sequence of strings, got bytes"),
        (iter(["x"]), InputError, "evidence: expected a string or a sequence of strings"),
        (["\ud800"], InvalidTextError, "evidence 0: lone surrogate"),
    ],
)
def test_bad_evidence(evidence: Any, error: type[Exception], message: str) -> None:
    for answer in (ANSWER, "---"):  # whether or not there is anything to check
        with pytest.raises(error, match=message):
            FactChecker(OverlapScorer()).check(answer, evidence)


@pytest.mark.parametrize("name", ["threshold", "refute_threshold"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_bad_thresholds(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        FactChecker(OverlapScorer(), **{name: value})


@pytest.mark.parametrize("keep", ["supported", None, ["true"], [None]])
def test_bad_keep(keep: Any) -> None:
    with pytest.raises(OptionError, match="keep: expected"):
        FactChecker(OverlapScorer()).filter(ANSWER, EVIDENCE, keep=keep)


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c"), None])
def test_bad_pairs(pair: Any) -> None:
    with pytest.raises(GLiClassRerankError, match="pairs: expected"):
        FactChecker(OverlapScorer()).check_many([pair])


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_refused(logit: float) -> None:
    with pytest.raises(NonFiniteError):
        FactChecker(ConstantScorer(logit)).check(ANSWER, EVIDENCE)
