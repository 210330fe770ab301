"""Ask a scorer, and check its answer: the one place where tasks meet a `Scorer`, which may be a user's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gliclass_rerank.errors import ModelError, NonFiniteError
from gliclass_rerank.types import FloatArray, Logits, Scorer, ScoreRequest


def score_requests(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
    """Return the scorer's logits: a row for each request, finite, shape (labels,); `Logits` stay what they are.

    Raises:
        ModelError: more or fewer rows than requests, or a row of another shape.
        NonFiniteError: a logit is NaN or infinite.
    """
    answer: object = scorer.score(requests)
    if not isinstance(answer, Iterable):
        raise ModelError(f"the scorer: expected a sequence of logits, got {type(answer).__name__}")
    rows = list(answer)
    if len(rows) != len(requests):  # the next rows would be taken for those of other texts
        raise ModelError(f"the scorer: expected logits for each of {len(requests)} requests, got {len(rows)}")
    return [_checked(row, len(request.labels), i) for i, (row, request) in enumerate(zip(rows, requests, strict=True))]


def _checked(row: object, labels: int, place: int) -> FloatArray:
    where = f"the scorer, request {place}"
    logits = _array(row, where)
    if logits.shape != (labels,):
        raise ModelError(f"{where}: expected shape ({labels},), got {logits.shape}")
    read: FloatArray = logits
    if isinstance(logits, Logits) and logits.spans:
        read = logits.per_window  # the largest logit may hide one that is not finite
        if read.shape != (len(logits.spans), labels):
            raise ModelError(
                f"{where}: expected shape ({len(logits.spans)}, {labels}) over its windows, got {read.shape}"
            )
    finite = np.isfinite(read)
    if not finite.all():
        first = tuple(np.argwhere(~finite)[0].tolist())
        raise NonFiniteError(f"{where}: logit {first[-1]} is {read[first]}, not finite; the model is broken")
    return logits


def _array(row: object, where: str) -> FloatArray:
    try:
        array = np.asanyarray(row)
    except ValueError as error:  # rows of rows of several lengths
        raise ModelError(f"{where}: expected numbers, got a {type(row).__name__}") from error
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{where}: expected numbers, got {array.dtype}")
    return array
