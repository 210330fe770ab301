"""The laws of a Router that compares vectors and learns, on a scorer whose vectors are made up."""

from __future__ import annotations

import copy
import json
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CORPUS, Spec, build_checkpoint
from fakes import INFO
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from gliclass_rerank import (
    CheckpointError,
    InputError,
    Logits,
    NonFiniteError,
    Route,
    RouteDecision,
    Router,
    ScoreRequest,
    UnreadableTextError,
    load_scorer,
)
from gliclass_rerank.calibration.calibrators import IsotonicCalibrator, PlattCalibrator, sigmoid
from gliclass_rerank.errors import NoVectorsError
from gliclass_rerank.scoring import run
from gliclass_rerank.tasks.routing.head import PRIOR, Head, Pool, Regression
from gliclass_rerank.tasks.routing.learning import folds_of, held_out, learned_weights, regression_of
from gliclass_rerank.tasks.routing.outcomes import NO_ROUTE
from gliclass_rerank.types import FloatArray

WIDTH = 24
EXACT = 1e-6
laws = settings(deadline=None, max_examples=30)


class VectorScorer:
    """Texts "3 anything" lie around the centre of cluster 3, others anywhere. A label "3" scores higher for its own.

    Texts with "?" cannot be read.

    Attributes:
        requests: all that it was asked.
    """

    def __init__(self, *, spread: float = 0.5, told: float = 1.0, **changes: Any) -> None:
        self.info = replace(INFO, independent_labels=True, embeds=True, **changes)
        self._spread, self._told = spread, told
        self.requests: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.requests += requests
        return [self._row(request) for request in requests]

    def vector(self, text: str) -> FloatArray:
        own = drawn(text) * self._spread + (drawn(text.split()[0]) if text.split()[0].isdigit() else 0)
        unit: FloatArray = (own / np.linalg.norm(own)).astype(np.float32)
        return unit

    def _row(self, request: ScoreRequest) -> FloatArray:
        own = [self._told * (label.split()[0].strip(":") == request.text.split()[0]) for label in request.labels]
        noise = [drawn(f"{request.text}/{label}")[0] * 0.1 for label in request.labels]
        return Logits.over_windows(
            np.array([own], np.float32) + np.array([noise], np.float32),
            [(0, len(request.text))],
            unread_text="?" in request.text,
            unread_labels=[i for i, label in enumerate(request.labels) if "?" in label],
            vector=self.vector(request.text) if request.vector else np.empty(0, np.float32),
        )


def drawn(text: str) -> FloatArray:
    """A vector that depends on the text alone."""
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH).astype(np.float32)


def texts_of(cluster: int, count: int, what: str = "query") -> list[str]:
    return [f"{cluster} {what} {i}" for i in range(count)]


def some_routes(*examples: int) -> list[Route]:
    """Route i has so many examples."""
    return [Route(f"{i}", examples=tuple(texts_of(i, count, "example"))) for i, count in enumerate(examples)]


def routes_with(queries: Sequence[str], names: Sequence[str]) -> list[Route]:
    """Routes whose examples are these queries."""
    pairs = list(zip(queries, names, strict=True))
    return [Route(name, examples=tuple(query for query, own in pairs if own == name)) for name in sorted({*names})]


def routed(routes: int, each: int, nowhere: int = 0) -> tuple[list[str], list[str | None]]:
    """Queries of clusters, and of none."""
    queries = [text for i in range(routes) for text in texts_of(i, each)]
    names: list[str | None] = [f"{i}" for i in range(routes) for _ in range(each)]
    return [*queries, *(f"elsewhere {i}" for i in range(nowhere))], [*names, *[None] * nowhere]


def fitted_router(*examples: int, each: int = 8, nowhere: int = 8, **options: Any) -> Router:
    router = Router(some_routes(*examples), VectorScorer(), **options)
    router.fit(*routed(len(examples), each, nowhere))
    return router


TESTS = [text for i in range(6) for text in texts_of(i, 4, "test")] + ["nowhere at all", "somewhere else"]


def same(one: Sequence[RouteDecision], two: Sequence[RouteDecision], tolerance: float = EXACT) -> bool:
    """Whether decisions agree, in any order of the routes."""
    return all(
        (a.name, {*a.names}, a.abstained, a.readable) == (b.name, {*b.names}, b.abstained, b.readable)
        and dict(a.scores) == pytest.approx(dict(b.scores), abs=tolerance)
        for a, b in zip(one, two, strict=True)
    )


# Before a fit


def test_examples_help_without_a_fit() -> None:
    queries, names = routed(6, 10)
    alone = Router(some_routes(*[0] * 6), VectorScorer(told=0.0)).evaluate(queries, names).accuracy
    helped = Router(some_routes(*[3] * 6), VectorScorer(told=0.0)).evaluate(queries, names).accuracy
    assert alone < 0.4
    assert helped > 0.9


