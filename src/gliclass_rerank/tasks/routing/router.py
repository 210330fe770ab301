"""Router: choose among routes described in words for a query, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import numpy as np

from gliclass_rerank.calibration.calibrators import Calibrator
from gliclass_rerank.errors import CheckpointError, InputError
from gliclass_rerank.scorers.load import as_scorer
from gliclass_rerank.scoring import Plan, run
from gliclass_rerank.tasks.routing.file import CORRECT, FILE_VERSION, fitted_as_dict, read_file, read_fitted, write_file
from gliclass_rerank.tasks.routing.fit import (
    MULTI_THRESHOLD,
    NO_ROUTE,
    Fitted,
    Floats,
    Ints,
    RouterReport,
    judge,
    learn,
    route_probabilities,
)
from gliclass_rerank.tasks.routing.scores import Bools, label_logits
from gliclass_rerank.types import Example, Scorer
from gliclass_rerank.unreadable import Places, Unreadable, naming, numbered
from gliclass_rerank.validation import check_choice, check_number, check_text, check_texts, is_blank

ExampleUse = Literal["nearest", "prompt", "off"]


@dataclass(frozen=True, slots=True)
class Route:
    """A destination of queries.

    Args:
        name: its name in decisions.
        description: which queries belong there, in words; may be empty.
        examples: queries that belong there.

    Raises:
        InputError: an empty name, texts that no tokenizer can read, examples that are no sequence of strings.
    """

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text(self.name, "route's name")
        check_text(self.description, f"description of {self.name!r}", may_be_empty=True)
        object.__setattr__(
            self, "examples", check_texts(self.examples, f"{self.name!r}, example", plural=f"examples of {self.name!r}")
        )

    @property
    def label(self) -> str:
        """Label in the model's input: "name: description", or the name if there is no description."""
        return f"{self.name}: {self.description}" if not is_blank(self.description) else self.name


