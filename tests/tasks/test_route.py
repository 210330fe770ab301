"""The laws of Router, on a scorer that counts shared words and on one that is told its logits."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Scorers, needs_mini
from fakes import INFO, ConstantScorer, OverlapScorer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from gliclass_rerank import (
    CheckpointError,
    Example,
    GLiClassRerankError,
    InputError,
    InvalidTextError,
    NonFiniteError,
    OptionError,
    ScoreRequest,
    load_scorer,
)
from gliclass_rerank.calibration.calibrators import IsotonicCalibrator, PlattCalibrator, sigmoid
from gliclass_rerank.calibration.reliability import expected_calibration_error
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.scoring import MAX_LABELS_PER_PASS, labels_share_pass
from gliclass_rerank.tasks.routing.learning import folds_of
from gliclass_rerank.tasks.routing.outcomes import FEW, RouterReport, best_accuracy, best_f1, own_threshold
from gliclass_rerank.tasks.routing.router import ExampleUse, Route, RouteDecision, Router
from gliclass_rerank.tasks.routing.routes import Scores
from gliclass_rerank.tasks.routing.scores import REQUESTS_PER_CHUNK, combined
from gliclass_rerank.types import FloatArray

BILLING = Route("billing", "questions about an invoice or a refund", examples=("why was i charged twice",))
TECH = Route("tech", "an error or a crash when my settings change", examples=("it shows an error again",))
OTHER = Route("other")
ROUTES = [BILLING, TECH, OTHER]

word = st.sampled_from("invoice refund charged error crash settings change again my why a".split())
text = st.lists(word, min_size=1, max_size=8).map(" ".join)
names = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)
probability = st.floats(0, 1)
fits = settings(deadline=None, max_examples=40)


@st.composite
def route_lists(draw: Any) -> list[Route]:
    examples = st.lists(text, max_size=3).map(tuple)
    return [Route(name, draw(text | st.just("")), draw(examples)) for name in draw(names)]


class GivenScorer:
    """Reads its logits from the text, a number for each label."""

    info = INFO

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        return [np.array(request.text.split()[: len(request.labels)], np.float32) for request in requests]


class RecordingScorer(OverlapScorer):
    """Keeps the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.requests += requests
        return super().score(requests)