def test_a_query_is_read_once_with_all_routes_and_examples_once_in_all() -> None:
    scorer = VectorScorer()
    router = Router(some_routes(2, 0, 3), scorer)
    router.route_many(["0 a", "1 b"])
    asked = [(request.text, request.labels, request.vector) for request in scorer.requests]
    known = [*texts_of(0, 2, "example"), *texts_of(2, 3, "example")]
    assert asked[:5] == [(text, (), True) for text in known]
    assert asked[5:] == [("0 a", ("0", "1", "2"), True), ("1 b", ("0", "1", "2"), True)]
    router.route("2 c")
    assert len(scorer.requests) == 8


@pytest.mark.parametrize("use", ["prompt", "off"])
def test_no_vectors_are_read_where_examples_are_used_otherwise(use: Any) -> None:
    scorer = VectorScorer()
    router = Router(some_routes(2, 1), scorer, examples=use)
    router.fit(*routed(2, 3, 2))
    router.route("0 a")
    assert not any(request.vector for request in scorer.requests)
    assert all(request.labels for request in scorer.requests)


def test_nor_where_there_are_no_examples() -> None:
    scorer = VectorScorer()
    Router(some_routes(0, 0), scorer).route("0 a")
    assert [request.vector for request in scorer.requests] == [False]


def test_a_model_without_vectors_reads_examples_as_labels() -> None:
    scorer = VectorScorer()
    scorer.info = replace(scorer.info, embeds=False)
    Router(some_routes(1, 0), scorer).route("0 a")
    assert [(request.labels, request.vector) for request in scorer.requests] == [(("0", "0 example 0", "1"), False)]


@pytest.mark.parametrize(
    "calibrator", [None, PlattCalibrator(2.0, -1.0), IsotonicCalibrator((-1.0, 0.0, 1.0), (-3.0, -1.0, 2.0))]
)
def test_a_route_without_examples_keeps_its_score(calibrator: Any) -> None:
    scorer = VectorScorer(calibration={"labels": calibrator} if calibrator else {})
    plain = Router(some_routes(0, 0, 0), scorer).route("1 a")
    mixed = Router(some_routes(3, 0, 1), scorer).route("1 a")
    assert mixed.scores["1"] == pytest.approx(plain.scores["1"], abs=EXACT)
    assert mixed.scores["0"] != pytest.approx(plain.scores["0"], abs=EXACT)


vectors = st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=8)


@given(vectors, st.floats(-5, 5))
def test_a_query_among_the_examples_never_lowers_the_score(rows: list[list[float]], logit: float) -> None:
    made = np.array(rows, np.float32) + np.array([1e-3, 0, 0, 0], np.float32)
    units = made / np.linalg.norm(made, axis=1, keepdims=True)
    query, odds = units[:1], np.array([[logit]])

    def score(known: FloatArray) -> float:
        pool = Pool(tuple(map(str, range(len(known)))), known, np.zeros(len(known), np.intp))
        return float(Head.of(pool, 1).scores(odds, query)[0, 0])

    without, among = score(units[1:]), score(np.concatenate([units[1:], query]))
    assert among >= without - EXACT
    assert score(query) > logit


def test_a_query_that_is_added_as_an_example_is_worth_more() -> None:
    router = Router(some_routes(3, 3), VectorScorer())
    before = router.route("unlike all").scores["1"]
    assert router.add_examples("1", ["unlike all"]) is None
    assert router.route("unlike all").scores["1"] > before
    assert router.routes[1].examples[-1] == "unlike all"
    once = router.route("unlike all")
    router.add_examples("1", ["unlike all"])
    assert router.route("unlike all") == once


def test_one_route_and_one_example() -> None:
    router = Router(some_routes(1), VectorScorer(), threshold=0.5, fallback="nobody")
    assert router.route("0 example 0").name == "0"
    assert router.route("elsewhere 3").name == "nobody"
    assert router.route("0 example 0", multi=True).names == ("0",)


def test_an_unreadable_example_is_left_out_or_an_error() -> None:
    routes = [Route("0", examples=("0 example", "? 3")), Route("1", examples=("? 4",))]
    without = [Route("0", examples=("0 example",)), Route("1")]
    assert same(Router(routes, VectorScorer()).route_many(TESTS), Router(without, VectorScorer()).route_many(TESTS))
    with pytest.raises(UnreadableTextError, match="example of '0': '\\? 3'"):
        Router(routes, VectorScorer(), unreadable="error").route("0")