class Scores(dict[str, float]):
    """Probability by route: a read-only dict that can be copied, pickled and written as JSON."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("scores are read-only; change a copy of them: dict(scores)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return Scores, (dict(self),)


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """The route chosen for a query.

    Attributes:
        name: the route, the best one if several apply. If the router abstained, its fallback (None without one).
        score: probability of that route, in [0, 1]. If the router abstained, that of the best route.
        scores: probability of each route, in the order of the routes. They are judged one by one and need not sum to 1.
        names: all routes that apply, in the order of the routes: one, unless several were allowed. If the router
            abstained, the fallback alone, or none.
        abstained: no route was likely enough.
        readable: the model's vocabulary covers words of the query and of the label or example that decided; otherwise
            the decision is meaningless.
    """

    name: str | None
    score: float
    scores: Mapping[str, float]
    names: tuple[str, ...]
    abstained: bool
    readable: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", Scores(self.scores))


class Router:
    """Route queries to routes described in words. A query is read once, with all routes as its labels.

    A model with independent labels reads a query once for any number of routes. With other models, routes that may not
    fit one pass (more than 32, or fewer with long descriptions) are read one by one, so that a decision does not
    depend on how they are divided over passes. Hundreds of routes then cost as many short passes.

    A route's probability is the sigmoid of its logit, calibrated by `fit`, else by the model's calibrator for the task
    "labels", else raw. Thread-safe, also during `fit`.

    Args:
        routes: at least one, names each once.
        scorer: a `Scorer`, or an argument of `load_scorer` ("mini", a folder, a hub id).
        threshold: probability that a route must reach, in [0, 1]. Default: the thresholds fitted for each route.
            Without `fit` the best route is always chosen, or those that reach one half if several may apply.
        fallback: name returned if no route is likely enough; it need not be a route's.
        examples: use of the routes' examples. "nearest": as further labels, each read alone, and a route's logit is the
            largest of its own label's and its examples'; each costs a short pass. "prompt": given to the model as
            solved examples, for checkpoints trained with them. "off": ignored.
        unreadable: treatment of a query, route or example of which the model's vocabulary covers (almost) nothing:
            "flag" decides as usual and sets `RouteDecision.readable` to False, "error" raises `UnreadableTextError`.
            Not saved.

    Raises:
        InputError: no routes, an element that is no `Route`, a name twice, a fallback that is no text.
        OptionError: an option with an impossible value.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        scorer: Scorer | str | Path = "mini",
        *,
        threshold: float | None = None,
        fallback: str | None = None,
        examples: ExampleUse = "nearest",
        unreadable: Unreadable = "flag",
    ) -> None:
        self.routes = _routes(routes)
        check_choice(examples, get_args(ExampleUse), "examples")
        self._threshold = None if threshold is None else check_number(threshold, "threshold", low=0, high=1)
        self._fallback = None if fallback is None else check_text(fallback, "fallback")
        self._examples = examples
        check_choice(unreadable, get_args(Unreadable), "unreadable")
        self._unreadable = unreadable
        self._names = tuple(route.name for route in self.routes)
        self._fitted: Fitted | None = None
        self.scorer: Scorer = as_scorer(scorer)

    def route(self, query: str, *, multi: bool = False) -> RouteDecision:
        """Choose the most probable route, the first of equals. With ``multi``, choose all that reach their threshold.

        Args:
            query: text to route. If it does not fit in one pass it is read in windows, and each route's best one
                counts.
            multi: several routes may apply at once.

        Raises:
            InputError: an empty query, characters that no tokenizer reads, a route that does not fit the model.
            NonFiniteError: the model returns NaN.
        """
        return self.route_many([check_text(query, "query")], multi=multi)[0]

    def route_many(self, queries: Sequence[str], *, multi: bool = False) -> list[RouteDecision]:
        """Route queries as one batch. Decisions, arguments and errors are those of `route` on each."""
        return run(self.plan(queries, multi=multi), self.scorer)

    def plan(self, queries: Sequence[str], *, multi: bool = False) -> Plan[list[RouteDecision]]:
        """`route_many` as a plan, for callers that score its requests themselves. Arguments and errors are the same."""
        fitted = self._fitted  # one state for the whole call, also during a concurrent fit
        logits, read = yield from self._logits(check_texts(queries, "query", plural="queries"))
        probabilities = route_probabilities(logits, self._calibrator(fitted))
        thresholds = self._thresholds(fitted, multi=multi)
        return [
            decide(self._names, *row, thresholds, multi=multi, fallback=self._fallback, readable=bool(is_read))
            for row, is_read in zip(zip(logits, probabilities, strict=True), read, strict=True)
        ]

    def fit(self, queries: Sequence[str], names: Sequence[str | None]) -> RouterReport:
        """Fit calibration and thresholds on queries with known routes. The queries are scored once.

        Replaces an earlier fit. A ``threshold`` given to the router takes precedence. Needs the extra "train".

        Args:
            queries: at least one. More give better thresholds. Include queries that belong to no route, since
                abstention is fitted on them. Exclude the routes' own examples, which look easier than other queries.
            names: the route of each, or None for "none of these".

        Returns:
            Accuracy of the fitted router on these very queries, so optimistic. Use `evaluate` on others.

        Raises:
            InputError: no queries, other lengths, an unknown name, or logits that do not separate the routes.
            MissingExtraError: scikit-learn is not installed.
        """
        logits, gold = run(self._judged(queries, names), self.scorer)
        fitted = learn(logits, gold, self._calibrator(None), self._model())
        self._fitted = fitted
        return self._report(logits, gold, fitted)

    def evaluate(self, queries: Sequence[str], names: Sequence[str | None]) -> RouterReport:
        """Measure routing on queries with known routes, without fitting. Arguments as for `fit`."""
        fitted = self._fitted
        return self._report(*run(self._judged(queries, names), self.scorer), fitted)

    @property
    def thresholds(self) -> dict[str, float]:
        """Probability that each route must reach to be chosen alone, in [0, 1]; a copy."""
        return dict(zip(self._names, self._thresholds(self._fitted, multi=False).tolist(), strict=True))

    def save(self, path: str | Path) -> None:
        """Write routes, options and the fit to a JSON file.

        Raises:
            InputError: the file cannot be written.
        """
        fitted = self._fitted
        name, revision = fitted.model if fitted else self._model()
        saved = {
            "version": FILE_VERSION,
            "model": {"name": name, "revision": revision},
            "routes": [asdict(route) for route in self.routes],
            "examples": self._examples,
            "threshold": self._threshold,
            "fallback": self._fallback,
            "fitted": fitted and fitted_as_dict(fitted, self._names),
        }
        write_file(saved, path)

    @classmethod
    def load(cls, path: str | Path, *, scorer: Scorer | str | Path = "mini") -> Router:
        """Read a file of `save`, or one written by hand: "version" (1) and "routes", or {"name": "description", ...}.

        Args:
            path: the file.
            scorer: as for `Router`. For a fitted router, the same model that it was fitted on.

        Raises:
            InputError: the file does not exist.
            CheckpointError: it holds no router, or one fitted on another model.
        """
        saved = read_file(path)
        loaded = as_scorer(scorer)
        try:
            routes = [_saved_route(entry, i) for i, entry in enumerate(saved["routes"])]
            options = {key: saved[key] for key in ("threshold", "fallback", "examples") if key in saved}
            router = cls(routes, loaded, **options)
        except InputError as error:
            raise CheckpointError(f"{path}: {error}; {CORRECT}") from error
        router._fitted = read_fitted(saved, router._names, router._model(), path)
        return router

    def _model(self) -> tuple[str, str]:
        return self.scorer.info.name, self.scorer.info.revision

    def _logits(self, queries: Sequence[str]) -> Plan[tuple[Floats, Bools]]:
        """Raw logits, shape (queries, routes), and whether the best label could be read, shape (queries,)."""
        labels, owners = labels_of(self.routes, with_examples=self._examples == "nearest")
        solved = self.routes if self._examples == "prompt" else ()
        shown = {Example(text, (route.label,)) for route in solved for text in route.examples}
        # Sorted, so that the order of the routes has no effect.
        examples = sorted(shown, key=lambda example: (example.text, example.labels))
        # Names get different scores in one pass with whole sentences.
        alone = len(labels) > len(self.routes)
        with naming(lambda: _places(queries, self.routes)):
            logits, read = yield from label_logits(
                self.scorer, queries, labels, examples=examples, alone=alone, unreadable=self._unreadable
            )
        best = logits.argmax(axis=1)
        return combined(logits, owners, len(self.routes)), read[np.arange(len(queries)), best]

    def _calibrator(self, fitted: Fitted | None) -> Calibrator | None:
        return fitted.calibrator if fitted else self.scorer.info.calibration.get("labels")

    def _thresholds(self, fitted: Fitted | None, *, multi: bool) -> Floats:
        if self._threshold is None and fitted is not None:
            return np.array(fitted.multi_thresholds if multi else fitted.thresholds)
        unfitted = MULTI_THRESHOLD if multi else 0.0
        return np.full(len(self.routes), unfitted if self._threshold is None else self._threshold)

    def _judged(self, queries: Sequence[str], names: Sequence[str | None]) -> Plan[tuple[Floats, Ints]]:
        """Logits, shape (queries, routes), and the index of each query's route or `NO_ROUTE`, shape (queries,)."""
        texts = check_texts(queries, "query", plural="queries")
        if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != len(texts):
            got = len(names) if isinstance(names, Sequence) else type(names).__name__
            raise InputError(f"names: expected one, or None, for each of the {len(texts)} queries, got {got}")
        if not texts:
            raise InputError("queries: expected at least one, with the name of its route, got none")
        places: dict[object, int] = {None: NO_ROUTE} | {name: place for place, name in enumerate(self._names)}
        for i, name in enumerate(names):
            if not isinstance(name, str | None) or name not in places:
                known = ", ".join(map(repr, self._names))
                raise InputError(f"name {i}: expected None or one of {known:.80}, got {name!r:.60}")
        logits, _ = yield from self._logits(texts)
        return logits, np.array([places[name] for name in names], np.intp)

    def _report(self, logits: Floats, gold: Ints, fitted: Fitted | None) -> RouterReport:
        probabilities = route_probabilities(logits, self._calibrator(fitted))
        return judge(self._names, logits, probabilities, self._thresholds(fitted, multi=False), gold)


