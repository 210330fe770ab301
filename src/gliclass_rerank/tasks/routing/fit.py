"""Fit a router on queries with known routes: the head, its calibration and thresholds, and an honest report.

Arrays here have a row for each query and a column for each route. The gold route of a query is its column, or
`NO_ROUTE`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gliclass_rerank.calibration.calibrators import Calibrator, calibrated, sigmoid
from gliclass_rerank.calibration.fitting import fit_calibrator
from gliclass_rerank.errors import InputError, MissingExtraError
from gliclass_rerank.tasks.routing.head import PRIOR, Head, Pool, Regression, pool_of
from gliclass_rerank.tasks.routing.learning import (
    FOLDS,
    LEAVE_ONE_OUT,
    can_regress,
    features_out_of_fold,
    folds_of,
    learned_weights,
    regression_of,
)
from gliclass_rerank.tasks.routing.outcomes import (
    MULTI_THRESHOLD,
    NO_ROUTE,
    Floats,
    Ints,
    RouterReport,
    judge,
    learned_thresholds,
)
from gliclass_rerank.tasks.routing.routes import Route
from gliclass_rerank.types import FloatArray

LABEL_ALONE = np.ones(1)  # weights of a router without a head


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Queries that a router is fitted on, and what was read of them.

    Attributes:
        texts: the queries.
        names: the route of each, or None.
        logits: of the routes, raw, shape (queries, routes).
        vectors: of the queries, float32, shape (queries, D); shape (queries, 0) without a head.
    """

    texts: tuple[str, ...]
    names: tuple[str | None, ...]
    logits: Floats
    vectors: FloatArray

    def gold(self, routes: Sequence[Route]) -> Ints:
        """The column of each query's route or `NO_ROUTE`, shape (queries,)."""
        return gold_of(self.names, routes)

    def among(self, before: Sequence[Route], after: Sequence[Route]) -> Lesson:
        """The lesson for some of its routes, without the queries of the others.

        Args:
            before: the routes of its columns.
            after: the same or fewer, in any order.
        """
        names = {route.name: i for i, route in enumerate(before)}
        columns = [names[route.name] for route in after]
        left = {None, *(route.name for route in after)}
        rows = [i for i, name in enumerate(self.names) if name in left]
        texts, own = tuple(self.texts[i] for i in rows), tuple(self.names[i] for i in rows)
        return Lesson(texts, own, self.logits[np.ix_(rows, columns)], self.vectors[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How features become a decision.

    Attributes:
        weights: of the features of a `Head`; `LABEL_ALONE` without a head, where the only feature is the label's logit.
        calibrator: from a route's score to calibrated log-odds. None: the scores are the log-odds.
        thresholds: probability that the best route must reach, in [0, 1], shape (routes,).
        multi_thresholds: the same if several routes may apply.
    """

    weights: Floats
    calibrator: Calibrator | None
    thresholds: Floats
    multi_thresholds: Floats

    @property
    def has_head(self) -> bool:
        return len(self.weights) > 1

    def probabilities(self, scores: Floats) -> Floats:
        """Probabilities in [0, 1], float64, of the shape of ``scores``."""
        return route_probabilities(scores, self.calibrator)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """All that was learned for one model.

    Attributes:
        model: name and revision of the model that gave the logits.
        rule: from scores to decisions.
        regression: of the head, if there are enough examples.
        lesson: None if it is not known, in files of version 1.
    """

    model: tuple[str, str]
    rule: Rule
    regression: Regression | None = None
    lesson: Lesson | None = None


def gold_of(names: Sequence[str | None], routes: Sequence[Route]) -> Ints:
    """The column of the route of each name, `NO_ROUTE` for None, shape (names,)."""
    columns: dict[str | None, int] = {None: NO_ROUTE} | {route.name: i for i, route in enumerate(routes)}
    return np.array([columns[name] for name in names], np.intp)


def route_probabilities(scores: Floats, calibrator: Calibrator | None) -> Floats:
    """Probabilities in [0, 1], float64, of the shape of ``scores``."""
    return sigmoid(calibrated(scores, calibrator))


def learn(
    routes: Sequence[Route],
    lesson: Lesson,
    vectors: Mapping[str, FloatArray],
    *,
    labels: Calibrator | None,
    model: tuple[str, str],
    threshold: float | None = None,
) -> tuple[Fitted, RouterReport]:
    """Learn from queries with known routes.

    Without vectors, a route's score is its logit. With vectors it is that of a `Head` over the routes' own examples and
    the queries. Weights, calibration and thresholds are learned from features out of fold: those of a query come from a
    head that does not know it. The report decides each query by a rule that was learned without its fold, too.

    Args:
        routes: names each once.
        lesson: its logits have a column for each route.
        vectors: of the routes' examples.
        labels: the model's calibrator of labels.
        model: its name and revision.
        threshold: given for all routes, used in the report.

    Raises:
        InputError: without vectors, logits that are all equal, or not larger for the gold routes.
        MissingExtraError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError("train", "fitting a router")
    gold, regression = lesson.gold(routes), None
    if lesson.vectors.shape[1]:
        pool = pool_of_all(routes, vectors, lesson)
        regression = regression_of(pool) if can_regress(pool) else None
        folds = _folds(lesson, few=LEAVE_ONE_OUT if regression is None else FOLDS)
        odds = calibrated(lesson.logits, labels)
        features, kept = features_out_of_fold(pool, folds, lesson.texts, gold, odds, lesson.vectors), None
    else:
        folds = _folds(lesson, few=LEAVE_ONE_OUT)
        features, kept = lesson.logits[..., None], labels
    fitted = Fitted(model, _learned(features, gold, kept), regression, lesson)
    return fitted, _report(routes, features, gold, folds, kept, threshold)


def pool_of_all(routes: Sequence[Route], vectors: Mapping[str, FloatArray], lesson: Lesson | None) -> Pool:
    """The texts that a head knows: the routes' examples, and the queries of a lesson."""
    labelled = [(text, vectors[text], i) for i, route in enumerate(routes) for text in route.examples]
    if lesson:
        labelled += zip(lesson.texts, lesson.vectors, lesson.gold(routes).tolist(), strict=True)
    return pool_of(labelled)


def head_of(routes: Sequence[Route], vectors: Mapping[str, FloatArray], fitted: Fitted | None) -> Head:
    """The head of a router, fitted or not. ``vectors``: of the routes' examples."""
    if fitted is None:
        return Head.of(pool_of_all(routes, vectors, None), len(routes))
    return Head.of(pool_of_all(routes, vectors, fitted.lesson), len(routes), fitted.rule.weights, fitted.regression)


def _folds(lesson: Lesson, *, few: int) -> Ints:
    texts = len(set(lesson.texts))
    return folds_of(lesson.texts, lesson.names, texts if texts <= few else FOLDS)


def _learned(features: Floats, gold: Ints, calibrator: Calibrator | None) -> Rule:
    """The rule that queries teach. ``features``: out of fold, shape (queries, routes, features).

    The calibrator is Platt's, over all pairs of a query and a route. ``calibrator`` is kept if all pairs have the same
    outcome, which leaves nothing to calibrate on. With a head it is also kept if the scores contradict the outcomes:
    these few queries will be examples.
    """
    routes, has_head = features.shape[1], features.shape[2] > 1
    weights = learned_weights(features, gold) if has_head else LABEL_ALONE
    scores = features @ weights
    is_gold = gold[:, None] == np.arange(routes)
    if is_gold.any() and not is_gold.all():
        try:
            calibrator = fit_calibrator(scores.ravel(), is_gold.ravel(), fitted_on=f"{len(scores)} routed queries")
        except InputError:
            if not has_head:
                raise
    thresholds = learned_thresholds(scores, route_probabilities(scores, calibrator), gold)
    return Rule(weights, calibrator, *thresholds)


def _unlearned(features: Floats, calibrator: Calibrator | None) -> Rule:
    """The rule of a router that is not fitted."""
    routes, has_head = features.shape[1], features.shape[2] > 1
    thresholds = np.zeros(routes), np.full(routes, MULTI_THRESHOLD)
    return Rule(PRIOR if has_head else LABEL_ALONE, calibrator, *thresholds)


def _report(
    routes: Sequence[Route],
    features: Floats,
    gold: Ints,
    folds: Ints,
    calibrator: Calibrator | None,
    threshold: float | None,
) -> RouterReport:
    """Decide each query by a rule learned from the other folds.

    If they are too few to learn from, or contradict their scores, by that of a router that is not fitted.
    """
    scores, probabilities, thresholds = (np.empty(features.shape[:2]) for _ in range(3))
    for fold in np.unique(folds):
        mine, rest = folds == fold, folds != fold
        try:
            rule = _learned(features[rest], gold[rest], calibrator) if rest.any() else _unlearned(features, calibrator)
        except InputError:
            rule = _unlearned(features, calibrator)
        scores[mine] = features[mine] @ rule.weights
        probabilities[mine] = rule.probabilities(scores[mine])
        thresholds[mine] = rule.thresholds if threshold is None else threshold
    names = [route.name for route in routes]
    return judge(names, scores, probabilities, thresholds, gold, folds=len(np.unique(folds)))