def test_readable_is_what_decided() -> None:
    router = Router([Route("? 0", examples=("0 a",)), Route("? 1")], VectorScorer())
    assert router.route("0 a").readable
    assert not router.route("1 ?").readable
    assert not Router([Route("? 0"), Route("? 1")], VectorScorer()).route("0 a").readable


def test_a_plan_that_is_given_up_changes_nothing() -> None:
    scorer = VectorScorer()
    router = Router(some_routes(2, 2), scorer)
    plan = router.plan(["0 a"])
    assert [request.labels for request in next(plan)] == [()] * 4
    plan.close()
    plan = router.plan(["0 a"])
    rows = scorer.score(next(plan))
    assert [request.labels for request in plan.send(rows)] == [("0", "1")]
    plan.close()
    assert [request.text for request in next(router.plan(["0 b"]))] == ["0 b"]  # the examples are known by now
    assert same([router.route("0 b")], [Router(some_routes(2, 2), scorer).route("0 b")])


def test_a_vector_that_is_not_finite_is_refused() -> None:
    class Broken(VectorScorer):
        def vector(self, text: str) -> FloatArray:
            return np.full(WIDTH, np.nan, np.float32)

    with pytest.raises(NonFiniteError, match="vector"):
        Router(some_routes(1), Broken()).route("0")


# Order


@laws
@given(st.randoms(), st.booleans())
def test_no_order_matters(random: Any, fit: bool) -> None:
    routes, (queries, names) = some_routes(3, 0, 8), routed(3, 6, 4)
    straight = Router(routes, VectorScorer())
    shuffled = [replace(route, examples=tuple(random.sample(route.examples, len(route.examples)))) for route in routes]
    turned = Router(random.sample(shuffled, 3), VectorScorer())
    if fit:
        places = random.sample(range(len(queries)), len(queries))
        report = straight.fit(queries, names)
        again = turned.fit([queries[i] for i in places], [names[i] for i in places])
        assert again.accuracy == pytest.approx(report.accuracy)
        assert turned.thresholds == pytest.approx(straight.thresholds, abs=1e-3)
    # The regression stops near its optimum, and where depends on the order.
    assert same(straight.route_many(TESTS), turned.route_many(TESTS), tolerance=1e-3 if fit else EXACT)


def test_a_query_is_decided_alone_as_in_a_batch() -> None:
    router = fitted_router(3, 3, 0)
    many = TESTS * 40
    assert same([router.route(text) for text in TESTS] * 40, router.route_many(many))
    assert router.route_many([]) == []


# Fit


def test_a_fit_learns_and_abstains() -> None:
    router = Router(some_routes(*[0] * 6), VectorScorer(told=0.2))
    tests = [text for i in range(6) for text in texts_of(i, 10, "test")], [f"{i}" for i in range(6) for _ in range(10)]
    before = router.evaluate(*tests).accuracy
    report = router.fit(*routed(6, 12, 30))
    assert report.folds == 5
    assert router.evaluate(*tests).accuracy > max(0.9, before)
    assert report.accuracy > 0.85
    assert report.abstention_auroc is not None
    assert report.abstention_auroc > 0.9
    assert sum(router.route(f"unknown {i}").abstained for i in range(20)) > 15
    assert router.route("0 test 1", multi=True).names == ("0",)


def test_the_report_is_out_of_fold() -> None:
    """Vectors and routes by chance: known queries are found again, others are guessed."""
    rng = np.random.default_rng(0)
    queries = [f"text {i}" for i in range(64)]
    names = [f"{i}" for i in rng.integers(0, 8, 64)]
    router = Router(some_routes(*[0] * 8), VectorScorer(told=0.0, spread=1.0))
    report = router.fit(queries, names)
    assert report.accuracy < 0.3
    remembered = Router(routes_with(queries, names), router.scorer)
    assert remembered.evaluate(queries, names).accuracy > 0.9


def test_a_query_that_is_an_example_is_not_known_while_it_is_judged() -> None:
    rng = np.random.default_rng(1)
    queries = [f"text {i}" for i in range(120)]
    names = [f"{i}" for i in rng.integers(0, 6, 120)]
    report = Router(routes_with(queries, names), VectorScorer(told=0.0)).fit(queries, names)
    assert report.accuracy < 0.35


@pytest.mark.parametrize("each", [1, 2])
def test_a_query_is_not_recognised_by_the_example_that_its_route_lacks(each: int) -> None:
    """With few queries a route, each route lacks one in each fold, not that of the query alone."""
    queries = [f"text {i}" for i in range(30 * each)]
    names = [f"{i % 30}" for i in range(30 * each)]
    report = Router(some_routes(*[0] * 30), VectorScorer(told=0.0)).fit(queries, names)
    assert report.accuracy < 0.2