class ModelScorer(OverlapScorer):
    """Goes by another name, revision or calibration."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.info = replace(self.info, **changes)


def plain(count: int) -> list[Route]:
    return [Route(f"r{i}") for i in range(count)]


def said(*logits: float) -> str:
    """A query to which `GivenScorer` gives these logits."""
    return " ".join(map(str, logits))


@st.composite
def judged(draw: Any) -> tuple[int, list[str], list[str | None]]:
    """So many routes, queries with the logits of each, and the names of their routes or None."""
    routes = draw(st.integers(2, 4))
    logit = st.floats(-8, 8, width=32)
    rows = draw(st.lists(st.lists(logit, min_size=routes, max_size=routes), min_size=4, max_size=30))
    right = [draw(st.sampled_from([None, *range(routes)])) for _ in rows]
    for row, place in zip(rows, right, strict=True):
        if place is not None:
            row[place] += 20  # so that logits and outcomes never contradict each other as a whole
    right[0], right[1] = 0, None
    rows[0], rows[1] = [20.0] + [-2.0] * (routes - 1), [-1.0] * routes
    return routes, [said(*row) for row in rows], [None if place is None else f"r{place}" for place in right]


# Decisions


def test_the_best_route_is_chosen() -> None:
    decision = Router(ROUTES, OverlapScorer()).route("my invoice is about a refund")
    assert (decision.name, decision.names, decision.abstained) == ("billing", ("billing",), False)
    assert decision.score == decision.scores["billing"] == pytest.approx(sigmoid(2 * 4 - 3))
    assert list(decision.scores) == ["billing", "tech", "other"]


def test_a_route_is_read_with_its_name_and_description() -> None:
    assert BILLING.label == "billing: questions about an invoice or a refund"
    assert [Route("bookFlight_v2").label, Route("a", " ").label] == ["bookFlight_v2", "a"]
    scorer = RecordingScorer()
    Router(ROUTES, scorer, examples="off").route("x")
    assert set(scorer.requests[0].labels) == {BILLING.label, TECH.label, "other"}


@given(route_lists(), text, st.randoms())
def test_the_order_of_the_routes_changes_only_the_order_of_the_scores(
    routes: list[Route], query: str, random: Any
) -> None:
    shuffled = random.sample(routes, len(routes))
    straight = Router(routes, OverlapScorer()).route(query)
    moved = Router(shuffled, OverlapScorer()).route(query)
    assert moved.scores == straight.scores
    assert list(moved.scores) == [route.name for route in shuffled]
    assert moved.score == straight.score


class PlaceScorer(OverlapScorer):
    """Like a model, it scores a label a little differently beside others."""

    def _logits(self, text: str, labels: Sequence[str]) -> FloatArray:
        return super()._logits(text, labels) + np.linspace(0, 1, len(labels), dtype=np.float32)


@given(route_lists(), text, st.randoms(), st.sampled_from(["nearest", "prompt", "off"]))
def test_the_order_changes_nothing_even_where_labels_influence_each_other(
    routes: list[Route], query: str, random: Any, use: ExampleUse
) -> None:
    shuffled = random.sample(routes, len(routes))
    straight = Router(routes, PlaceScorer(), examples=use).route(query)
    assert Router(shuffled, PlaceScorer(), examples=use).route(query).scores == straight.scores


def test_routes_that_read_alike_score_alike_even_where_labels_influence_each_other() -> None:
    decision = Router([Route("a", "b"), Route("c"), Route("a: b")], PlaceScorer()).route("b")
    assert decision.scores["a"] == decision.scores["a: b"]


@given(names, text, text)
def test_routes_of_one_description_have_one_score(given_names: list[str], description: str, query: str) -> None:
    decision = Router([Route(f"{name}!", description) for name in given_names], OverlapScorer()).route(query)
    assert len(set(decision.scores.values())) == 1
    assert decision.name == f"{given_names[0]}!"


@given(route_lists(), st.lists(text, max_size=5), st.booleans(), st.none() | probability)
def test_route_many_equals_route_on_each(
    routes: list[Route], queries: list[str], multi: bool, threshold: float | None
) -> None:
    scorer = OverlapScorer()
    router = Router(routes, scorer, threshold=threshold)
    together = router.route_many(queries, multi=multi)
    assert len(scorer.calls) == bool(queries)
    assert together == [router.route(query, multi=multi) for query in queries]


@given(route_lists(), text, probability)
def test_below_the_threshold_it_abstains(routes: list[Route], query: str, threshold: float) -> None:
    free = Router(routes, OverlapScorer()).route(query)
    assert not free.abstained
    assert free.score == max(free.scores.values())
    bound = Router(routes, OverlapScorer(), threshold=threshold).route(query)
    assert bound.scores == free.scores
    assert bound.score == free.score
    assert bound.abstained == (free.score < threshold)
    assert (bound.name, bound.names) == ((None, ()) if bound.abstained else (free.name, free.names))


def test_a_score_at_the_threshold_is_enough() -> None:
    assert Router(ROUTES, ConstantScorer(0.0), threshold=0.5).route("x").name == "billing"


def test_a_fallback_is_named_when_it_abstains() -> None:
    router = Router(ROUTES, OverlapScorer(), threshold=0.9, fallback="human")
    for multi in (False, True):
        decision = router.route("good morning", multi=multi)
        assert (decision.name, decision.names, decision.abstained) == ("human", ("human",), True)
        assert decision.score == max(decision.scores.values())
        assert not router.route("my invoice is about a refund", multi=multi).abstained


def test_several_routes_may_hold() -> None:
    decision = Router(ROUTES, OverlapScorer()).route("an error in an invoice or a refund", multi=True)
    assert decision.names == ("billing", "tech")
    assert (decision.name, decision.score) == ("billing", decision.scores["billing"])
    assert Router(ROUTES, OverlapScorer()).route("good morning", multi=True).names == ()


@given(route_lists(), text, probability, probability)
def test_a_higher_threshold_keeps_a_subset(routes: list[Route], query: str, one: float, two: float) -> None:
    low, high = sorted((one, two))
    kept = [
        Router(routes, OverlapScorer(), threshold=threshold).route(query, multi=True).names for threshold in (low, high)
    ]
    assert set(kept[1]) <= set(kept[0])
    everything = Router(routes, OverlapScorer(), threshold=0).route(query, multi=True)
    assert everything.names == tuple(route.name for route in routes)


def test_logits_tell_apart_what_probabilities_cannot() -> None:
    decision = Router(plain(3), GivenScorer()).route(said(50, 80, 60))
    assert set(decision.scores.values()) == {1.0}
    assert decision.name == "r1"
    assert Router(plain(3), GivenScorer()).route(said(50, 80, 60), multi=True).name == "r1"


def test_the_models_calibration_of_labels_is_used_and_reorders_nothing() -> None:
    flat = IsotonicCalibrator((-9.0, -8.0, 8.0, 9.0), (-2.0, -1.0, -1.0, 2.0))
    for calibrator in (PlattCalibrator(0.5, -1.0), flat):
        scorer = ModelScorer(calibration={"labels": calibrator, "relevance": PlattCalibrator(3.0, 0.0)})
        raw = Router(ROUTES, OverlapScorer()).route("my invoice is about a refund")
        decision = Router(ROUTES, scorer).route("my invoice is about a refund")
        assert decision.name == raw.name
        assert decision.score == pytest.approx(sigmoid(calibrator.log_odds(2 * 4 - 3)))


def test_five_hundred_routes_are_read_one_by_one() -> None:
    scorer = RecordingScorer()
    decision = Router([Route(f"route {i}", f"word{i}") for i in range(500)], scorer).route("word321 route")
    assert decision.name == "route 321"
    assert len(decision.scores) == len(scorer.requests) == 500
    assert all(len(request.labels) == 1 for request in scorer.requests)


def test_routes_that_fit_one_pass_are_read_once() -> None:
    scorer = RecordingScorer()
    Router(plain(MAX_LABELS_PER_PASS), scorer).route_many(["one", "two"])
    assert [len(request.labels) for request in scorer.requests] == [MAX_LABELS_PER_PASS] * 2


def test_so_are_not_routes_with_long_descriptions() -> None:
    scorer = RecordingScorer()
    Router([Route(f"r{i}", "word " * 50) for i in range(8)], scorer).route("one")
    assert [len(request.labels) for request in scorer.requests] == [1] * 8


def test_many_queries_are_not_built_at_once() -> None:
    scorer = RecordingScorer()
    queries = [f"word{i}" for i in range(300)]
    decisions = Router([Route(f"r{i}", f"word{i}") for i in range(100)], scorer).route_many(queries)
    assert len(scorer.calls) > 1
    assert max(scorer.calls) <= REQUESTS_PER_CHUNK
    assert [one.name for one in decisions[:100]] == [f"r{i}" for i in range(100)]


@given(st.integers(MAX_LABELS_PER_PASS + 1, 3 * MAX_LABELS_PER_PASS), st.randoms())
def test_many_routes_do_not_decide_by_what_stands_beside_them(count: int, random: Any) -> None:
    """The favourite's place moves with the other routes; what it gets does not."""
    routes = [Route(f"r{i}", "word " * (i % 3)) for i in range(count)] + [Route("favourite", "refund of an invoice")]
    whole = Router(routes, PlaceScorer()).route("refund of an invoice")
    fewer = Router(random.sample(routes[:-1], MAX_LABELS_PER_PASS) + routes[-1:], PlaceScorer()).route(
        "refund of an invoice"
    )
    assert {name: whole.scores[name] for name in fewer.scores} == fewer.scores
    assert whole.name == fewer.name == "favourite"
    assert whole.score == fewer.score


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_neither_order_nor_other_routes_decide_where_passes_would_divide_them(scorers: Scorers, data: Any) -> None:
    """Labels in scripts of many tokens, and queries of any length, on a model."""
    scorer = scorers("bert-simple", max_length=64)
    script = data.draw(st.sampled_from(["账单发票退款支付订单", "0123456789abcdef", "😀🎉🚗", "invoice refund "]))
    descriptions = data.draw(st.lists(st.text(script, min_size=1, max_size=12), min_size=2, max_size=9))
    routes = [Route(f"r{i}", f"a{description}") for i, description in enumerate(descriptions)]
    query = "why was my card declined " * data.draw(st.integers(1, 12))
    random = data.draw(st.randoms())
    scores = Router(routes, scorer).route(query).scores
    assert Router(random.sample(routes, len(routes)), scorer).route(query).scores == pytest.approx(scores, abs=1e-5)
    if not labels_share_pass(scorer, [route.label for route in routes]):
        alone = {route.name: Router([route], scorer).route(query).score for route in routes}
        assert scores == pytest.approx(alone, abs=1e-5)


