"""Logits of many labels for each query, independent of the order of the labels and of their division over passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.scoring import Plan, labels_share_pass
from gliclass_rerank.tasks.routing.fit import Floats
from gliclass_rerank.types import Example, FloatArray, Scorer, ScoreRequest
from gliclass_rerank.unreadable import Unreadable, readable, refuse_unread

Bools = NDArray[np.bool_]

MAX_LABELS_PER_PASS = 32
"""Largest number of labels that are read together."""
REQUESTS_PER_CHUNK = 8192  # requests built at a time


def label_logits(
    scorer: Scorer,
    queries: Sequence[str],
    labels: Sequence[str],
    *,
    examples: Sequence[Example] = (),
    alone: bool = False,
    unreadable: Unreadable = "flag",
) -> Plan[tuple[Floats, Bools]]:
    """Raw logits, shape (queries, labels), and whether the model could read query and label, of the same shape.

    Equal labels get equal logits in any order.

    Models with independent labels read all labels of a query at once. With other models, labels that share a pass
    influence each other. If all fit one pass they are read together, deduplicated and sorted. If not, their logits
    would depend on how they are divided over passes, so each is read alone, with the query repeated.

    Args:
        scorer: reads the labels, and determines whether they share a pass.
        queries: texts.
        labels: at least one.
        examples: given to the model in every pass.
        alone: read each label alone, however few there are, unless labels are independent.
        unreadable: "error" raises for a query or label that the model cannot read.

    Raises:
        ModelError: the scorer returns logits of another number or shape than requested, NaN or infinities.
        UnreadableTextError: see ``unreadable``.
    """
    distinct, places = np.unique(np.array(labels, dtype=object), return_inverse=True)
    known: list[str] = distinct.tolist()
    together = scorer.info.independent_labels or (not alone and fit_one_pass(scorer, known, examples))
    groups = [tuple(known)] if together else [(label,) for label in known]
    shown = tuple(examples)
    at_once = max(1, REQUESTS_PER_CHUNK // len(groups))
    made: list[FloatArray] = []
    for start in range(0, len(queries), at_once):
        asked = [(query, group) for query in queries[start : start + at_once] for group in groups]
        requests = [ScoreRequest.of_checked(*pair, examples=shown) for pair in asked]
        rows = yield requests
        if unreadable == "error":
            refuse_unread(requests, rows)
        made += rows
    shape = len(queries), len(known)
    logits = np.concatenate([np.empty(0), *made]).reshape(shape)
    read = np.concatenate([np.empty(0, bool), *map(readable, made)]).reshape(shape)
    return logits[:, places], read[:, places]


def fit_one_pass(scorer: Scorer, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
    """Whether labels are read together: at most `MAX_LABELS_PER_PASS`, and in one pass with a text of any length."""
    return len(labels) == 1 or (len(labels) <= MAX_LABELS_PER_PASS and labels_share_pass(scorer, labels, examples))