@given(st.lists(st.sampled_from([NO_ROUTE, 0, 1, 2]), min_size=1, max_size=40), st.integers(1, 6))
def test_each_route_lacks_queries_in_each_fold(gold: list[int], at_most: int) -> None:
    texts, owners = [f"text {i}" for i in range(len(gold))], np.array(gold)
    folds = folds_of(texts, [None if i == NO_ROUTE else f"{i}" for i in gold], at_most)
    for fold in range(int(folds.max()) + 1):
        held = held_out(texts, owners, folds, fold)
        assert {text for text, own in zip(texts, folds, strict=True) if own == fold} <= held
        for route in {*gold} - {NO_ROUTE}:
            missing = [text for text, own in zip(texts, gold, strict=True) if own == route and text in held]
            assert 1 <= len(missing) <= max(1, -(-gold.count(route) // at_most))


def test_equal_queries_share_a_fold() -> None:
    names = [f"{i % 3}" for i in range(30)]
    folds = folds_of([f"text {i % 10}" for i in range(30)], names, 5)
    assert folds.tolist() == folds[:10].tolist() * 3
    spread = folds_of([f"text {i}" for i in range(30)], names, 5)
    for name in "012":
        counts = np.bincount([fold for fold, own in zip(spread, names, strict=True) if own == name], minlength=5)
        assert counts.tolist() == [2] * 5


@pytest.mark.parametrize("queries", [["0 a"], ["0 a", "1 b"], ["0 a", "0 a", "0 a"], ["elsewhere"]])
@pytest.mark.parametrize("examples", [(0, 0), (2, 0), (6, 6)])
def test_few_queries_are_enough(queries: list[str], examples: tuple[int, ...]) -> None:
    router = Router(some_routes(*examples), VectorScorer())
    names = [text[0] if text[0].isdigit() else None for text in queries]
    report = router.fit(queries, names)
    assert report.folds == len({*queries})
    assert 0 <= report.accuracy <= 1
    assert same(router.route_many(queries), [router.route(text) for text in queries])


def test_a_single_query_is_judged_by_the_router_before_the_fit() -> None:
    for query, name in (("0 a", "0"), ("0 a", "1")):
        router = Router(some_routes(2, 2), VectorScorer())
        before = router.evaluate([query], [name])
        assert router.fit([query], [name]) == replace(before, folds=1)


def test_a_fit_keeps_no_vector_of_what_belongs_nowhere_near_a_route() -> None:
    """Queries without a route are a class of the regression, not examples."""
    queries, names = routed(3, 8, 12)
    router = Router(some_routes(0, 0, 0), VectorScorer())
    router.fit(queries, names)
    assert router._state.head is not None
    assert len(router._state.head.vectors) == 24
    assert router._state.head.regression is not None
    assert router._state.head.regression.owners.tolist() == [NO_ROUTE, 0, 1, 2]


def test_a_fit_replaces_the_one_before() -> None:
    once, twice = (Router(some_routes(2, 2, 0), VectorScorer()) for _ in range(2))
    twice.fit(["0 a", "1 b", "elsewhere"], ["1", "0", None])
    twice.fit(*routed(3, 4, 3))
    once.fit(*routed(3, 4, 3))
    assert same(once.route_many(TESTS), twice.route_many(TESTS))


def test_the_regression_says_what_scikit_learn_says() -> None:
    rng: Any = np.random.default_rng(3)
    for owners in ([0, 1], [NO_ROUTE, 0, 2], [0, 1, 2, 3]):
        labels = np.repeat(owners, 12)
        known = rng.normal(size=(len(labels), 6)).astype(np.float32) + labels[:, None] * 0.3
        regression = regression_of(Pool(tuple(map(str, range(len(labels)))), known.astype(np.float32), labels))
        assert regression is not None
        shares = LogisticRegression(C=10.0, tol=1e-3).fit(known, labels).predict_proba(known)
        expected = np.log(shares) - np.log1p(-shares) + np.log(len(owners) - 1)
        found = regression.evidence(known.astype(np.float32), 4)
        for column, owner in enumerate(owners):
            if owner != NO_ROUTE:
                assert found[:, owner] == pytest.approx(expected[:, column], abs=1e-3)
        for owner in {*range(4)} - {*owners}:
            assert not found[:, owner].any()
    assert regression_of(Pool(("a",), known[:1], np.array([2]))) is None


def test_evidence_stays_finite() -> None:
    steep = np.array([[1e6], [-1e6]], np.float32)
    regression = Regression(steep, np.zeros(2, np.float32), np.array([0, 1]))
    assert np.isfinite(regression.evidence(np.ones((1, 1), np.float32), 2)).all()


def test_weights_follow_what_tells_and_stay_near_the_prior_ones_without_evidence() -> None:
    rng = np.random.default_rng(4)
    gold = rng.integers(0, 5, 300)
    features = rng.normal(size=(300, 5, 5))
    features[np.arange(300), gold, 1] += 1.0  # the nearest example tells, all else does not
    weights = learned_weights(features, gold)
    assert weights[1] > 0.5
    assert np.abs(weights[[0, 2, 4]]).max() < 0.3
    assert (weights[[0, 1, 2, 4]] >= 0).all()
    assert learned_weights(np.zeros((3, 2, 5)), np.array([0, 1, NO_ROUTE])) == pytest.approx(PRIOR, abs=1e-3)


def test_a_fit_that_fails_changes_nothing() -> None:
    router = fitted_router(2, 2)
    before = router.route_many(TESTS)
    with pytest.raises(InputError, match="name 0"):
        router.fit(["0 a"], ["7"])
    with pytest.raises(InputError, match="expected one of '0', '1', got 'x'"):
        router.add_examples("x", ["a"])
    with pytest.raises(InputError, match="'0', example 0: expected some text"):
        router.add_examples("0", [""])
    with pytest.raises(InputError, match="examples of '0': expected a sequence of strings, got str"):
        router.add_examples("0", "text")
    with pytest.raises(InputError, match="expected one of '0', '1', got None"):
        router.remove(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the name '1' is another route's as well"):
        router.add(Route("1"))
    assert router.route_many(TESTS) == before


# Changes


def test_what_is_removed_and_added_again_is_the_same() -> None:
    router = Router(some_routes(2, 2, 2), VectorScorer())
    before, route = router.route_many(TESTS), router.routes[1]
    assert router.remove("1") is None
    assert all("1" not in one.scores for one in router.route_many(TESTS))
    assert router.add(route) is None
    assert same(router.route_many(TESTS), before)


def test_so_it_is_after_a_fit() -> None:
    """Of a route whose own queries were not in the fit, since they leave with it."""
    router = Router(some_routes(3, 3, 3), VectorScorer())
    first = router.fit(*routed(2, 8, 8))
    before = router.route_many(TESTS)
    assert router.remove("2") is not None
    again = router.add(some_routes(3, 3, 3)[2])
    assert again is not None
    assert again.accuracy == pytest.approx(first.accuracy)
    assert same(router.route_many(TESTS), before, tolerance=1e-4)


def test_a_removed_route_takes_its_queries_along() -> None:
    router = fitted_router(2, 2, 2)
    report = router.remove("1")
    other = Router([route for route in some_routes(2, 2, 2) if route.name != "1"], VectorScorer())
    queries, names = routed(3, 8, 8)
    kept = [i for i, name in enumerate(names) if name != "1"]
    assert other.fit([queries[i] for i in kept], [names[i] for i in kept]) == report
    assert same(router.route_many(TESTS), other.route_many(TESTS))


def test_a_fit_on_a_removed_routes_queries_alone_is_gone() -> None:
    router = Router(some_routes(2, 2), VectorScorer())
    router.fit(["0 a", "0 b"], ["0", "0"])
    assert router.remove("0") is None
    assert same(router.route_many(TESTS), Router(some_routes(2, 2)[1:], VectorScorer()).route_many(TESTS))


def test_the_last_route_stays() -> None:
    router = Router(some_routes(1), VectorScorer())
    with pytest.raises(InputError, match="'0': expected a route that is not the last one"):
        router.remove("0")
    assert router.route("0").name == "0"


@pytest.mark.parametrize("fit", [False, True])
def test_examples_added_one_by_one_are_those_that_were_there_at_once(fit: bool) -> None:
    grown, whole = Router(some_routes(1, 0, 0), VectorScorer()), Router(some_routes(1, 3, 0), VectorScorer())
    for router in (grown, whole):
        if fit:
            router.fit(*routed(3, 5, 5))
    for text in texts_of(1, 3, "example"):
        assert (grown.add_examples("1", [text]) is not None) == fit
    assert grown.routes == whole.routes
    assert same(grown.route_many(TESTS), whole.route_many(TESTS))


def test_a_change_reads_only_what_is_new() -> None:
    router = fitted_router(2, 2, 0)
    scorer = router.scorer
    assert isinstance(scorer, VectorScorer)
    scorer.requests.clear()
    router.add_examples("2", ["2 new", "2 newer"])
    assert [(request.text, request.labels) for request in scorer.requests] == [("2 new", ()), ("2 newer", ())]
    router.remove("0")
    assert len(scorer.requests) == 2
    router.add(Route("5", examples=("5 a",)))  # its label is new to the queries
    queries, names = routed(3, 8, 8)
    kept = [text for text, name in zip(queries, names, strict=True) if name != "0"]
    assert [request.text for request in scorer.requests[2:]] == ["5 a", *kept]


def test_a_router_without_vectors_changes_too_and_reads_its_queries_again() -> None:
    scorer = VectorScorer()
    scorer.info = replace(scorer.info, embeds=False)
    router = Router(some_routes(1, 1, 0), scorer)
    router.fit(*routed(3, 4, 4))
    scorer.requests.clear()
    assert router.add_examples("2", ["2 example 0"]) is not None
    assert len(scorer.requests) == 16
    assert router.remove("0") is not None
    whole = Router([Route("1", examples=("1 example 0",)), Route("2", examples=("2 example 0",))], scorer)
    queries, names = routed(3, 4, 4)
    kept = [i for i, name in enumerate(names) if name != "0"]
    whole.fit([queries[i] for i in kept], [names[i] for i in kept])
    assert same(router.route_many(TESTS), whole.route_many(TESTS))


def test_calls_see_one_state_while_others_change_it() -> None:
    router = Router(some_routes(2, 2, 2), VectorScorer())
    extra = Route("3", examples=("3 example 0",))
    queries, names = routed(3, 5, 5)
    states = [router.route_many(TESTS)]
    router.fit(queries, names)
    states.append(router.route_many(TESTS))
    router.add(extra)
    states.append(router.route_many(TESTS))
    router.remove("3")

    def change() -> None:
        router.add(extra)
        router.remove("3")

    with ThreadPoolExecutor(4) as pool:
        changes: list[Future[Any]] = [pool.submit(change)]
        changes += [pool.submit(router.fit, queries, names) for _ in range(4)]
        seen = [pool.submit(router.route_many, TESTS) for _ in range(30)]
        assert not any(future.exception() for future in changes)
        for future in seen:
            assert any(close(future.result(), state) for state in states)
    assert close(router.route_many(TESTS), states[1])


def close(one: list[RouteDecision], two: list[RouteDecision]) -> bool:
    return one[0].scores.keys() == two[0].scores.keys() and same(one, two, tolerance=1e-4)


def test_no_change_is_lost() -> None:
    router = Router(some_routes(1, 1), VectorScorer())
    with ThreadPoolExecutor(4) as pool:
        calls: list[Future[Any]] = [pool.submit(router.add_examples, "0", [f"0 new {i}"]) for i in range(20)]
        calls += [pool.submit(router.route, "0 a") for _ in range(20)]
        assert not any(future.exception() for future in calls)
    assert {*router.routes[0].examples} == {"0 example 0", *(f"0 new {i}" for i in range(20))}
    whole = Router([replace(route) for route in router.routes], VectorScorer())
    assert same(router.route_many(TESTS), whole.route_many(TESTS))


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda router: pickle.loads(pickle.dumps(router))])
def test_copies_decide_the_same_and_change_apart(how: Callable[[Router], Router]) -> None:
    router = fitted_router(2, 2)
    before = router.route_many(TESTS)
    again = how(router)
    assert again.route_many(TESTS) == before
    again.add_examples("0", ["0 new"])
    assert router.route_many(TESTS) == before
    assert router.routes != again.routes


# Files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "router.json"


@pytest.mark.parametrize("examples", [(3, 0, 1), (0, 0, 0), (7, 7, 7)])
@pytest.mark.parametrize("fit", [False, True])
def test_a_saved_router_decides_as_before(examples: tuple[int, ...], fit: bool, file: Path) -> None:
    router = Router(some_routes(*examples), VectorScorer(), fallback="nobody")
    if fit:
        router.fit(*routed(3, 6, 6))
    decided = router.route_many(TESTS)
    router.save(file)
    assert file.with_suffix(".safetensors").is_file() == (fit or any(examples))
    scorer = VectorScorer()
    loaded = Router.load(file, scorer=scorer)
    assert same(loaded.route_many(TESTS), decided)
    assert len(scorer.requests) == len(TESTS)  # no example is read again
    assert loaded.thresholds == router.thresholds
    loaded.save(file.with_name("again.json"))
    again = file.with_name("again.json").read_text("utf-8")
    assert again.replace("again.safetensors", "router.safetensors") == file.read_text("utf-8")
    if fit:
        assert loaded.add_examples("1", ["1 new"]) == router.add_examples("1", ["1 new"])
        assert same(loaded.route_many(TESTS), router.route_many(TESTS))


def test_the_json_is_readable(file: Path) -> None:
    fitted_router(2, 0).save(file)
    saved = json.loads(file.read_text("utf-8"))
    assert saved["version"] == 2
    assert saved["model"] == {"name": "overlap", "revision": "1"}
    assert list(saved["fitted"]["weights"]) == ["label", "nearest", "centroid", "examples", "regression"]
    assert saved["fitted"]["queries"][0] == {"text": "0 query 0", "name": "0"}
    assert saved["fitted"]["queries"][-1] == {"text": "elsewhere 7", "name": None}
    assert saved["vectors"]["file"] == "router.safetensors"


def test_examples_that_were_not_read_yet_are_not_saved(file: Path) -> None:
    Router(some_routes(2, 0), VectorScorer()).save(file)
    assert [path.name for path in file.parent.iterdir()] == ["router.json"]
    assert Router.load(file, scorer=VectorScorer()).route("0 a").name == "0"


def test_a_router_moves_with_both_files(file: Path) -> None:
    router = fitted_router(2, 2)
    router.save(file)
    elsewhere = file.parent / "elsewhere"
    elsewhere.mkdir()
    for path in (file, file.with_suffix(".safetensors")):
        path.rename(elsewhere / path.name)
    assert same(Router.load(elsewhere / file.name, scorer=VectorScorer()).route_many(TESTS), router.route_many(TESTS))


@contextmanager
def refused(message: str, error: type[Exception] = CheckpointError, **changes: Any) -> Iterator[Callable[[Path], None]]:
    def load(file: Path) -> None:
        with pytest.raises(error, match=message):
            Router.load(file, scorer=VectorScorer(**changes))

    yield load


@pytest.mark.parametrize("fit", [False, True])
def test_a_missing_or_foreign_file_of_vectors_is_refused(file: Path, fit: bool) -> None:
    router = fitted_router(2, 2) if fit else Router(some_routes(2, 2), VectorScorer())
    router.route("0 a")
    router.save(file)
    beside = file.with_suffix(".safetensors")
    content = beside.read_bytes()
    for wrong in (None, b"", content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        beside.unlink()
        if wrong is not None:
            beside.write_bytes(wrong)
        with refused(r"router\.safetensors: expected the .*; keep the two files of a router together") as check:
            check(file)
        beside.write_bytes(content)
    fitted_router(3, 1).save(file.with_name("other.json"))
    beside.write_bytes(file.with_name("other.safetensors").read_bytes())
    with refused(r"router\.safetensors: expected the file that was saved with the router") as check:
        check(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved["routes"][0]["examples"].append("0 more"), "changed by hand"),
        (lambda saved: saved["routes"][0].update(description="x"), "changed by hand"),
        (lambda saved: saved["fitted"]["queries"].pop(), "changed by hand"),
        (lambda saved: saved["vectors"].pop("texts"), "vectors: expected the field 'texts'"),
        (lambda saved: saved["vectors"].update(file="../../etc/passwd"), "passwd: expected the vectors of the router"),
        (lambda saved: saved["vectors"].update(file=3), "expected the vectors of the router"),
        (lambda saved: saved.pop("vectors"), "expected weights, queries and vectors"),
        (lambda saved: saved["fitted"].pop("weights"), "expected weights, queries and vectors"),
        (lambda saved: saved["fitted"]["weights"].pop("label"), "weights: expected the field 'label'"),
        (lambda saved: saved["fitted"]["weights"].update(label="1"), "weights, 'label': expected a finite number"),
    ],
)
def test_a_file_that_was_changed_is_refused(file: Path, change: Callable[[Any], object], message: str) -> None:
    fitted_router(2, 2).save(file)
    saved = json.loads(file.read_text("utf-8"))
    change(saved)
    file.write_text(json.dumps(saved), "utf-8")
    with refused(message) as check:
        check(file)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("examples", np.ones((3, WIDTH), np.float32)),
        ("examples", np.full((4, WIDTH), np.nan, np.float32)),
        ("queries", np.ones((24, WIDTH + 1), np.float32)),
        ("logits", np.ones((24, 2))),
        ("classes", np.array([0, 0, 1])),
        ("classes", np.array([0, 1, 2])),
        ("coefficients", np.ones(3, np.float32)),
    ],
)
def test_arrays_that_are_no_routers_are_refused(file: Path, name: str, array: Any) -> None:
    from safetensors.numpy import load, save

    from gliclass_rerank.tasks.routing.vector_file import digest

    fitted_router(2, 2).save(file)
    beside = file.with_suffix(".safetensors")
    beside.write_bytes(save(load(beside.read_bytes()) | {name: array}))
    saved = json.loads(file.read_text("utf-8"))
    saved["vectors"]["sha256"] = digest(beside.read_bytes())
    file.write_text(json.dumps(saved), "utf-8")
    with refused(rf"router\.safetensors, {name}: expected") as check:
        check(file)


