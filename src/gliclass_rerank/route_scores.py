"""Logits of many labels for each query, that neither their order nor how passes divide them decides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gliclass_rerank.errors import NonFiniteError
from gliclass_rerank.route_fit import Floats, Ints
from gliclass_rerank.types import Example, Scorer, ScoreRequest

SHARED = 32
"""Labels that are read together and left at that; of more, so many are read again one by one."""


def label_logits(
    scorer: Scorer, queries: Sequence[str], labels: Sequence[str], examples: Sequence[Example] = ()
) -> Floats:
    """Raw logits, shape (queries, labels); equal labels get equal ones, in whatever order they come.

    Labels that share a pass read each other. Up to `SHARED` are read together, in an order of their own, each once.
    More may take several passes, and which labels stand beside which would decide. So their likeliest, `SHARED` of
    them, are read again, each alone; the others keep what the shared passes gave them, but never above one of these.

    Raises:
        NonFiniteError: the scorer gives NaN or infinities.
    """
    distinct, places = np.unique(np.array(labels, dtype=object), return_inverse=True)
    requests = [ScoreRequest(query, tuple(distinct), examples=tuple(examples)) for query in queries]
    logits = _scored(scorer, requests).reshape(len(queries), len(distinct))
    if len(distinct) > SHARED and len(queries):
        finalists = np.argsort(-logits, axis=1, kind="stable")[:, :SHARED]
        alone = _scored(scorer, _alone(queries, distinct.tolist(), finalists, examples)).reshape(finalists.shape)
        logits = np.minimum(logits, alone.min(axis=1, keepdims=True))
        np.put_along_axis(logits, finalists, alone, axis=1)
    return logits[:, places]


def _alone(
    queries: Sequence[str], labels: Sequence[str], finalists: Ints, examples: Sequence[Example]
) -> list[ScoreRequest]:
    return [
        ScoreRequest(query, (labels[place],), examples=tuple(examples))
        for query, row in zip(queries, finalists, strict=True)
        for place in row
    ]


def _scored(scorer: Scorer, requests: Sequence[ScoreRequest]) -> Floats:
    """Logits of all requests, one after the other."""
    rows = [np.asarray(row, np.float64) for row in scorer.score(requests)] if requests else []
    logits = np.concatenate(rows) if rows else np.empty(0)
    if not np.isfinite(logits).all():
        raise NonFiniteError("the scorer gave scores that are not finite; its model is broken")
    return logits
