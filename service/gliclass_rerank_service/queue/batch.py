"""Batches: requests of several submissions, scored in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from gliclass_rerank import Scorer, ScoreRequest
from gliclass_rerank.models.encoding import EncodedRequest
from gliclass_rerank.types import FloatArray
from gliclass_rerank_service.queue.submission import Submission

Batch: TypeAlias = dict[Submission, list[int]]
"""Requests scored in one call: their positions in each submission."""


class EncodingScorer(Scorer, Protocol):
    """A `Scorer` whose requests can be tokenised before scoring, as those of all scorers that hold a model."""

    def encode(self, requests: Sequence[ScoreRequest]) -> Sequence[EncodedRequest]:
        """Tokenise requests. Raises `InputError` for those that cannot be tokenised."""
        ...

    def score_encoded(self, encoded: Sequence[EncodedRequest]) -> Sequence[FloatArray]:
        """Logits of encoded requests, as of `Scorer.score`."""
        ...


def run_batch(
    batch: Batch,
    score: Callable[[Any], Sequence[FloatArray]],
    *,
    on_success: Callable[[Batch, float], None],
    on_failure: Callable[[Batch, BaseException], None],
) -> None:
    """Score a batch and give its rows to their submissions. If it fails, score the submissions one by one.

    Args:
        batch: submissions that have ended are left out.
        score: logits of the submissions' items.
        on_success: called after each successful call of ``score`` with the batch and its seconds.
        on_failure: called after each other call with the batch and its error, before callers get it.
    """
    batch = {submission: part for submission, part in batch.items() if submission.is_alive()}
    if not batch:
        return
    started = time.monotonic()
    outcome = _attempt(score, [submission.items[i] for submission, part in batch.items() for i in part])
    seconds = time.monotonic() - started
    for submission in batch:
        submission.inference_seconds += seconds
    if not isinstance(outcome, BaseException):
        on_success(batch, seconds)
        rows = iter(outcome)
        for submission, part in batch.items():
            submission.add([next(rows) for _ in part])
        return
    on_failure(batch, outcome)
    if len(batch) == 1:
        next(iter(batch)).end(outcome)
        return
    for submission, part in batch.items():
        run_batch({submission: part}, score, on_success=on_success, on_failure=on_failure)


def _attempt(score: Callable[[Any], Sequence[FloatArray]], items: list[Any]) -> list[FloatArray] | BaseException:
    """Call the scorer. An error is returned, since it belongs to the callers, not to this thread."""
    try:
        rows = list(score(items))
        if len(rows) != len(items):
            raise RuntimeError(f"expected {len(items)} results of the inner scorer, got {len(rows)}")
    except BaseException as error:  # panics of tokenizers and onnxruntime are not subclasses of Exception
        return error
    return rows