def test_another_model_is_refused_or_reads_the_examples_again(file: Path) -> None:
    router = Router(some_routes(2, 2), VectorScorer())
    router.route("0 a")
    router.save(file)
    other = VectorScorer(revision="2")
    assert Router.load(file, scorer=other).route("0 a").name == "0"
    assert len(other.requests) == 5
    fitted_router(2, 2).save(file)
    with refused(
        "model: expected 'overlap' of revision '1', on which it was fitted, got 'overlap' of '2'", revision="2"
    ) as check:
        check(file)
    mute = VectorScorer()
    mute.info = replace(mute.info, embeds=False)
    with pytest.raises(NoVectorsError, match="has no vectors"):
        Router.load(file, scorer=mute)


def test_examples_of_an_unfitted_file_may_be_changed_by_hand(file: Path) -> None:
    router = Router(some_routes(2, 2), VectorScorer())
    router.route("0 a")
    router.save(file)
    saved = json.loads(file.read_text("utf-8"))
    saved["routes"][0]["examples"].append("0 more")
    file.write_text(json.dumps(saved), "utf-8")
    changed = [Route("0", examples=(*router.routes[0].examples, "0 more")), router.routes[1]]
    assert same(
        Router.load(file, scorer=VectorScorer()).route_many(TESTS), Router(changed, VectorScorer()).route_many(TESTS)
    )


