"""BatchingScorer: one thread scores the requests of many callers in batches that are shared fairly.

Path of a submission: `BatchingScorer.submit` -> `FairQueue` -> batch -> inner scorer -> `Submission.result`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, cast

from gliclass_rerank import Example, ModelInfo, Scorer, ScoreRequest
from gliclass_rerank.copies import Shared
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.independent.cache import PassageCache
from gliclass_rerank.scoring import embed, labels_share_pass
from gliclass_rerank.types import FloatArray
from gliclass_rerank.validation import check_number
from gliclass_rerank_service.queue.batch import Batch, EncodingScorer, run_batch
from gliclass_rerank_service.queue.errors import UNKNOWN_WAIT, ClosedError, OverloadedError
from gliclass_rerank_service.queue.fair_queue import FairQueue
from gliclass_rerank_service.queue.inference import Inference
from gliclass_rerank_service.queue.stats import BatchingStats
from gliclass_rerank_service.queue.submission import Prepared, Submission, estimate_tokens

logger = logging.getLogger("gliclass_rerank.service")
CLOSED = "the scorer was closed before it scored these requests; send them elsewhere"
DIED = "the thread that scores has ended after an error; restart the service"
IN_TIME = 0.5  # largest expected share of its deadline; a late submission wastes its computation


class BatchingScorer(Shared):
    """A `Scorer` that combines the requests of many callers into batches for another scorer.

    One thread calls the inner scorer. Callers share its batches in turns of equally many tokens, so that a small
    submission is answered after a batch or two, however large the others are. Cancelled and late requests are dropped
    before they are computed. If a batch fails, its submissions are scored one by one, and only those that fail alone
    get an error. A forked process starts with an empty queue and its own thread.

    Args:
        scorer: the inner scorer. Its scores must not depend on the other requests of a batch.
        queue_batch_tokens: budget of one call of ``scorer``. A request above it gets a call of its own. For local
            scorers use a few times their own batch budget, so that all their threads have work.
        max_queue_tokens: bound of waiting tokens. One submission counts for half of it at most, so that a large one
            leaves room for small ones. A submission above the bound is accepted only if nothing else waits. So at most
            twice the bound waits, or one such submission plus the bound.
        cost: tokens of a request for a scorer without tokenisation, at least 1. The unit of both bounds.
        on_batch: called after each batch with its number of requests, their tokens, and its seconds.
        clock: seconds, as `time.monotonic`, for the ages in `stats`.

    Raises:
        OptionError: a budget below 1.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        queue_batch_tokens: int = 16_384,
        max_queue_tokens: int = 131_072,
        cost: Callable[[ScoreRequest], int] = estimate_tokens,
        on_batch: Callable[[int, int, float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_number(queue_batch_tokens, "queue_batch_tokens", low=1)
        check_number(max_queue_tokens, "max_queue_tokens", low=1)
        self._scorer = scorer
        self._encoding = cast(EncodingScorer, scorer) if hasattr(type(scorer), "score_encoded") else None
        self._score_items = scorer.score if self._encoding is None else self._encoding.score_encoded
        self._cost = cost
        self._on_batch = on_batch
        self._clock = clock
        self._limits = queue_batch_tokens, max_queue_tokens
        self._closed = False
        self._begun = PerProcess(self._begin)
        self._begun.get()

    def _begin(self) -> None:
        """Start with an empty queue, once in each process."""
        self._queue = FairQueue(*self._limits)
        self._changed = threading.Condition()  # guards the queue, `_closed`, `_died` and the record of inference
        self._inference = Inference(
            self._changed, clock=self._clock, full_tokens=self._queue.turn, on_batch=self._on_batch
        )
        self._died = False
        self._worker = threading.Thread(target=self._work, name="gliclass-batching", daemon=True)
        self._worker.start()

    @property
    def info(self) -> ModelInfo:
        """Model information of the inner scorer."""
        return self._scorer.info

    @property
    def passage_cache(self) -> PassageCache[Any] | None:
        """Passage cache of the inner scorer; None if it has none in this process."""
        cache: PassageCache[Any] | None = getattr(self._scorer, "passage_cache", None)
        return cache

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """See `gliclass_rerank.scoring.embed`."""
        return embed(self, texts)

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """See `gliclass_rerank.scoring.labels_share_pass`."""
        return labels_share_pass(self._scorer, labels, examples)

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Score with the inner scorer, in order. Thread-safe.

        Raises:
            OverloadedError, ClosedError: not accepted, or not computed before the scorer was closed.
            Exception: any error of the inner scorer on these requests.
        """
        return self.submit(requests).result()

    def prepare(self, requests: Sequence[ScoreRequest]) -> Prepared:
        """Tokenise requests for `submit` and count their tokens, on the caller's thread.

        Tokens are estimated by ``cost`` for a remote scorer, which has no tokenisation here.

        Raises:
            InputError: a request that the scorer cannot encode.
        """
        if self._encoding is None:
            return Prepared(requests, [max(1, self._cost(request)) for request in requests])
        encoded = self._encoding.encode(requests)
        return Prepared(encoded, [max(1, one.tokens) for one in encoded])

    def submit(self, requests: Sequence[ScoreRequest] | Prepared, *, deadline: float | None = None) -> Submission:
        """Queue requests and return at once.

        Args:
            requests: requests to score; they may be divided over batches.
            deadline: seconds from now until the result is useless. After that nothing more is computed.

        Raises:
            OverloadedError: the queue is full, or the expected time of the result exceeds half of the deadline. Its
                ``retry_after`` estimates when there is room. An empty queue accepts everything.
            ClosedError: the scorer is closed.
            OptionError: a deadline that is not a finite number.
        """
        if deadline is not None:
            check_number(deadline, "deadline")
        self._begun.get()
        prepared = requests if isinstance(requests, Prepared) else self.prepare(requests)
        submission = Submission(prepared, deadline=deadline)
        with self._changed:
            self._check_open(prepared.tokens, deadline)
            if submission.items:
                self._queue.put(submission)
                self._changed.notify()
        if not submission.items:
            submission.add([])
        submission.add_done_callback(self._leave)
        return submission

    def stats(self) -> BatchingStats:
        """Return a consistent snapshot."""
        self._begun.get()
        with self._changed:
            now = self._inference
            return BatchingStats(
                queue_tokens=self._queue.tokens,
                queue_submissions=len(self._queue),
                batches=now.batches,
                requests=now.requests,
                tokens=now.tokens,
                tokens_per_second=now.pace.tokens_per_second,
                running_tokens=now.running_tokens,
                submissions=len({*self._queue.submissions(), *now.running}),
                running_abandoned=sum(submission.done() for submission in now.running),
                running_seconds=now.running_seconds,
                late=now.late,
                busy_seconds=now.busy_seconds,
                failures=now.failures,
                failing_seconds=now.failing_seconds,
                alive=self._closed or self._worker.is_alive(),
            )

    def watch(self, on_failure: Callable[[], None] | None) -> None:
        """Call ``on_failure`` on the scoring thread after each call in which the model failed. None ends it."""
        self._begun.get()
        self._inference.on_failure = on_failure

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Accept no more requests, finish the accepted ones, and stop the thread. May be called again.

        Args:
            drain: compute waiting requests. If False, only the running batch is finished, and waiting ones get
                `ClosedError`.
            timeout: seconds to wait. Requests still waiting then get `ClosedError`. The running batch cannot be
                stopped.

        Returns:
            Whether the thread has ended.
        """
        self._begun.get()
        with self._changed:
            self._closed = True
            self._changed.notify()
        if drain:
            self._worker.join(timeout)
        self._end_waiting(CLOSED)
        if not drain:
            self._worker.join(timeout)
        return not self._worker.is_alive()

    def abandon(self) -> None:
        """Close without waiting, and end all submissions with `ClosedError`, those of the running batch included.

        The running batch cannot be stopped. Its result is dropped.
        """
        self.close(drain=False, timeout=0)
        self._end_running(CLOSED)

    def __enter__(self) -> BatchingScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. After an error, waiting requests are not computed."""
        self.close(drain=error is None)

    def __reduce__(self) -> tuple[Any, ...]:
        batches, queue = self._limits
        make = partial(BatchingScorer, queue_batch_tokens=batches, max_queue_tokens=queue, cost=self._cost)
        return make, (self._scorer,)

    def _check_open(self, tokens: int, deadline: float | None) -> None:
        """Raise unless so many tokens can be accepted now, and probably answered in time."""
        if self._closed or self._died:
            raise ClosedError(DIED if self._died else "the scorer is closed; send the requests elsewhere")
        if not self._queue.fits(tokens):
            expected = self._inference.pace.seconds_for(self._queue.charged)
            wait = UNKNOWN_WAIT if expected is None else expected
            raise OverloadedError(f"queue full: {tokens} tokens do not fit; retry in {wait:.1f} s", wait)
        if deadline is None or not self._queue:
            return
        pace = self._inference.full_pace
        taken, allowed = pace.seconds_for(self._queue.ahead(tokens) + tokens), IN_TIME * deadline
        if taken is not None and taken > allowed:
            raise OverloadedError(
                f"queue too long: an answer would take {taken:.1f} s, the deadline is {deadline:g} s; "
                f"retry in {taken - allowed:.1f} s",
                taken - allowed,
            )

    def _leave(self, submission: Future[list[FloatArray]]) -> None:
        with self._changed:
            self._queue.remove(submission)

    def _work(self) -> None:
        """Score batches until the scorer is closed and the queue empty. After an error of ours, refuse the rest."""
        try:
            self._score_batches()
        except BaseException as error:
            logger.critical("the thread that scores has ended", exc_info=error)
            with self._changed:
                self._died = True
            self._end_waiting(DIED)
            self._end_running(DIED)

    def _score_batches(self) -> None:
        inference = self._inference
        while (batch := self._next_batch()) is not None:
            inference.since = self._clock()
            inference.running = batch
            run_batch(batch, self._score_items, on_success=inference.succeeded, on_failure=inference.failed)
            inference.running = {}
            del batch  # free texts and results before waiting for more

    def _end_waiting(self, message: str) -> None:
        with self._changed:
            left = self._queue.submissions()
        for submission in left:
            submission.end(ClosedError(message))

    def _end_running(self, message: str) -> None:
        with self._changed:
            running = list(self._inference.running)
        for submission in running:
            submission.end(ClosedError(message))

    def _next_batch(self) -> Batch | None:
        """Wait for work and take a batch. It is empty if all waiting submissions were late."""
        with self._changed:
            while not (self._queue.charged or self._closed):
                self._changed.wait()
            waiting = self._queue.submissions()
        for submission in waiting:
            submission.is_alive()  # without the lock, because its callbacks may call this scorer
        with self._changed:
            return self._queue.take() if waiting else None
