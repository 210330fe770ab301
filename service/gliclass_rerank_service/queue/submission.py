"""Submissions: requests of one caller in the queue, and the future of their logits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError  # a class of its own before Python 3.11
from contextlib import suppress
from dataclasses import dataclass

from gliclass_rerank import ScoreRequest
from gliclass_rerank.models.encoding import EncodedRequest
from gliclass_rerank.types import FloatArray
from gliclass_rerank_service.queue.errors import DeadlineExceededError, SubmissionCancelledError


def estimate_tokens(request: ScoreRequest) -> int:
    """Estimated tokens of a request: a quarter of its UTF-8 bytes, plus a marker for each label, at least 1.

    Bytes instead of characters, because scripts other than Latin have more tokens per character. Labels that are read
    again with each window of a long text are counted once.
    """
    texts = [request.text, request.prompt, *request.labels]
    for example in request.examples:
        texts += [example.text, *example.labels]
    return math.ceil(sum(len(text.encode()) for text in texts) / 4) + len(request.labels)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Requests that are ready to be queued.

    Attributes:
        items: one per request, tokenised if the scorer supports that.
        costs: tokens of each, at least 1. Estimated for a scorer without tokenisation.
    """

    items: Sequence[ScoreRequest] | Sequence[EncodedRequest]
    costs: Sequence[int]

    @property
    def tokens(self) -> int:
        """Total tokens."""
        return sum(self.costs)


class Submission(Future[list[FloatArray]]):
    """A future of one array per request, created by `BatchingScorer.submit`.

    Await it on an event loop with `asyncio.wrap_future`, whose cancellation cancels it too. The deadline is then
    checked only by the worker, between batches. Callbacks may run on the worker's thread and block it.

    Attributes:
        items: the requests, in order; see `Prepared`.
        costs: tokens of each.
        inference_seconds: time of the inner scorer for the batches with a part of it, which are shared with others.
    """

    def __init__(self, prepared: Prepared, *, deadline: float | None) -> None:
        super().__init__()
        self.items = prepared.items
        self.costs = prepared.costs
        self.inference_seconds = 0.0
        self._rows: list[FloatArray] = []
        self._submitted = time.monotonic()
        self._ended: float | None = None
        self._deadline = math.inf if deadline is None else deadline

    @property
    def queue_seconds(self) -> float:
        """Time spent waiting before its first batch and between its batches."""
        ended = time.monotonic() if self._ended is None else self._ended
        return max(0.0, ended - self._submitted - self.inference_seconds)

    def result(self, timeout: float | None = None) -> list[FloatArray]:
        """Wait for the arrays, at most until the deadline. After the deadline nothing more is computed.

        Args:
            timeout: seconds to wait, if less than the time to the deadline. The submission continues after a timeout.

        Raises:
            DeadlineExceededError, SubmissionCancelledError, ClosedError: it ended without a result.
            concurrent.futures.TimeoutError: ``timeout`` has passed before the deadline.
            Exception: any error of the inner scorer on these requests.
        """
        if self.done():
            return super().result()
        left = self._seconds_left()
        if timeout is not None and timeout < left:
            return super().result(timeout)
        with suppress(FutureTimeoutError):
            self.exception(min(max(0.0, left), threading.TIMEOUT_MAX))
        self._expire()
        return super().result()

    def cancel(self) -> bool:
        """End it with `SubmissionCancelledError`, unless it has ended. Remaining requests are not computed.

        Returns:
            Whether this call ended it.
        """
        return self.end(SubmissionCancelledError("cancelled by its caller"))

    def is_alive(self) -> bool:
        """Whether it has not ended. Ends it if its deadline has passed."""
        if self._seconds_left() <= 0:
            self._expire()
        return not self.done()

    def _seconds_left(self) -> float:
        return self._submitted + self._deadline - time.monotonic()

    def _expire(self) -> None:
        self.end(DeadlineExceededError(f"no answer within {self._deadline:g} s; send less at a time"))

    def add(self, rows: Sequence[FloatArray]) -> None:
        """Append the arrays of the next requests. The last ones end it."""
        self._rows += rows
        if len(self._rows) == len(self.items):
            self.end(self._rows)

    def end(self, outcome: list[FloatArray] | BaseException) -> bool:
        """Set the result or error, once. Returns False without effect if it has ended. Call it without a lock."""
        if self.done():
            return False
        self._ended = time.monotonic()
        try:
            if isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)
        except InvalidStateError:  # another thread was faster
            return False
        return True