def test_a_fit_of_version_1_decides_as_it_did_and_cannot_be_learned_again(file: Path) -> None:
    saved = {
        "version": 1,
        "model": {"name": "overlap", "revision": "1"},
        "routes": [{"name": "0", "description": "", "examples": ["0 example 0"]}, {"name": "1"}],
        "fitted": {
            "calibrator": {"kind": "platt", "slope": 2.0, "intercept": -1.0},
            "thresholds": {"0": 0.4, "1": 0.6},
            "multi_thresholds": {"0": 0.5, "1": 0.5},
        },
    }
    file.write_text(json.dumps(saved), "utf-8")
    scorer = VectorScorer()
    router = Router.load(file, scorer=scorer)
    decision = router.route("1 a")
    assert [request.labels for request in scorer.requests] == [("0", "0 example 0", "1")]
    logit = float(scorer.score([ScoreRequest("1 a", ("1",))])[0][0])
    assert decision.scores["1"] == pytest.approx(sigmoid(2 * logit - 1))
    for change, arguments in ((router.add_examples, ("1", ["x"])), (router.remove, ("0",))):
        with pytest.raises(InputError, match="fit of an earlier version's file"):
            change(*arguments)
    assert router.route("1 a") == decision
    router.fit(*routed(2, 4, 4))
    assert router.add_examples("1", ["x"]) is not None


