"""Router: choose among routes described in words for a query, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, get_args

import numpy as np

from gliclass_rerank.errors import CheckpointError, InputError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.load import as_scorer
from gliclass_rerank.scoring import Plan, run
from gliclass_rerank.tasks.routing.file import CORRECT, read_file, state_of, write_file
from gliclass_rerank.tasks.routing.fit import gold_of
from gliclass_rerank.tasks.routing.outcomes import RouterReport, judge
from gliclass_rerank.tasks.routing.reader import Reader, State
from gliclass_rerank.tasks.routing.routes import (
    Route,
    RouteDecision,
    check_examples,
    check_names,
    check_routes,
    decide,
    place_of,
    saved_routes,
)
from gliclass_rerank.tasks.routing.scores import ExampleUse
from gliclass_rerank.types import Scorer
from gliclass_rerank.unreadable import Unreadable
from gliclass_rerank.validation import check_choice, check_number, check_text, check_texts

__all__ = ["ExampleUse", "Route", "RouteDecision", "Router"]


class Router:
    """Route queries to routes described in words. A query is read once, with all routes as its labels.

    A model with independent labels reads a query once for any number of routes. With other models, routes that may not
    fit one pass (more than 32, or fewer with long descriptions) are read one by one, so that a decision does not
    depend on how they are divided over passes. Hundreds of routes then cost as many short passes.

    A route's probability is the sigmoid of its logit, calibrated by `fit`, else by the model's calibrator for the task
    "labels", else raw. With examples and a model that embeds (``info.embeds``), evidence from vectors is added to the
    calibrated logit: the cosines of the query to the route's nearest example and to the centroid of its examples, and
    after `fit` the log-odds of a logistic regression. The pass that reads the routes gives the query's vector too, so
    that examples cost nothing but their own first reading.

    Thread-safe, also while it changes: a call sees the router as it was before a change or after it.

    Args:
        routes: at least one, names each once.
        scorer: a `Scorer`, or an argument of `load_scorer` ("mini", a folder, a hub id).
        threshold: probability that a route must reach, in [0, 1]. Default: the thresholds fitted for each route.
            Without `fit` the best route is always chosen, or those that reach one half if several may apply.
        fallback: name returned if no route is likely enough; it need not be a route's.
        examples: use of the routes' examples. "nearest": compared with the query, by vectors if the model embeds. With
            another model they are further labels, each read alone: a route's logit is the largest of its own label's
            and its examples', and each costs a short pass. "prompt": given to the model as solved examples, for
            checkpoints trained with them. "off": ignored.
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
        self._state = State(check_routes(routes))
        check_choice(examples, get_args(ExampleUse), "examples")
        limit = None if threshold is None else check_number(threshold, "threshold", low=0, high=1)
        self._fallback = None if fallback is None else check_text(fallback, "fallback")
        check_choice(unreadable, get_args(Unreadable), "unreadable")
        self._reader = Reader(as_scorer(scorer), examples, limit, unreadable)
        self._changes = PerProcess(Lock)  # held during a change, so that none is lost

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes, with their examples."""
        return self._state.routes

    @property
    def scorer(self) -> Scorer:
        """The model."""
        return self._reader.scorer

    @property
    def thresholds(self) -> dict[str, float]:
        """Probability that each route must reach to be chosen alone, in [0, 1]; a copy."""
        state = self._state
        return dict(zip(state.names, self._reader.thresholds(state).tolist(), strict=True))

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
        """`route_many` as a plan, for callers that score its requests themselves. Arguments and errors are the same.

        The first plan of a router with examples may also ask for their vectors.
        """
        texts = check_texts(queries, "query", plural="queries")
        state = yield from self._prepared(self._state)  # one state for the whole call, also during a concurrent change
        scored = yield from self._reader.scored(state, texts)
        thresholds, best = self._reader.thresholds(state, multi=multi), scored.scores.argmax(axis=1)
        readable = scored.readable[np.arange(len(best)), best]
        return [
            decide(state.names, *row, thresholds, multi=multi, fallback=self._fallback, readable=bool(is_read))
            for row, is_read in zip(zip(scored.scores, scored.probabilities, strict=True), readable, strict=True)
        ]

    def fit(self, queries: Sequence[str], names: Sequence[str | None]) -> RouterReport:
        """Fit the router on queries with known routes. The queries are scored once.

        Learns a calibration and thresholds. With a model that embeds and ``examples="nearest"``, the queries also
        become further examples of their routes, the weights of the evidence are learned, and from about five examples a
        route a logistic regression on vectors is. All of it is learned from scores by routers that did not know the
        query (cross-validation; up to 20 queries are left out one by one).

        Replaces an earlier fit. A ``threshold`` given to the router takes precedence. Needs the extra "train".

        Args:
            queries: at least one. More give better thresholds. Include queries that belong to no route, since
                abstention is fitted on them. Without vectors, exclude the routes' own examples, which look easier than
                other queries.
            names: the route of each, or None for "none of these".

        Returns:
            An honest estimate of the accuracy on other queries of the same kind: each query is decided by what was
            learned from others.

        Raises:
            InputError: no queries, other lengths, an unknown name, or, without vectors, logits that do not separate the
                routes.
            MissingExtraError: scikit-learn is not installed.
        """
        texts = check_texts(queries, "query", plural="queries")
        with self._changes.get():
            state = self._state
            checked = check_names(names, len(texts), state.routes)
            self._state, report = run(self._reader.taught(state, texts, checked), self.scorer)
        return report

    def evaluate(self, queries: Sequence[str], names: Sequence[str | None]) -> RouterReport:
        """Measure routing on queries with known routes, without fitting. Arguments as for `fit`."""
        return run(self._evaluation(check_texts(queries, "query", plural="queries"), names), self.scorer)

    def add(self, route: Route) -> RouterReport | None:
        """Add a route. Returns and raises what `add_examples` does. A fitted router reads its queries again."""
        with self._changes.get():
            return self._change(check_routes((*self._state.routes, route)))

    def add_examples(self, name: str, texts: Sequence[str]) -> RouterReport | None:
        """Add examples to a route; those that it has already are left out.

        A fitted router learns again, from the vectors that it kept if the model embeds, else by reading its queries.

        Args:
            name: of the route.
            texts: queries that belong there.

        Returns:
            The new report of a fitted router, else None.

        Raises:
            InputError: an unknown name, texts that are no sequence of texts, or a fitted router of a file of version 1,
                which has no queries. The router stays as it was.
            MissingExtraError: a fitted router, and scikit-learn is not installed.
        """
        added = check_examples(name, texts)
        with self._changes.get():
            routes = list(self._state.routes)
            place = place_of(name, routes)
            routes[place] = replace(routes[place], examples=tuple(dict.fromkeys((*routes[place].examples, *added))))
            return self._change(tuple(routes))

    def remove(self, name: str) -> RouterReport | None:
        """Remove a route, with its examples and the queries of its own that the router was fitted on.

        A fitted router learns again, as in `add_examples`. Returns the same.

        Raises:
            InputError: an unknown name, or the last route.
        """
        with self._changes.get():
            routes = list(self._state.routes)
            del routes[place_of(name, routes)]
            if not routes:
                raise InputError(f"{name!r:.60}: expected a route that is not the last one; add another one first")
            return self._change(tuple(routes))

    def save(self, path: str | Path) -> None:
        """Write routes, options and the fit to a JSON file.

        Vectors and regression, if there are any, are written to a safetensors file beside it, of the same stem.

        Raises:
            InputError: the files cannot be written.
        """
        reader = self._reader
        options = {"examples": reader.use, "threshold": reader.threshold, "fallback": self._fallback}
        write_file(self._state, options, reader.model, path)

    @classmethod
    def load(cls, path: str | Path, *, scorer: Scorer | str | Path = "mini") -> Router:
        """Read a file of `save`, or one written by hand: "version" (2) and "routes", or {"name": "description", ...}.

        Args:
            path: the JSON file. The safetensors file that it names must be beside it.
            scorer: as for `Router`. For a fitted router, the same model that it was fitted on.

        Raises:
            InputError: the file does not exist.
            CheckpointError: it holds no router, or one fitted on another model, or the safetensors file is missing or
                another one.
            NoVectorsError: the router has vectors, and the model none.
        """
        saved = read_file(path)
        loaded = as_scorer(scorer)
        try:
            routes = saved_routes(saved["routes"])
            options: dict[str, Any] = {key: saved[key] for key in ("threshold", "fallback", "examples") if key in saved}
            router = cls(routes, loaded, **options)
        except InputError as error:
            raise CheckpointError(f"{path}: {error}; {CORRECT}") from error
        router._state = state_of(saved, router.routes, loaded.info, path)
        return router

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_changes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _changes=PerProcess(Lock))

    def _prepared(self, state: State) -> Plan[State]:
        """The state with a head if it needs one. It is kept, unless the router has changed in the meantime."""
        prepared = yield from self._reader.prepared(state)
        changes = self._changes.get()
        if prepared is not state and changes.acquire(blocking=False):
            try:
                if self._state is state:
                    self._state = prepared
            finally:
                changes.release()
        return prepared

    def _change(self, routes: tuple[Route, ...]) -> RouterReport | None:
        self._state, report = run(self._reader.changed(self._state, routes), self.scorer)
        return report

    def _evaluation(self, texts: tuple[str, ...], names: Sequence[str | None]) -> Plan[RouterReport]:
        state = self._state
        gold = gold_of(check_names(names, len(texts), state.routes), state.routes)
        state = yield from self._prepared(state)
        scored = yield from self._reader.scored(state, texts)
        return judge(state.names, scored.scores, scored.probabilities, self._reader.thresholds(state), gold)