def test_a_scorer_that_knows_its_tokens_says_what_is_read_together() -> None:
    """Through the parts that stand in front of it; of other scorers a cautious bound is known."""

    class Narrow(RecordingScorer):
        def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
            return len(labels) + len(examples) <= 2

    narrow = Narrow()
    for scorer in (narrow, ProgressScorer(narrow, Console(quiet=True)), LazyScorer("", narrow)):
        for count in (2, 3):
            narrow.requests.clear()
            Router(plain(count), scorer).route("one")
            assert [len(request.labels) for request in narrow.requests] == ([2] if count == 2 else [1, 1, 1])
    narrow.requests.clear()
    shown = [Route("a", examples=("one",)), Route("b")]
    Router(shown, narrow, examples="prompt").route("two")  # the example takes room, and is shown with each
    assert [len(request.labels) for request in narrow.requests] == [1, 1]
    assert all(len(request.examples) == 1 for request in narrow.requests)


def test_scores_are_read_only_and_travel() -> None:
    decision = Router(ROUTES, OverlapScorer()).route("refund")
    for change in ({"billing": 1.0}.items(), {}.items()):
        with pytest.raises(TypeError, match="read-only"):
            decision.scores.update(change)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="read-only"):
        decision.scores["billing"] = 1.0  # type: ignore[index]
    with pytest.raises(TypeError, match="read-only"):
        del decision.scores["billing"]  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(decision)) == copy.deepcopy(decision) == decision
    assert isinstance(pickle.loads(pickle.dumps(decision)).scores, Scores)
    assert RouteDecision(**asdict(decision)) == decision
    assert json.loads(json.dumps(asdict(decision)))["scores"] == dict(decision.scores)


# Examples


@given(route_lists(), text)
def test_the_nearest_example_speaks_for_its_route(routes: list[Route], query: str) -> None:
    decision = Router(routes, OverlapScorer(), examples="nearest").route(query)
    words = set(query.split())
    for route in routes:
        shared = [len(words & set(label.split())) for label in (route.label, *route.examples)]
        assert decision.scores[route.name] == pytest.approx(sigmoid(2 * max(shared) - 3))


def test_examples_are_further_labels_that_are_read_by_themselves() -> None:
    scorer = RecordingScorer()
    Router(ROUTES, scorer).route_many(["one", "two"])
    labels = {BILLING.label, TECH.label, "other", *BILLING.examples, *TECH.examples}
    asked = {(request.text, request.labels, request.examples) for request in scorer.requests}
    assert asked == {(query, (label,), ()) for query in ("one", "two") for label in labels}
    assert len(scorer.requests) == len(asked)


