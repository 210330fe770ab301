"""State of a router, and the plans that read what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gliclass_rerank.calibration.calibrators import Calibrator, calibrated
from gliclass_rerank.errors import InputError
from gliclass_rerank.scoring import Plan
from gliclass_rerank.tasks.routing.fit import Fitted, Lesson, head_of, learn, route_probabilities
from gliclass_rerank.tasks.routing.head import Head
from gliclass_rerank.tasks.routing.outcomes import MULTI_THRESHOLD, Bools, Floats, RouterReport
from gliclass_rerank.tasks.routing.routes import Route, examples_of, places_of
from gliclass_rerank.tasks.routing.scores import ExampleUse, read_routes, read_vectors
from gliclass_rerank.types import FloatArray, Scorer
from gliclass_rerank.unreadable import Unreadable, naming, numbered


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that a router knows. It is replaced as a whole when anything changes.

    Attributes:
        routes: at least one.
        vectors: of the routes' examples, as far as they were read, float32, shape (D,); zero if unreadable.
        fitted: None before `Router.fit`.
        head: None without one, and before the examples were read.
    """

    routes: tuple[Route, ...]
    vectors: Mapping[str, FloatArray] = field(default_factory=dict)
    fitted: Fitted | None = None
    head: Head | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(route.name for route in self.routes)

    @property
    def unread(self) -> list[str]:
        """The examples without a vector, each once."""
        return [text for text in examples_of(self.routes) if text not in self.vectors]

    def with_head(self) -> State:
        """The same with a head, once all examples were read."""
        return replace(self, head=head_of(self.routes, self.vectors, self.fitted))


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores of routes for queries, which order them, probabilities, and whether what decided could be read.

    Shape (queries, routes) each.
    """

    scores: Floats
    probabilities: Floats
    readable: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads queries and examples for a router: the arguments of `Router`, and plans from one state to another."""

    scorer: Scorer
    use: ExampleUse
    threshold: float | None
    unreadable: Unreadable

    @property
    def model(self) -> tuple[str, str]:
        """Name and revision."""
        return self.scorer.info.name, self.scorer.info.revision

    @property
    def labels(self) -> Calibrator | None:
        """The model's calibrator of labels."""
        return self.scorer.info.calibration.get("labels")

    @property
    def embeds(self) -> bool:
        """Whether examples are compared by vectors."""
        info = self.scorer.info
        return self.use == "nearest" and info.embeds and info.independent_labels

    def prepared(self, state: State) -> Plan[State]:
        """The state with a head if it needs one."""
        fitted = state.fitted
        needs = fitted.rule.has_head if fitted else any(route.examples for route in state.routes) and self.embeds
        if state.head or not needs:
            return state
        return (yield from self._with_vectors(state)).with_head()

    def scored(self, state: State, queries: Sequence[str]) -> Plan[Scored]:
        """Score the routes of a prepared state."""
        head, fitted = state.head, state.fitted
        with naming(lambda: [*numbered("query", queries), *places_of(state.routes)]):
            reading = yield from read_routes(
                self.scorer, queries, state.routes, self.use, vectors=head is not None, unreadable=self.unreadable
            )
        scores, readable, unfitted = reading.logits, reading.readable, self.labels
        if head:
            scores, unfitted = head.scores(calibrated(scores, self.labels), reading.vectors), None
            readable = readable | (reading.heard[:, None] & (head.reliability > 0))
        calibrator = fitted.rule.calibrator if fitted else unfitted
        return Scored(scores, route_probabilities(scores, calibrator), readable)

    def thresholds(self, state: State, *, multi: bool = False) -> Floats:
        """Probability that each route must reach, in [0, 1], shape (routes,)."""
        if self.threshold is None and state.fitted:
            return state.fitted.rule.multi_thresholds if multi else state.fitted.rule.thresholds
        unfitted = MULTI_THRESHOLD if multi else 0.0
        return np.full(len(state.routes), unfitted if self.threshold is None else self.threshold)

    def taught(
        self, state: State, queries: tuple[str, ...], names: tuple[str | None, ...]
    ) -> Plan[tuple[State, RouterReport]]:
        """The state fitted on queries with known routes, and its report."""
        bare = replace(state, fitted=None, head=None)
        if self.embeds:
            bare = yield from self._with_vectors(bare)
        with naming(lambda: [*numbered("query", queries), *places_of(state.routes)]):
            reading = yield from read_routes(
                self.scorer, queries, state.routes, self.use, vectors=self.embeds, unreadable=self.unreadable
            )
        return self._learned(bare, Lesson(queries, names, reading.logits, reading.vectors))

    def changed(self, state: State, routes: tuple[Route, ...]) -> Plan[tuple[State, RouterReport | None]]:
        """The state with other routes. What it was fitted on is learned again, without the queries of removed routes.

        Raises:
            InputError: it does not know what it was fitted on.
        """
        bare = State(routes, {text: state.vectors[text] for text in examples_of(routes) if text in state.vectors})
        if not state.fitted:
            return bare, None
        if not (lesson := state.fitted.lesson):
            raise InputError(
                "router: expected the queries that it was fitted on, to learn from them again, got a fit of an earlier "
                "version's file, which has none; make a router with the new routes and fit it"
            )
        left = [route for route in routes if route.name in state.names]
        lesson = lesson.among(state.routes, left)
        if not lesson.texts:
            return bare, None
        if len(left) < len(routes) or not state.fitted.rule.has_head:
            return (yield from self.taught(bare, lesson.texts, lesson.names))
        return self._learned((yield from self._with_vectors(bare)), lesson)

    def _with_vectors(self, state: State) -> Plan[State]:
        with naming(lambda: places_of(state.routes)):
            read = yield from read_vectors(state.unread, unreadable=self.unreadable)
        return replace(state, vectors={**state.vectors, **read})

    def _learned(self, bare: State, lesson: Lesson) -> tuple[State, RouterReport]:
        fitted, report = learn(
            bare.routes, lesson, bare.vectors, labels=self.labels, model=self.model, threshold=self.threshold
        )
        state = replace(bare, fitted=fitted)
        return state.with_head() if fitted.rule.has_head else state, report