def labels_of(routes: Sequence[Route], *, with_examples: bool) -> tuple[tuple[str, ...], Ints]:
    """Labels of the routes, then their examples, and the index of the route of each."""
    labels, owners = [route.label for route in routes], list(range(len(routes)))
    for place, route in enumerate(routes if with_examples else ()):
        labels += route.examples
        owners += [place] * len(route.examples)
    return tuple(labels), np.array(owners, np.intp)


def combined(logits: Floats, owners: Ints, routes: int) -> Floats:
    """The largest logit of each route, shape (queries, routes).

    Args:
        logits: of labels, shape (queries, labels).
        owners: the index of each label's route, shape (labels,); every route has a label.
        routes: number of routes.
    """
    largest = np.full((routes, len(logits)), -np.inf)
    np.maximum.at(largest, owners, logits.T)
    return largest.T


def decide(
    names: Sequence[str],
    logits: Floats,
    probabilities: Floats,
    thresholds: Floats,
    *,
    multi: bool = False,
    fallback: str | None = None,
    readable: bool = True,
) -> RouteDecision:
    """Choose the route of one query.

    Args:
        names: of the routes.
        logits: raw, shape (routes,). They order the routes, since they still differ when probabilities are 1.
        probabilities: in [0, 1], shape (routes,).
        thresholds: shape (routes,); a probability equal to its threshold suffices.
        multi: choose all routes that reach their threshold instead of the best one if it does.
        fallback: name returned if none does.
        readable: value of `RouteDecision.readable`.
    """
    best = int(logits.argmax())
    chosen = [i for i in (range(len(names)) if multi else (best,)) if probabilities[i] >= thresholds[i]]
    top = max(chosen, key=lambda i: logits[i], default=best)
    instead = () if fallback is None else (fallback,)
    return RouteDecision(
        name=names[top] if chosen else fallback,
        score=float(probabilities[top]),
        scores=dict(zip(names, probabilities.tolist(), strict=True)),
        names=tuple(names[i] for i in chosen) if chosen else instead,
        abstained=not chosen,
        readable=readable,
    )


def _routes(routes: Sequence[Route]) -> tuple[Route, ...]:
    if not isinstance(routes, Sequence):
        raise InputError(f"routes: expected a sequence of Route, got {type(routes).__name__}")
    if not routes:
        raise InputError("routes: expected at least one, got none")
    seen: set[str] = set()
    for i, route in enumerate(routes):
        if not isinstance(route, Route):
            raise InputError(f"route {i}: expected Route(name, description, examples), got {route!r:.60}")
        if route.name in seen:
            raise InputError(f"route {i}: the name {route.name!r} is another route's as well; give each its own")
        seen.add(route.name)
    return tuple(routes)


def _places(queries: Sequence[str], routes: Sequence[Route]) -> Places:
    yield from numbered("query", queries)
    for route in routes:
        yield f"route {route.name!r:.60}", route.label
        yield from ((f"example of {route.name!r:.60}", example) for example in route.examples)


def _saved_route(fields: dict[str, Any], place: int) -> Route:
    try:
        return Route(**fields)
    except InputError as error:
        raise InputError(f"routes[{place}]: {error}") from error