def test_examples_may_be_shown_to_the_model_instead_or_left_out() -> None:
    scorer = RecordingScorer()
    for use in ("prompt", "off"):
        Router(ROUTES, scorer, examples=use).route("x")
    shown, left_out = scorer.requests
    assert {*shown.labels} == {*left_out.labels} == {route.label for route in ROUTES}
    assert left_out.examples == ()
    assert {*shown.examples} == {
        Example("why was i charged twice", (BILLING.label,)),
        Example("it shows an error again", (TECH.label,)),
    }


def test_a_routes_logit_is_the_largest_of_its_labels() -> None:
    logits = np.array([[1.0, 2.0, 5.0, -1.0], [4.0, 3.0, 2.0, 9.0]])
    assert combined(logits, np.array([0, 1, 0, 1]), 2).tolist() == [[5.0, 2.0], [4.0, 9.0]]


# Fitting


@fits
@given(judged())
def test_a_fitted_probability_grows_with_the_logit(case: tuple[int, list[str], list[str | None]]) -> None:
    routes, queries, right = case
    router = Router(plain(routes), GivenScorer())
    router.fit(queries, right)
    logits = sorted(float(number) for query in queries for number in query.split())
    scores = [router.route(said(*[logit] * routes)).score for logit in logits]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


@fits
@given(judged(), st.none() | probability)
def test_the_report_equals_scikit_learns(
    case: tuple[int, list[str], list[str | None]], threshold: float | None
) -> None:
    routes, queries, right = case
    router = Router(plain(routes), GivenScorer(), threshold=threshold, fallback="nobody")
    router.fit(queries, right)
    report = router.evaluate(queries, right)
    decisions = router.route_many(queries)
    true = [name or "-" for name in right]
    routed = ["-" if decision.abstained else str(decision.name) for decision in decisions]
    labels = [route.name for route in router.routes]
    rows = precision_recall_fscore_support(true, routed, labels=labels, zero_division=0)
    assert report.accuracy == pytest.approx(accuracy_score(true, routed))
    assert [scores.label for scores in report.routes] == labels
    for key, row in zip(("precision", "recall", "f1", "support"), rows, strict=True):
        assert [getattr(scores, key) for scores in report.routes] == pytest.approx(row.tolist())
    assert report.macro_f1 == pytest.approx(rows[2].mean())
    scores = [decision.score for decision in decisions]
    assert report.abstention_auroc == pytest.approx(roc_auc_score([name != "-" for name in true], scores))
    promised = np.array([list(decision.scores.values()) for decision in decisions]).ravel()
    outcomes = np.array([[name == label for label in labels] for name in right]).ravel()
    assert report.ece == pytest.approx(expected_calibration_error(promised, outcomes))
    hits = [max(d.scores, key=d.scores.__getitem__) == name for d, name in zip(decisions, right, strict=True)]
    assert report.best_ece == pytest.approx(expected_calibration_error(scores, hits))


@fits
@given(judged())
def test_evaluate_learns_nothing(case: tuple[int, list[str], list[str | None]]) -> None:
    routes, queries, right = case
    router = Router(plain(routes), GivenScorer())
    unfitted = router.evaluate(queries, right)
    assert router.evaluate(queries, right) == unfitted
    router.fit(queries, right)
    fitted = router.evaluate(queries, right)
    assert router.evaluate(queries, right) == fitted


@fits
@given(judged())
def test_fit_reports_what_routers_fitted_on_the_others_decide(case: tuple[int, list[str], list[str | None]]) -> None:
    routes, queries, right = case
    folds = folds_of(queries, right, min(len(set(queries)), 5 if len(set(queries)) > 20 else 20))
    report = Router(plain(routes), GivenScorer()).fit(queries, right)
    assert report.folds == len(set(folds.tolist()))
    hits = 0
    for fold in set(folds.tolist()):
        rest, mine = ([i for i, own in enumerate(folds) if (own == fold) == is_mine] for is_mine in (False, True))
        router = Router(plain(routes), GivenScorer())
        with suppress(InputError):  # too few
            router.fit([queries[i] for i in rest], [right[i] for i in rest])
        hits += sum(router.route(queries[i]).name == right[i] for i in mine)
    assert report.accuracy == pytest.approx(hits / len(queries))


scored = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 1.0]), st.booleans()), min_size=1)
GRID = np.linspace(0, 1, 201)


@given(scored, st.integers(0, 3))
def test_a_routes_threshold_has_the_best_f1_and_is_the_lowest(pairs: list[tuple[float, bool]], missed: int) -> None:
    scores, hits = (np.array(column) for column in zip(*pairs, strict=True))
    support = int(hits.sum()) + missed

    def f1(threshold: float) -> float:
        taken = scores >= threshold
        return float(2 * (hits & taken).sum() / (taken.sum() + support))

    threshold = best_f1(scores, hits, support)
    if threshold is None:
        assert not hits.any()
        return
    assert f1(threshold) == max(map(f1, GRID))
    lower = [score for score in scores if score < threshold]
    assert not lower or f1(max(lower)) < f1(threshold)


