"""Inference: what the model computes now, and how its calls ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from gliclass_rerank import InputError
from gliclass_rerank_service.queue.batch import Batch
from gliclass_rerank_service.queue.stats import Pace

LATE_SECONDS = 4.0  # a batch that runs longer than this,
LATE_FACTOR = 8  # and so many times as long as its tokens usually take, is late


class Inference:
    """A record of the model's calls, written by the thread that makes them.

    Args:
        lock: guards the record, and is held by its readers.
        clock: seconds, as `time.monotonic`.
        full_tokens: tokens from which the pace of a batch counts in ``full_pace``.
        on_batch: called after each successful call with its number of requests, their tokens, and its seconds.

    Attributes:
        running: what is left of the batch that is computed; empty between two. The thread sets it, with ``since``.
        since: when the present call of the model began.
        batches, requests, tokens: sums over successful calls.
        failures: calls in which the model failed. Calls that refuse an input do not count.
        failing_since: time of the first failure since the last success; None if there is none.
        pace: throughput of all batches.
        full_pace: throughput of large batches; a small one takes far longer per token.
        on_failure: called after each failure, without the lock.
    """

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        *,
        clock: Callable[[], float],
        full_tokens: int,
        on_batch: Callable[[int, int, float], None] | None,
    ) -> None:
        self._lock = lock
        self.clock = clock
        self._full_tokens = full_tokens
        self._on_batch = on_batch
        self.on_failure: Callable[[], None] | None = None
        self.running: Batch = {}
        self.since = 0.0
        self.batches = self.requests = self.tokens = self.failures = 0
        self.failing_since: float | None = None
        self.pace, self.full_pace = Pace(), Pace()
        self._ended_seconds = 0.0

    def succeeded(self, batch: Batch, seconds: float) -> None:
        """Note a successful call of the model. ``seconds`` is its duration."""
        requests = sum(map(len, batch.values()))
        tokens = sum([submission.costs[i] for submission, part in batch.items() for i in part])
        if self._on_batch is not None:
            self._on_batch(requests, tokens, seconds)
        with self._lock:
            now = self.clock()
            self._ended_seconds += now - self.since
            self.since = now
            for submission in batch:
                self.running.pop(submission, None)
            self.batches += 1
            self.requests += requests
            self.tokens += tokens
            self.failing_since = None
            self.pace.add(tokens, seconds)
            if tokens >= self._full_tokens:
                self.full_pace.add(tokens, seconds)

    def failed(self, batch: Batch, error: BaseException) -> None:
        """Note a call of the model that raised. An `InputError` is its caller's, any other error the model's."""
        with self._lock:
            now = self.clock()
            self._ended_seconds += now - self.since
            self.since = now
            if len(batch) == 1:  # the submissions of a larger one are scored again
                self.running.pop(next(iter(batch)), None)
            if isinstance(error, InputError):
                return
            self.failures += 1
            if self.failing_since is None:
                self.failing_since = now
        if self.on_failure is not None:
            self.on_failure()

    @property
    def running_seconds(self) -> float:
        """Age of the present call. 0 between two batches."""
        return self.clock() - self.since if self.running else 0.0

    @property
    def busy_seconds(self) -> float:
        """Time of all calls, successful or not, and of the present one until now."""
        return self._ended_seconds + self.running_seconds

    @property
    def failing_seconds(self) -> float:
        """Time since the first failure after the last success. 0 if there is none."""
        return 0.0 if self.failing_since is None else self.clock() - self.failing_since

    @property
    def running_tokens(self) -> int:
        """Tokens that are computed."""
        return sum(submission.costs[i] for submission, part in self.running.items() for i in part)

    @property
    def late(self) -> bool:
        """Whether the present call takes far longer than others did for as many tokens."""
        usual = self.pace.seconds_for(self.running_tokens) or 0.0
        return self.running_seconds > max(LATE_SECONDS, LATE_FACTOR * usual)