def test_vectors_need_a_name_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected another suffix.*take \.json"):
        fitted_router(1, 1).save(tmp_path / "router.safetensors")
    with pytest.raises(InputError, match="is there such a folder"):
        fitted_router(1, 1).save(tmp_path / "no" / "router.json")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_serves_a_queue(file: Path) -> None:
    """Whoever scores the requests of a plan elsewhere gets the same decisions."""
    router, scorer = fitted_router(2, 2), VectorScorer()
    router.save(file)
    assert same(run(Router.load(file, scorer=scorer).plan(TESTS), scorer), router.route_many(TESTS))


# A model


def test_a_model_with_independent_labels_learns_routes(tmp_path: Path) -> None:
    flags = {"class_token_pooling": "average", "pooling_strategy": "avg", "normalize_features": True}
    folder = build_checkpoint(Spec("router", "bert", flags), tmp_path).folder
    (folder / "gliclass_rerank.json").write_text('{"labels": "independent"}', "utf-8")
    scorer = load_scorer(folder)
    routes = [Route(f"route {i}", line, examples=(line, f"{line} again")) for i, line in enumerate(CORPUS[:3])]
    router = Router(routes, scorer)
    queries = [f"{line} {word}" for line in CORPUS[:3] for word in ("law", "music", "health", "a question")]
    assert same([router.route(query) for query in queries], router.route_many(queries), tolerance=1e-4)
    names = [route.name for route in routes for _ in range(4)]
    assert router.fit([*queries, *CORPUS[3:6]], [*names, None, None, None]).folds > 1
    assert router.evaluate(queries, names).accuracy > 0.6
    router.save(tmp_path / "router.json")
    loaded = Router.load(tmp_path / "router.json", scorer=scorer)
    assert same(loaded.route_many(queries), router.route_many(queries), tolerance=1e-4)
    assert loaded.add_examples("route 1", ["law"]) == router.add_examples("route 1", ["law"])