@given(scored, st.integers(0, 3), probability)
def test_of_equal_thresholds_a_route_has_the_nearest(pairs: list[tuple[float, bool]], missed: int, near: float) -> None:
    scores, hits = (np.array(column) for column in zip(*pairs, strict=True))
    support = int(hits.sum()) + missed
    lowest, nearest = best_f1(scores, hits, support), best_f1(scores, hits, support, near=near)
    if lowest is None or nearest is None:
        assert lowest is nearest is None
        return

    def f1(threshold: float) -> float:
        taken = scores >= threshold
        return float(2 * (hits & taken).sum() / (taken.sum() + support))

    assert f1(nearest) == f1(lowest)
    assert abs(nearest - near) <= abs(lowest - near)
    assert nearest == near or f1(near) < f1(nearest)


@given(scored, st.integers(0, 3), probability)
def test_a_threshold_moves_from_the_general_one_to_the_best_f1_as_more_is_seen(
    pairs: list[tuple[float, bool]], missed: int, general: float
) -> None:
    """The same queries, seen more and more often, which leaves the best F1 where it is."""
    scores, hits = (np.array(column) for column in zip(*pairs, strict=True))
    best = best_f1(scores, hits, int(hits.sum()) + missed, near=general)
    goal = general if best is None else best
    moved = [general]
    for times in (1, 2, 3, 5, 10, 100):
        seen, support = int(hits.sum()) * times, (int(hits.sum()) + missed) * times
        threshold = own_threshold(np.tile(scores, times), np.tile(hits, times), support, general)
        assert seen > FEW or threshold == general  # what a route needs of which nothing was seen
        assert min(moved[-1], goal) - 1e-12 <= threshold <= max(moved[-1], goal) + 1e-12
        moved.append(threshold)
    assert abs(moved[-1] - goal) <= FEW / 100 * abs(goal - general) + 1e-12


@given(scored, st.randoms())
def test_the_general_threshold_has_the_best_accuracy(pairs: list[tuple[float, bool]], random: Any) -> None:
    scores, hits = (np.array(column) for column in zip(*pairs, strict=True))
    nowhere = ~hits & np.array([random.random() < 0.5 for _ in pairs])

    def right(threshold: float) -> int:
        return int((hits & (scores >= threshold)).sum() + (nowhere & (scores < threshold)).sum())

    assert right(best_accuracy(scores, hits, nowhere)) == max(map(right, GRID))


# r0 is right above 2; r1 always; r2 is never best for a query of its own.
QUERIES = [said(4, -3, -3), said(3, -3, -3), said(1, -3, -3), said(0, -3, -3), said(-3, 2, -3), said(-3, 5, 1)]
NAMES = ["r0", "r0", None, None, "r1", "r1"]


def fitted_router(scorer: Any = None, **options: Any) -> Router:
    router = Router(plain(3), scorer or GivenScorer(), **options)
    router.fit(QUERIES, NAMES)
    return router


def test_thresholds_are_learned_for_each_route() -> None:
    router = fitted_router()
    report = router.evaluate(QUERIES, NAMES)
    assert (report.accuracy, report.abstention_auroc) == (1.0, 1.0)
    assert report.macro_f1 == pytest.approx(2 / 3)
    threshold = router.thresholds
    assert router.route(said(1, -3, -3)).score < threshold["r0"] < router.route(said(3, -3, -3)).score
    # The general one: it lies between the largest that belongs nowhere and the smallest that does not.
    assert router.route(said(1, -3, -3)).score < threshold["r2"] < router.route(said(-3, 2, -3)).score
    assert router.route(said(1, -3, -3)).abstained
    # So has r1, of which two queries were seen, both right.
    assert threshold["r1"] == threshold["r2"]
    assert router.route(said(-3, -2, -3)).abstained


def test_with_enough_queries_a_route_has_a_threshold_of_its_own() -> None:
    """What belongs nowhere scores up to 1 for r0 and up to -2 for r1, whose own queries score from 0 on."""
    queries = [*(said(logit, -5) for logit in (3, 4, 1, 0, 0.5)), *(said(-5, logit) for logit in (0, 1, 3, -2, -3))]
    right = ["r0", "r0", None, None, None, "r1", "r1", "r1", None, None]
    router = Router(plain(2), GivenScorer())
    router.fit(queries, right)
    assert router.route(said(-5, 0)).abstained
    router.fit(queries * 30, right * 30)
    assert router.route(said(-5, 0)).name == "r1"
    assert router.route(said(0, -5)).abstained
    assert router.evaluate(queries, right).accuracy == 1.0


@pytest.mark.parametrize("own", [2.5, -4.5, None])
def test_a_rare_route_needs_what_an_unfitted_one_does(own: float | None) -> None:
    """Other routes' queries have taught to abstain; r1 has a single query, an unlucky one, or none."""
    rng = np.random.default_rng(0)
    queries = [said(logit, -6) for logit in (*rng.normal(3, 1, 60), *rng.normal(-1, 1, 60))]
    names = ["r0"] * 60 + [None] * 60
    if own is not None:
        queries, names = [*queries, said(-6, own)], [*names, "r1"]
    router = Router(plain(2), GivenScorer(), fallback="nobody")
    assert router.fit(queries, names).accuracy > 0.95
    assert router.thresholds["r1"] > 0.1
    assert router.route(said(-6, -5)).name == "nobody"
    assert router.route(said(-6, -5), multi=True).names == ("nobody",)
    assert router.route(said(-6, 4)).name == "r1"


