"""Logits of labels, independent of their order and of their division over passes, and vectors of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gliclass_rerank.scoring import Plan, read_together, vector_of
from gliclass_rerank.tasks.routing.outcomes import Bools, Floats, Ints
from gliclass_rerank.tasks.routing.routes import Route
from gliclass_rerank.types import Example, FloatArray, Logits, Scorer, ScoreRequest
from gliclass_rerank.unreadable import Unreadable, readable, refuse_unread

ExampleUse = Literal["nearest", "prompt", "off"]

REQUESTS_PER_CHUNK = 8192  # requests built at a time


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Scores of a model for queries.

    Attributes:
        logits: raw, shape (queries, labels), or of routes, shape (queries, routes).
        readable: whether the model could read query and label, of the same shape.
        heard: whether it could read the query, shape (queries,).
        vectors: of the queries, float32, shape (queries, D); shape (queries, 0) if they were not asked for.
    """

    logits: Floats
    readable: Bools
    heard: Bools
    vectors: FloatArray


def label_logits(
    scorer: Scorer,
    queries: Sequence[str],
    labels: Sequence[str],
    *,
    examples: Sequence[Example] = (),
    alone: bool = False,
    unreadable: Unreadable = "flag",
) -> Plan[tuple[Floats, Bools]]:
    """Logits and readability of `read_labels`, without vectors."""
    reading = yield from read_labels(scorer, queries, labels, examples=examples, alone=alone, unreadable=unreadable)
    return reading.logits, reading.readable


def read_labels(
    scorer: Scorer,
    queries: Sequence[str],
    labels: Sequence[str],
    *,
    examples: Sequence[Example] = (),
    alone: bool = False,
    vectors: bool = False,
    unreadable: Unreadable = "flag",
) -> Plan[Reading]:
    """Read labels for each query. Equal labels get equal logits in any order.

    Models with independent labels read all labels of a query at once. With other models, labels that share a pass
    influence each other. If all fit one pass they are read together, deduplicated and sorted. If not, their logits
    would depend on how they are divided over passes, so each is read alone, with the query repeated.

    Args:
        scorer: reads the labels, and determines whether they share a pass.
        queries: texts.
        labels: at least one.
        examples: given to the model in every pass.
        alone: read each label alone, however few there are, unless labels are independent.
        vectors: read the queries' vectors too. Only for models with independent labels that embed.
        unreadable: "error" raises for a query or label that the model cannot read.

    Raises:
        ModelError: the scorer returns logits of another number or shape than requested, NaN or infinities.
        UnreadableTextError: see ``unreadable``.
    """
    distinct, places = np.unique(np.array(labels, dtype=object), return_inverse=True)
    known: list[str] = distinct.tolist()
    together = scorer.info.independent_labels or (not alone and read_together(scorer, known, examples))
    groups = [tuple(known)] if together else [(label,) for label in known]
    shown, similarity = tuple(examples), scorer.info.similarity.get("labels", 0.0)
    at_once = max(1, REQUESTS_PER_CHUNK // len(groups))
    made: list[FloatArray] = []
    for start in range(0, len(queries), at_once):
        asked = [(query, group) for query in queries[start : start + at_once] for group in groups]
        requests = [
            ScoreRequest.of_checked(*pair, examples=shown, vector=vectors, similarity=similarity) for pair in asked
        ]
        rows = yield requests
        if unreadable == "error":
            refuse_unread(requests, rows)
        made += rows
    shape = len(queries), len(known)
    logits = np.concatenate([np.empty(0), *made]).reshape(shape)
    read = np.concatenate([np.empty(0, bool), *map(readable, made)]).reshape(shape)
    found = np.stack([vector_of(row) for row in made]) if vectors and made else np.empty((len(queries), 0), np.float32)
    unread = np.array([isinstance(row, Logits) and row.unread_text for row in made], bool)
    heard = ~unread.reshape(len(queries), len(groups))[:, 0]
    return Reading(logits[:, places], read[:, places], heard, found)


def read_routes(
    scorer: Scorer,
    queries: Sequence[str],
    routes: Sequence[Route],
    use: ExampleUse,
    *,
    vectors: bool = False,
    unreadable: Unreadable = "flag",
) -> Plan[Reading]:
    """Read routes for each query: the logit of a route is its label's, or with "nearest" the largest of its label's and
    its examples'.

    Args:
        scorer, queries, unreadable: see `read_labels`.
        routes: at least one.
        use: of the routes' examples.
        vectors: read the queries' vectors instead of the examples as labels.
    """
    labels, owners = labels_of(routes, with_examples=use == "nearest" and not vectors)
    solved = routes if use == "prompt" else ()
    shown = {Example(text, (route.label,)) for route in solved for text in route.examples}
    # Sorted, so that the order of the routes has no effect.
    examples = sorted(shown, key=lambda example: (example.text, example.labels))
    # Names get different scores in one pass with whole sentences.
    alone = len(labels) > len(routes)
    reading = yield from read_labels(
        scorer, queries, labels, examples=examples, alone=alone, vectors=vectors, unreadable=unreadable
    )
    logits = combined(reading.logits, owners, len(routes))
    decisive = reading.logits == logits[:, owners]
    read = np.zeros((len(routes), len(queries)), bool)
    np.logical_or.at(read, owners, (decisive & reading.readable).T)
    return Reading(logits, read.T, reading.heard, reading.vectors)


def read_vectors(texts: Sequence[str], *, unreadable: Unreadable = "flag") -> Plan[dict[str, FloatArray]]:
    """Vectors of texts, float32, shape (D,). Those of texts that the model cannot read are zero.

    Args:
        texts: each once.
        unreadable: "error" raises for such a text instead.
    """
    vectors: dict[str, FloatArray] = {}
    for start in range(0, len(texts), REQUESTS_PER_CHUNK):
        requests = [
            ScoreRequest.of_checked(text, (), vector=True) for text in texts[start : start + REQUESTS_PER_CHUNK]
        ]
        rows = yield requests
        if unreadable == "error":
            refuse_unread(requests, rows)
        for request, row in zip(requests, rows, strict=True):
            unread = isinstance(row, Logits) and row.unread_text
            vectors[request.text] = np.zeros_like(vector_of(row)) if unread else vector_of(row)
    return vectors


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
