"""Escalating: the large scorer's logits where the small one is unsure, the small one's everywhere else."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import needs_mini
from decision_server import DecisionServer
from fakes import INFO, ConstantScorer, OverlapScorer
from hypothesis import given
from hypothesis import strategies as st
from serving import running

from gliclass_rerank import (
    Answered,
    Choice,
    Classifier,
    Decider,
    Escalating,
    EscalationStats,
    FactChecker,
    Logits,
    ModelError,
    ModelInfo,
    NonFiniteError,
    Noul,
    OptionError,
    Reranker,
    Route,
    Router,
    ScoreRequest,
    ServiceError,
    load_scorer,
)
from gliclass_rerank.calibration.calibrators import PlattCalibrator, sigmoid
from gliclass_rerank.types import FloatArray

PASSAGES = ["salt comes from the sea", "bread needs yeast", "the sea is wide", "nothing of it"]


class TableScorer:
    """Logits in [-6, 6] that depend on name, text and label alone.

    Attributes:
        asked: the requests of each call.
    """

    def __init__(self, name: str, **info: Any) -> None:
        self.info: ModelInfo = replace(INFO, name=name, revision=name, **info)
        self.asked: list[Sequence[ScoreRequest]] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.asked.append(requests)
        return [
            np.array([self.logit(request.text, label) for label in request.labels], np.float32) for request in requests
        ]

    def logit(self, text: str, label: str) -> float:
        digest = hashlib.sha256(f"{self.info.name}\n{text}\n{label}".encode()).digest()
        return digest[0] / 255 * 12 - 6


words = st.sampled_from(["salt", "sea", "bread", "yeast", "bake", "swim"])
requests = st.builds(ScoreRequest, words, st.lists(words, min_size=1, max_size=4).map(tuple))
batches = st.lists(requests, max_size=6)
bands = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple)


def same(rows: Sequence[FloatArray], others: Sequence[FloatArray]) -> bool:
    return [row.tolist() for row in rows] == [row.tolist() for row in others]


# Who answers.


@given(batches, bands)
def test_each_request_has_the_logits_of_one_scorer(batch: list[ScoreRequest], band: tuple[float, float]) -> None:
    small, large = TableScorer("small"), TableScorer("large")
    scorer = Escalating(small, large, band=band)
    for request, row in zip(batch, scorer.score(batch), strict=True):
        probabilities = [1 / (1 + np.exp(-small.logit(request.text, label))) for label in request.labels]
        unsure = any(band[0] <= one <= band[1] for one in probabilities)
        one = large if unsure else small
        assert row.tolist() == [np.float32(one.logit(request.text, label)) for label in request.labels]


@given(batches)
def test_the_widest_band_gives_the_large_one_and_the_narrowest_the_small_one(batch: list[ScoreRequest]) -> None:
    small, large = TableScorer("small"), TableScorer("large")
    assert same(Escalating(small, large, band=(0, 1)).score(batch), large.score(batch))
    assert same(Escalating(small, large, band=(0.5, 0.5)).score(batch), small.score(batch))  # no logit is 0
    half = Escalating(ConstantScorer(0.0), large, band=(0.5, 0.5))  # where all are
    assert same(half.score(batch), large.score(batch))


@given(batches, bands, st.booleans(), st.randoms(use_true_random=False))
def test_no_answer_depends_on_other_requests(
    batch: list[ScoreRequest], band: tuple[float, float], exclusive: bool, random: Any
) -> None:
    scorer = Escalating(TableScorer("small"), TableScorer("large"), band=band, exclusive=exclusive)
    together = scorer.score(batch)
    assert same(together, [scorer.score([request])[0] for request in batch])
    order = list(range(len(batch)))
    random.shuffle(order)
    assert same(scorer.score([batch[i] for i in order]), [together[i] for i in order])


@given(batches, bands)
def test_the_large_one_is_asked_only_what_the_small_one_is_unsure_of(
    batch: list[ScoreRequest], band: tuple[float, float]
) -> None:
    small, large = TableScorer("small"), TableScorer("large")
    scorer = Escalating(small, large, band=band)
    with scorer.record() as answered:
        scorer.score(batch)
    escalated = [request for request, one in zip(batch, answered, strict=True) if one.escalated]
    assert [list(one) for one in large.asked] == ([escalated] if escalated else [])
    assert [list(one) for one in small.asked] == ([batch] if batch else [])
    assert scorer.stats() == EscalationStats(len(batch), len(escalated))


@given(batches, bands)
def test_of_labels_that_exclude_each_other_the_best_counts(
    batch: list[ScoreRequest], band: tuple[float, float]
) -> None:
    small, large = TableScorer("small"), TableScorer("large")
    rows = Escalating(small, large, band=band, exclusive=True).score(batch)
    for request, row, own in zip(batch, rows, small.score(batch), strict=True):
        odds = np.exp(own.astype(np.float64))
        best = (odds / odds.sum()).max()
        if len(own) == 1:
            unsure = band[0] <= sigmoid(own)[0] <= band[1]
        elif abs(best - band[1]) < 1e-12:
            continue
        else:
            unsure = best <= band[1]
        assert row.tolist() == (large.score([request])[0] if unsure else own).tolist()


def test_what_cannot_be_read_is_escalated() -> None:
    class Unread(TableScorer):
        def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
            unread = [(), (1,)]
            return [
                Logits.over_windows(row[np.newaxis], [(0, 1)], unread_text=i > 1, unread_labels=unread[i % 2])
                for i, row in enumerate(super().score(requests))
            ]

    large = TableScorer("large")
    batch = [ScoreRequest(text, ("a", "b")) for text in "wxyz"]
    scorer = Escalating(Unread("small"), large, band=(0.5, 0.5))
    with scorer.record() as answered:
        rows = scorer.score(batch)
    assert [one.escalated for one in answered] == [False, True, True, True]
    assert same(rows[1:], large.score(batch[1:]))


# What is told.


def test_each_answer_has_its_model() -> None:
    scorer = Escalating(OverlapScorer(), TableScorer("large"), band=(0.2, 0.8))
    with scorer.record() as outer:
        with scorer.record() as inner:
            scorer.score([ScoreRequest("the sea", ("the sea",)), ScoreRequest("salt", ("the sea",))])
        scorer.score([ScoreRequest("bread", ("bread of salt", "x"))])
    scorer.score([ScoreRequest("no one listens", ("x",))])
    first = [Answered("the sea", ("the sea",), "large", True), Answered("salt", ("the sea",), "overlap", False)]
    assert inner == first
    assert outer == [*first, Answered("bread", ("bread of salt", "x"), "large", True)]
    assert scorer.stats() == EscalationStats(asked=4, escalated=2)


def test_threads_share_the_counts_and_keep_their_records() -> None:
    scorer = Escalating(TableScorer("small"), TableScorer("large"))
    met = threading.Barrier(4)

    def work(name: str) -> list[Answered]:
        with scorer.record() as answered:
            met.wait(60)
            for i in range(50):
                scorer.score([ScoreRequest(name, (f"label {i}",))] * 3)
        return answered

    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(work, "abcd"))
    for name, record in zip("abcd", records, strict=True):
        assert {one.text for one in record} == {name}
        assert len(record) == 150
    escalated = sum(one.escalated for record in records for one in record)
    assert scorer.stats() == EscalationStats(600, escalated)
    assert 0 < escalated < 600


def test_the_info_is_of_both() -> None:
    small = TableScorer("small", max_length=512, direction="passage-as-label", first_stage_weight=2.0, prompts=True)
    large = TableScorer("large", max_length=0, independent_labels=True, first_stage_weight=1.0)
    info = Escalating(small, large).info
    assert (info.name, info.max_length, info.direction) == ("small+large", 512, "passage-as-label")
    # A label may be escalated with others, so it depends on them, whatever the models promise.
    assert not info.independent_labels
    assert (info.first_stage_weight, info.calibrated, info.prompts, info.embeds) == (None, False, False, False)
    others = [
        Escalating(small, large, band=(0.1, 0.9)),
        Escalating(small, large, exclusive=True),
        Escalating(large, small),
    ]
    assert len({info.revision, *(other.info.revision for other in others)}) == 4


# Calibration.


RELEVANCE = {"relevance": PlattCalibrator(2.0, -0.5)}
SIDES = {"support": PlattCalibrator(0.5, 1.0), "refutation": PlattCalibrator(3.0, -1.0)}


def test_each_scorer_is_calibrated_by_its_own() -> None:
    small, large = TableScorer("small", calibration=RELEVANCE), TableScorer("large")  # whose logits are log-odds
    scorer = Escalating(small, large, task="relevance")
    assert not scorer.info.calibrated  # it gives log-odds
    passages = [f"{text} {i}" for text in PASSAGES for i in range(10)]
    with scorer.record() as answered:
        ranking = Reranker(scorer).rank("salt?", passages)
    assert {one.model for one in answered} == {"small", "large"}
    of_small, of_large = (
        {one.index: one.score for one in Reranker(scorer).rank("salt?", passages)} for scorer in (small, large)
    )
    for ranked in ranking:
        unsure = 0.2 <= of_small[ranked.index] <= 0.8  # the band is one of calibrated probabilities
        assert answered[ranked.index].escalated == unsure
        assert ranked.score == pytest.approx((of_large if unsure else of_small)[ranked.index], abs=1e-6)


def test_tasks_apply_to_labels_in_turn() -> None:
    small, large = TableScorer("small", calibration=SIDES), TableScorer("large", calibration=RELEVANCE)
    own = FactChecker(small).check("The sea is wide. Bread is salt.", PASSAGES)
    scorer = Escalating(small, large, task=("support", "refutation"), band=(0, 0))
    got = FactChecker(scorer).check("The sea is wide. Bread is salt.", PASSAGES)
    for one, other in zip(got.claims, own.claims, strict=True):
        assert [one.support, one.refute] == pytest.approx([other.support, other.refute], abs=1e-6)
        assert one.verdict == other.verdict
    assert scorer.stats().escalated == 0


def test_windows_stay_with_their_scorer() -> None:
    small, large = OverlapScorer(window=2), OverlapScorer(window=3)
    large.info = replace(large.info, calibration=RELEVANCE)
    request = ScoreRequest("the salt of the sea is in it", ("sea salt", "the sea"), long_text="truncate")
    for task, expected in (("relevance", RELEVANCE["relevance"].log_odds), (None, lambda rows: rows)):
        for band, one in (((0, 1), large), ((0.5, 0.5), small)):
            (row,) = Escalating(small, large, band=band, task=task).score([request])
            (own,) = one.score([request])
            assert isinstance(row, Logits)
            assert isinstance(own, Logits)
            assert (row.spans, row.truncated) == (own.spans, True)
            change: Callable[[FloatArray], FloatArray] = expected if one is large else lambda rows: rows
            np.testing.assert_array_equal(row.per_window, change(own.per_window))
            np.testing.assert_array_equal(row, change(np.asarray(own)))


def test_vectors_are_those_of_the_small_one() -> None:
    small, large = OverlapScorer(embeds=True), TableScorer("large")
    scorer = Escalating(small, large, band=(0, 1))
    request = ScoreRequest("salt of the sea", ("sea", "bread"), vector=True, similarity=0.5)
    (row,) = scorer.score([request])
    (own,) = small.score([request])
    assert isinstance(row, Logits)
    assert isinstance(own, Logits)
    np.testing.assert_array_equal(row.vector, own.vector)
    assert row.tolist() == large.score([replace(request, vector=False)])[0].tolist()
    assert not any(one.vector or one.similarity for one in large.asked[0])
    assert scorer.info.embeds
    np.testing.assert_array_equal(scorer.embed(["salt of the sea"])[0], own.vector)
    assert scorer.stats() == EscalationStats(asked=1, escalated=1)


# Tasks.


def outcomes(scorer: Any) -> list[Any]:
    routes = [Route("sea", "salt and fish", ("where is salt from?",)), Route("bread", "flour and yeast")]
    state, questions = PASSAGES[0], {"salt": Noul("Is it salt?"), "where": Choice("Where?", ["sea", "bread", "land"])}
    router = Router(routes, scorer)
    return [
        Reranker(scorer).rank("salt of the sea", PASSAGES, criteria={"bread": -1.0}),
        Reranker(scorer).rank("salt of the sea", PASSAGES, direction="passage-as-label"),
        router.route_many(PASSAGES),
        Router(routes, scorer, examples="prompt").route_many(PASSAGES),
        FactChecker(scorer).check("Salt comes from bread. The sea is wide.", PASSAGES),
        Classifier(scorer).classify(PASSAGES, {"food": ["bread", "salt"]}),
        Classifier(scorer).classify(PASSAGES, ["bread", "salt"], multi_label=False),
        Decider(scorer).decide(state, questions),
    ]


@pytest.mark.parametrize("exclusive", [False, True])
def test_tasks_do_as_with_the_one_that_answers(exclusive: bool) -> None:
    small, large = TableScorer("small"), TableScorer("large")
    assert outcomes(Escalating(small, large, band=(0, 1), exclusive=exclusive)) == outcomes(large)
    assert outcomes(Escalating(small, large, band=(0, 0), exclusive=exclusive)) == outcomes(small)
    assert outcomes(small) != outcomes(large)


def test_a_question_of_a_decider_goes_to_one_of_them() -> None:
    small, large = TableScorer("small"), TableScorer("large")
    scorer = Escalating(small, large, exclusive=True)
    questions = {str(i): Choice(f"Which {i}?", ["sea", "bread", "land"]) for i in range(20)}
    with scorer.record() as answered:
        found = Decider(scorer).decide("salt", questions)
    models = {frozenset(one.labels): one.model for one in answered}
    assert set(models.values()) == {"small", "large"}
    by_model = {one.info.name: Decider(one).decide("salt", questions) for one in (small, large)}
    assert found.keys() == questions.keys()
    for name, answer in found.items():
        assert answer == by_model[models[frozenset(questions[name].labels)]][name]


@needs_mini
def test_a_decision_server_answers_what_mini_is_unsure_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TYPESAFE_API_KEY", raising=False)
    server = DecisionServer()
    passages = [f"{text} {i}" for i in range(4) for text in PASSAGES]
    with running(server.app) as url:
        scorer = Escalating("mini", load_scorer(f"systemone+{url}/v1", timeout=2), task="relevance", band=(0.05, 0.95))
        server.asked.clear()
        with scorer.record() as answered:
            ranking = Reranker(scorer).rank("where does salt come from?", passages)
        escalated = {one.text for one in answered if one.escalated}
        assert 0 < len(escalated) < len(passages)
        assert sorted(text for text, _ in server.asked) == sorted(escalated)
        own = {one.index: one.score for one in Reranker(scorer.small).rank("where does salt come from?", passages)}
        asked = {text: server.probability(text, questions[0]) for text, questions in server.asked}
        for ranked in ranking:
            text = passages[ranked.index]
            assert ranked.score == pytest.approx(asked.get(text, own[ranked.index]), abs=1e-6)
        again = pickle.loads(pickle.dumps(scorer))
        assert again.info == scorer.info
        assert again.stats() == EscalationStats(0, 0)
        assert Reranker(again).rank("where does salt come from?", passages) == ranking
    with pytest.raises(ServiceError, match="does not answer"):  # a large one that is gone is missed
        scorer.large.score([ScoreRequest("salt", ("sea",))])


def test_the_service_takes_it() -> None:
    from gliclass_rerank_service import create_app

    scorer = Escalating(OverlapScorer(), TableScorer("large"))
    with running(create_app(scorer)) as url:
        body = {"query": "salt of the sea", "documents": PASSAGES}
        answer = httpx.post(f"{url}/rerank", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found = [(one["index"], one["relevance_score"]) for one in answer.json()["results"]]
        assert found == [(one.index, one.score) for one in Reranker(scorer).rank("salt of the sea", PASSAGES)]
        assert load_scorer(url).info.name == "overlap+large"
    assert scorer.stats().asked >= 2 * len(PASSAGES)


# What goes wrong.


def test_errors_of_both_are_raised() -> None:
    class Short(TableScorer):
        def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
            return super().score(requests)[1:]

    request = ScoreRequest("salt", ("sea",))
    for scorer in (
        Escalating(Short("short"), TableScorer("large")),
        Escalating(TableScorer("small"), Short("short"), band=(0, 1)),
    ):
        with pytest.raises(ModelError, match="expected logits for each of 1 requests, got 0"):
            scorer.score([request])
        assert scorer.stats() == EscalationStats(0, 0)
    with pytest.raises(NonFiniteError):
        Escalating(TableScorer("small"), ConstantScorer(np.nan), band=(0, 1)).score([request])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"band": 0.5}, "band: expected two probabilities"),
        ({"band": (0.2, 0.5, 0.8)}, "band: expected two probabilities"),
        ({"band": "ab"}, "band: expected two probabilities"),
        ({"band": (0.2, 1.2)}, r"band: expected a finite number in \[0, 1\], got 1.2"),
        ({"band": (0.8, 0.2)}, "band: expected the smaller probability first"),
        ({"exclusive": 1}, "exclusive: expected True or False"),
        ({"task": "labels"}, r"task: expected one that has a calibrator \(relevance\), got 'labels'"),
        ({"task": ("relevance", "labels")}, "got 'labels'"),
    ],
)
def test_impossible_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Escalating(TableScorer("small", calibration=RELEVANCE), TableScorer("large"), **options)