def test_where_several_may_hold_each_has_a_threshold_over_all_queries() -> None:
    router = fitted_router()
    assert router.route(said(4, 4, -3), multi=True).names == ("r0", "r1")
    assert router.route(said(0, -3, -3), multi=True).names == ()
    assert router.route(said(-3, 2, -3), multi=True).names == ("r1",)


def test_a_threshold_that_was_given_wins() -> None:
    router = fitted_router(threshold=0.0)
    assert router.route(said(-8, -9, -9)).name == "r0"
    assert router.thresholds == {"r0": 0.0, "r1": 0.0, "r2": 0.0}
    assert Router(plain(2), GivenScorer()).thresholds == {"r0": 0.0, "r1": 0.0}


def test_queries_are_scored_once() -> None:
    scorer = OverlapScorer()
    Router(ROUTES, scorer).fit(["a refund or an invoice", "an error again", "why"], ["billing", "tech", None])
    labels = len(ROUTES) + len(BILLING.examples + TECH.examples)
    assert scorer.calls == [3 * labels]


@pytest.mark.parametrize(("names", "accuracy"), [(["r0", "r0"], 1.0), ([None, None], 1.0)])
def test_one_outcome_leaves_the_calibration_as_it_was(names: list[str | None], accuracy: float) -> None:
    router = Router(plain(1), GivenScorer())
    assert router.fit(["1", "2"], names).folds == 2
    report = router.evaluate(["1", "2"], names)
    assert (report.accuracy, report.abstention_auroc) == (accuracy, None)
    assert router.route("1").scores == {"r0": pytest.approx(sigmoid(1))}
    assert router.route("1").abstained == (names[0] is None)


def test_a_fit_that_fails_changes_nothing() -> None:
    router = fitted_router()
    before = router.route_many(QUERIES)
    with pytest.raises(InputError, match="expected larger ones where the outcome holds"):
        router.fit([said(-5, 5, 5), said(5, -5, 5)], ["r0", "r1"])
    assert router.route_many(QUERIES) == before


def test_a_call_sees_one_state_while_another_thread_fits() -> None:
    router = Router(plain(3), GivenScorer())
    states = [router.route_many(QUERIES)]
    kinds = [(QUERIES, NAMES), (QUERIES[:5], NAMES[:5])]
    for queries, right in kinds:
        router.fit(queries, right)
        states.append(router.route_many(QUERIES))
    assert states[1] != states[2]
    with ThreadPoolExecutor(4) as pool:
        fits = [pool.submit(router.fit, *kinds[i % 2]) for i in range(10)]
        seen = [pool.submit(router.route_many, QUERIES) for _ in range(50)]
        assert all(future.result() in states[1:] for future in seen)
        assert all(isinstance(future.result(), RouterReport) for future in fits)


# Files


@fits
@given(judged(), st.none() | probability, st.sampled_from(["nearest", "prompt", "off"]), st.booleans())
def test_a_saved_router_decides_as_before(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[int, list[str], list[str | None]],
    threshold: float | None,
    use: Any,
    fit: bool,
) -> None:
    file = tmp_path_factory.mktemp("router") / "router.json"
    routes, queries, right = case
    router = Router(plain(routes), GivenScorer(), threshold=threshold, fallback="ä", examples=use)
    if fit:
        router.fit(queries, right)
    router.save(file)
    loaded = Router.load(file, scorer=GivenScorer())
    for multi in (False, True):
        assert loaded.route_many(queries, multi=multi) == router.route_many(queries, multi=multi)
    assert loaded.routes == router.routes
    again = file.with_name("again.json")
    loaded.save(str(again))
    assert again.read_text("utf-8") == file.read_text("utf-8")


def test_the_file_is_readable(tmp_path: Path) -> None:
    router = Router(ROUTES, OverlapScorer(), fallback="größer")
    router.fit(["a refund or an invoice", "an error again", "why"], ["billing", "tech", None])
    router.save(tmp_path / "router.json")
    assert "größer" in (tmp_path / "router.json").read_text("utf-8")
    saved = json.loads((tmp_path / "router.json").read_text("utf-8"))
    assert saved["version"] == 2
    assert saved["model"] == {"name": "overlap", "revision": "1"}
    assert saved["routes"][0] == {
        "name": "billing",
        "description": "questions about an invoice or a refund",
        "examples": ["why was i charged twice"],
    }
    assert saved["fitted"]["calibrator"]["kind"] == "platt"
    assert saved["fitted"]["thresholds"] == router.thresholds
    assert saved["fitted"]["queries"][0] == {"text": "a refund or an invoice", "name": "billing"}


def test_a_file_may_be_written_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text('{"version": 1, "routes": [{"name": "a", "description": "a refund"}, {"name": "b"}]}', "utf-8")
    assert Router.load(file, scorer=OverlapScorer()).route("refund please").name == "a"
    file.write_text('{"a": "a refund", "b": ""}', "utf-8")
    assert Router.load(file, scorer=OverlapScorer()).routes == (Route("a", "a refund"), Route("b"))


@pytest.mark.parametrize("other", [{"name": "another"}, {"revision": "2"}])
def test_what_was_fitted_on_another_model_is_refused(tmp_path: Path, other: dict[str, str]) -> None:
    file = tmp_path / "router.json"
    Router(plain(3), OverlapScorer()).save(file)
    assert Router.load(file, scorer=ModelScorer(**other)).route("r1").name == "r1"
    fitted_router().save(file)
    with pytest.raises(CheckpointError, match=r"router\.json, model: expected 'overlap' of revision '1', .* got '"):
        Router.load(file, scorer=ModelScorer(**other))
    assert Router.load(file, scorer=ModelScorer(backend="torch", dtype="bf16")).thresholds


def test_the_calibration_in_use_is_kept_where_none_was_fitted(tmp_path: Path) -> None:
    router = Router(plain(1), ModelScorer(calibration={"labels": PlattCalibrator(2.0, 1.0)}))
    router.fit(["r0", "x"], ["r0", "r0"])
    router.save(tmp_path / "router.json")
    loaded = Router.load(tmp_path / "router.json", scorer=OverlapScorer())
    assert loaded.route("r0") == router.route("r0")


DELETE = object()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["version"], 3, "version: expected 1 or 2, got 3"),
        (["version"], True, "version: expected 1 or 2, got True"),
        (["version"], DELETE, "version: expected 1 or 2, got None"),
        (["colour"], "red", "expected no fields but version, .* got 'colour'"),
        (["routes"], DELETE, "expected the field 'routes', got none"),
        (["routes"], {}, "routes: expected a list, got {}"),
        (["routes"], [], "routes: expected at least one"),
        (["routes", 1], "r1", r"routes\[1\]: expected an object, got 'r1'"),
        (["routes", 1, "name"], 3, r"routes\[1\]: route's name: expected a string, got int"),
        (["routes", 1, "name"], "r0", "the name 'r0' is another route's as well"),
        (["routes", 1, "name"], DELETE, r"routes\[1\]: expected the field 'name'"),
        (["routes", 1, "weight"], 3, r"routes\[1\]: expected no fields but .* got 'weight'"),
        (["routes", 1, "description"], None, "description of 'r1': expected a string, got NoneType"),
        (["routes", 1, "examples"], "one", "examples of 'r1': expected a sequence of strings, got str"),
        (["routes", 1, "examples"], [""], "'r1', example 0: expected some text"),
        (["examples"], "all", "examples: expected one of"),
        (["examples"], ["off"], "examples: expected one of"),
        (["threshold"], 1.5, "threshold: expected a finite number in"),
        (["threshold"], "0.5", "threshold: expected a finite number in"),
        (["threshold"], 10**400, "router.json: threshold: expected a finite number"),
        (["fallback"], 3, "fallback: expected a string, got int"),
        (["model"], DELETE, "model: expected an object, got None"),
        (["model"], "mini", "model: expected an object, got 'mini'"),
        (["model", "revision"], DELETE, "model: expected the field 'revision'"),
        (["model", "revision"], 1, "model: expected 'overlap' of revision 1"),
        (["fitted"], [], r"fitted: expected an object, got \[\]"),
        (["fitted", "thresholds"], DELETE, "fitted: expected the field 'thresholds'"),
        (["fitted", "thresholds", "r1"], DELETE, "fitted.thresholds: expected the field 'r1'"),
        (["fitted", "thresholds", "r7"], 0.5, "fitted.thresholds: expected no fields but .* got 'r7'"),
        (["fitted", "thresholds", "r1"], "0.5", "fitted.thresholds, 'r1': expected a finite number"),
        (["fitted", "multi_thresholds", "r1"], float("nan"), "fitted.multi_thresholds, 'r1': expected a finite"),
        (["fitted", "multi_thresholds", "r1"], 10**400, "fitted.multi_thresholds, .*expected a finite number"),
        (["fitted", "multi_thresholds"], [0.5], "fitted.multi_thresholds: expected an object"),
        (["fitted", "calibrator"], {"kind": "pickle"}, "fitted.calibrator: expected an object whose kind is one of"),
        (["fitted", "calibrator", "slope"], -1, "fitted.calibrator: slope"),
        (["fitted", "queries"], 3, "fitted.queries: expected a list, got 3"),
        (["fitted", "queries", 0, "name"], "r7", "fitted.queries: name 0: expected None or one of 'r0'"),
        (["fitted", "queries", 0, "text"], "", "fitted.queries: query 0: expected some text"),
        (["fitted", "queries", 0], "x", r"fitted.queries\[0\]: expected an object, got 'x'"),
        (["fitted", "weights"], {}, "fitted: expected weights, queries and vectors"),
        (["vectors"], {}, "vectors: expected the field 'file', got none"),
    ],
)
def test_files_that_are_no_routers(tmp_path: Path, place: list[Any], value: Any, message: str) -> None:
    file = tmp_path / "router.json"
    fitted_router().save(file)
    saved = parent = json.loads(file.read_text("utf-8"))
    for key in place[:-1]:
        parent = parent[key]
    if value is DELETE:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    file.write_text(json.dumps(saved), "utf-8")
    with pytest.raises(CheckpointError, match=message) as raised:
        Router.load(file, scorer=OverlapScorer())
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000, b"\x80\x04N."])
def test_files_that_are_no_json_object(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "router.json"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"router\.json"):
        Router.load(file, scorer=OverlapScorer())


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json: expected a router's file"):
        Router.load(tmp_path / "nowhere.json", scorer=OverlapScorer())
    with pytest.raises(InputError, match="is there such a folder"):
        Router(ROUTES, OverlapScorer()).save(tmp_path / "no" / "router.json")


# Bad input


@pytest.mark.parametrize(
    ("routes", "error", "message"),
    [
        ([], InputError, "routes: expected at least one, got none"),
        (None, InputError, "routes: expected a sequence of Route, got NoneType"),
        (BILLING, InputError, "routes: expected a sequence of Route, got Route"),
        ({"a": "b"}, InputError, "routes: expected a sequence of Route, got dict"),
        ("billing", InputError, "route 0: expected Route"),
        ([BILLING, "tech"], InputError, "route 1: expected Route.*got 'tech'"),
        ([BILLING, Route("billing")], InputError, "route 1: the name 'billing' is another route's as well"),
    ],
)
def test_bad_routes(routes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Router(routes, OverlapScorer())


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"name": ""}, InvalidTextError, "route's name: expected some text"),
        ({"name": None}, InvalidTextError, "route's name: expected a string, got NoneType"),
        ({"name": "a", "description": 3}, InvalidTextError, "description of 'a': expected a string, got int"),
        ({"name": "a", "description": "\0"}, InvalidTextError, "description of 'a': NUL"),
        ({"name": "a", "examples": "why"}, InputError, "examples of 'a': expected a sequence of strings, got str"),
        ({"name": "a", "examples": ["why", ""]}, InvalidTextError, "'a', example 1: expected some text"),
    ],
)
def test_bad_route(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Route(**fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.1}, "threshold: expected a finite number in"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": "0.5"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"fallback": 3}, "fallback: expected a string, got int"),
        ({"fallback": ""}, "fallback: expected some text"),
        ({"examples": "few"}, "examples: expected one of 'nearest', 'prompt', 'off', got 'few'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Router(ROUTES, OverlapScorer(), **options)


@pytest.mark.parametrize("query", ["", " \n", None, 3, ["x"], "a\0b", "a\udc80"])
def test_bad_queries(query: Any) -> None:
    router = Router(ROUTES, OverlapScorer())
    with pytest.raises(InvalidTextError, match="query: "):
        router.route(query)
    with pytest.raises(InvalidTextError, match="query 1: "):
        router.route_many(["x", query])
    with pytest.raises(InvalidTextError, match="query 1: "):
        router.fit(["x", query], ["tech", None])


@pytest.mark.parametrize("queries", ["one string", None, 3])
def test_queries_are_a_sequence(queries: Any) -> None:
    router = Router(ROUTES, OverlapScorer())
    for call in (router.route_many, lambda given: router.fit(given, ["tech"])):
        with pytest.raises(InputError, match="queries: expected a sequence of strings, got"):
            call(queries)


@pytest.mark.parametrize(
    ("queries", "names", "message"),
    [
        ([], [], "queries: expected at least one"),
        (["x"], [], "names: expected one, or None, for each of the 1 queries, got 0"),
        (["x"], ["tech", None], "for each of the 1 queries, got 2"),
        (["x"], "t", "for each of the 1 queries, got 1"),
        (["x"], None, "for each of the 1 queries, got NoneType"),
        (["x", "y"], ["tech", "sales"], "name 1: expected None or one of 'billing', 'tech', 'other', got 'sales'"),
        (["x"], [["tech"]], r"name 0: expected None or one of .* got \['tech'\]"),
        (["x"], [0], "name 0: expected None or one of"),
    ],
)
def test_bad_names(queries: Any, names: Any, message: str) -> None:
    router = Router(ROUTES, OverlapScorer())
    for call in (router.fit, router.evaluate):
        with pytest.raises(InputError, match=message):
            call(queries, names)


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_refused(logit: float) -> None:
    with pytest.raises(NonFiniteError):
        Router(ROUTES, ConstantScorer(logit)).route("x")


def test_all_errors_are_ours() -> None:
    with pytest.raises(GLiClassRerankError, match="logits: expected some that differ"):
        Router(ROUTES, ConstantScorer(0.0)).fit(["x"], ["tech"])
    with pytest.raises(OptionError):
        Router(ROUTES, OverlapScorer(), examples=None)  # type: ignore[arg-type]


def test_importing_it_loads_no_backend() -> None:
    heavy = ("torch", "transformers", "gliclass", "onnxruntime", "sklearn", "pydantic")
    code = (
        f"import sys, gliclass_rerank.tasks.routing.router; print([name for name in {heavy!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@needs_mini
def test_the_bundled_model_routes_alone_as_in_a_batch() -> None:
    router = Router(ROUTES, load_scorer("mini", threads=1))
    queries = ["Why was I charged twice?", "The program crashes when I open it."]
    for alone, together in zip(map(router.route, queries), router.route_many(queries), strict=True):
        assert together.scores == pytest.approx(alone.scores, abs=1e-6)
        assert all(0 <= score <= 1 for score in together.scores.values())
