"""Batching across callers: one worker scores the requests of many threads in batches that are shared fairly.

    GLiClassRerankError
    ├── OverloadedError                                 the queue is full; has the time until a retry
    ├── DeadlineExceededError (TimeoutError)            no result before the caller's deadline
    ├── SubmissionCancelledError                        cancelled before it had a result
    └── ClosedError                                     the scorer is shut down

Path of a submission: `BatchingScorer.submit` -> queue -> batch -> inner scorer -> `Submission.result`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError  # a class of its own before Python 3.11
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, cast

from gliclass_rerank import Example, GLiClassRerankError, ModelInfo, Scorer, ScoreRequest
from gliclass_rerank.copies import Shared
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.models.encoding import EncodedRequest
from gliclass_rerank.scoring import labels_share_pass
from gliclass_rerank.types import FloatArray
from gliclass_rerank.validation import check_number

TURNS_PER_BATCH = 4  # least number of callers in a batch, if so many wait; an ordinary request fits in one turn
MEMORY = 0.9  # decay of the mean throughput per batch
UNKNOWN_WAIT = 1.0  # seconds until a retry, before any throughput has been measured
IN_TIME = 0.5  # largest expected share of its deadline; a late submission wastes its computation


class OverloadedError(GLiClassRerankError):
    """The queue is full. ``retry_after`` is the estimated time until there is room, in seconds."""

    def __init__(self, message: str, retry_after: float = UNKNOWN_WAIT) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceededError(GLiClassRerankError, TimeoutError):
    """No result before the caller's deadline."""


class SubmissionCancelledError(GLiClassRerankError):
    """The submission was cancelled before it had a result."""


class ClosedError(GLiClassRerankError):
    """The scorer is shut down, or was shut down before it computed this submission."""


def estimate_tokens(request: ScoreRequest) -> int:
    """Estimated tokens of a request: a quarter of its UTF-8 bytes, plus a marker for each label, at least 1.

    Bytes instead of characters, because scripts other than Latin have more tokens per character. Labels that are read
    again with each window of a long text are counted once.
    """
    texts = [request.text, request.prompt, *request.labels]
    for example in request.examples:
        texts += [example.text, *example.labels]
    return math.ceil(sum(len(text.encode()) for text in texts) / 4) + len(request.labels)


class EncodingScorer(Scorer, Protocol):
    """A `Scorer` whose requests can be tokenised before scoring, as those of all scorers that hold a model."""

    def encode(self, requests: Sequence[ScoreRequest]) -> Sequence[EncodedRequest]:
        """Tokenise requests. Raises `InputError` for those that cannot be tokenised."""
        ...

    def score_encoded(self, encoded: Sequence[EncodedRequest]) -> Sequence[FloatArray]:
        """Logits of encoded requests, as of `Scorer.score`."""
        ...


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
        return self._end(SubmissionCancelledError("cancelled by its caller; submit it again if it is wanted after all"))

    def _alive(self) -> bool:
        """Whether it has not ended. Ends it if its deadline has passed."""
        if self._seconds_left() <= 0:
            self._expire()
        return not self.done()

    def _seconds_left(self) -> float:
        return self._submitted + self._deadline - time.monotonic()

    def _expire(self) -> None:
        self._end(DeadlineExceededError(f"no answer within {self._deadline:g} s; send less at a time"))

    def _add(self, rows: Sequence[FloatArray]) -> None:
        """Append the arrays of the next requests. The last ones end it."""
        self._rows += rows
        if len(self._rows) == len(self.items):
            self._end(self._rows)

    def _end(self, outcome: list[FloatArray] | BaseException) -> bool:
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


Batch = dict[Submission, list[int]]
"""Requests scored in one call: their positions in each submission."""


@dataclass(slots=True)
class _Place:
    """A submission in the queue, with its taken requests and the tokens left in its turn."""

    submission: Submission
    waiting: int  # tokens
    credit: int  # tokens
    taken: int = 0  # requests


class _FairQueue:
    """Submissions in a ring, served in turns of equally many tokens. The owner must hold a lock.

    The first submission spends credit on its next requests. When its credit is used up, it moves to the back with the
    credit of one more turn. A request that costs more than the credit is served, and the debt is paid in later turns.
    So over any time in which two submissions wait, the tokens served to them differ by at most one turn and, for each
    of the two, one token less than its most expensive request.
    """

    def __init__(self, queue_batch_tokens: int, max_queue_tokens: int) -> None:
        self._batch_tokens = queue_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self.turn = math.ceil(queue_batch_tokens / TURNS_PER_BATCH)
        self._ring: OrderedDict[Future[list[FloatArray]], _Place] = OrderedDict()
        self.charged = 0

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def tokens(self) -> int:
        return sum(place.waiting for place in self._ring.values())

    def submissions(self) -> list[Submission]:
        return [place.submission for place in self._ring.values()]

    def fits(self, tokens: int) -> bool:
        """Whether there is room. A submission above the bound of the queue fits only if the queue is empty."""
        if tokens > self._max_queue_tokens:
            return not self._ring
        return self.charged + self._charge(tokens) <= self._max_queue_tokens

    def ahead(self, tokens: int) -> int:
        """Estimated tokens served before a new submission of ``tokens`` completes.

        One turn of every other submission per turn of its own, assuming that other submissions keep the queue full.
        """
        return math.ceil(tokens / self.turn) * sum(min(place.waiting, self.turn) for place in self._ring.values())

    def put(self, submission: Submission) -> None:
        tokens = sum(submission.costs)
        self._ring[submission] = _Place(submission, waiting=tokens, credit=self.turn)
        self.charged += self._charge(tokens)

    def remove(self, submission: Future[list[FloatArray]]) -> None:
        """Remove a submission, if it is still queued."""
        if place := self._ring.pop(submission, None):
            self.charged -= self._charge(place.waiting)

    def take(self) -> Batch:
        """Take the next batch. It exceeds the budget only if it is a single request."""
        batch: Batch = {}
        room = self._batch_tokens
        while self._ring:
            place = next(iter(self._ring.values()))
            if place.credit <= 0:
                place.credit += self.turn
                self._ring.move_to_end(place.submission)
                continue
            taken = self._affordable(place, room, is_first=not batch)
            if not taken:
                break
            batch.setdefault(place.submission, []).extend(taken)
            room -= self._pay(place, taken)
        return batch

    def _affordable(self, place: _Place, room: int, *, is_first: bool) -> range:
        """The next requests of a submission that its credit and the batch's room allow.

        The last one may overdraw the credit, and the first one of a batch may exceed the room.
        """
        costs, end, credit = place.submission.costs, place.taken, place.credit
        while end < len(costs) and credit > 0 and (costs[end] <= room or (is_first and end == place.taken)):
            room -= costs[end]
            credit -= costs[end]
            end += 1
        return range(place.taken, end)

    def _pay(self, place: _Place, taken: range) -> int:
        """Account for taken requests and return their tokens."""
        cost = sum(place.submission.costs[taken.start : taken.stop])
        before = self._charge(place.waiting)
        place.taken = taken.stop
        place.credit -= cost
        place.waiting -= cost
        self.charged += self._charge(place.waiting) - before
        if place.taken == len(place.submission.costs):
            del self._ring[place.submission]
        return cost

    def _charge(self, tokens: int) -> int:
        """Tokens counted towards the bound: at most half of it, so that a large submission leaves room for others."""
        return min(tokens, math.ceil(self._max_queue_tokens / 2))


@dataclass(frozen=True, slots=True)
class BatchingStats:
    """Counters of a `BatchingScorer`.

    Attributes:
        queue_tokens: estimated tokens that wait, without those being computed.
        queue_submissions: submissions with waiting requests.
        batches: successful calls of the inner scorer.
        requests: requests that it scored.
        tokens: estimated tokens that it scored.
        tokens_per_second: mean throughput while it computes, mostly of the last ten batches; None before the first.
    """

    queue_tokens: int
    queue_submissions: int
    batches: int
    requests: int
    tokens: int
    tokens_per_second: float | None


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
    ) -> None:
        check_number(queue_batch_tokens, "queue_batch_tokens", low=1)
        check_number(max_queue_tokens, "max_queue_tokens", low=1)
        self._scorer = scorer
        self._encoding = cast(EncodingScorer, scorer) if hasattr(type(scorer), "score_encoded") else None
        self._cost = cost
        self._on_batch = on_batch
        self._limits = queue_batch_tokens, max_queue_tokens
        self._closed = False
        self._begun = PerProcess(self._begin)
        self._begun.get()

    def _begin(self) -> None:
        """Start with an empty queue, once in each process."""
        self._queue = _FairQueue(*self._limits)
        self._changed = threading.Condition()  # guards the queue, `_closed` and the fields below
        self._batches = self._requests = self._tokens = 0
        self._recent_tokens = self._recent_seconds = 0.0
        self._busy_tokens = self._busy_seconds = 0.0  # the same for batches of at least one turn
        self._worker = threading.Thread(target=self._work, name="gliclass-batching", daemon=True)
        self._worker.start()

    @property
    def info(self) -> ModelInfo:
        """Model information of the inner scorer."""
        return self._scorer.info

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
            submission._add([])
        submission.add_done_callback(self._leave)
        return submission

    def stats(self) -> BatchingStats:
        """Return a consistent snapshot."""
        self._begun.get()
        with self._changed:
            return BatchingStats(
                queue_tokens=self._queue.tokens,
                queue_submissions=len(self._queue),
                batches=self._batches,
                requests=self._requests,
                tokens=self._tokens,
                tokens_per_second=self._recent_tokens / self._recent_seconds if self._batches else None,
            )

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
        with self._changed:
            left = self._queue.submissions()
        for submission in left:
            submission._end(ClosedError("the scorer was closed before it came to these requests; send them elsewhere"))
        if not drain:
            self._worker.join(timeout)
        return not self._worker.is_alive()

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
        if self._closed:
            raise ClosedError("the scorer is closed and accepts nothing more; send the requests elsewhere")
        if not self._queue.fits(tokens):
            charged = self._queue.charged
            wait = charged * self._recent_seconds / self._recent_tokens if self._batches else UNKNOWN_WAIT
            raise OverloadedError(f"queue full: {tokens} tokens do not fit; retry in {wait:.1f} s", wait)
        if deadline is None or not self._busy_tokens or not self._queue:
            return
        # Use only large batches: a small one, like the warm-up, takes far longer per token.
        pace = self._busy_seconds / self._busy_tokens
        taken, allowed = pace * (self._queue.ahead(tokens) + tokens), IN_TIME * deadline
        if taken > allowed:
            raise OverloadedError(
                f"queue too long: an answer would take {taken:.1f} s, the deadline is {deadline:g} s; "
                f"retry in {taken - allowed:.1f} s",
                taken - allowed,
            )

    def _leave(self, submission: Future[list[FloatArray]]) -> None:
        with self._changed:
            self._queue.remove(submission)

    def _work(self) -> None:
        """Score batches until the scorer is closed and the queue empty."""
        while (batch := self._next_batch()) is not None:
            self._run(batch)
            del batch  # free texts and results before waiting for more

    def _next_batch(self) -> Batch | None:
        """Wait for work and take a batch. It is empty if all waiting submissions were late."""
        with self._changed:
            while not (self._queue.charged or self._closed):
                self._changed.wait()
            waiting = self._queue.submissions()
        for submission in waiting:
            submission._alive()  # without the lock, because its callbacks may call this scorer
        with self._changed:
            return self._queue.take() if waiting else None

    def _run(self, batch: Batch) -> None:
        """Score a batch and distribute its rows. If it fails, score its submissions one by one."""
        batch = {submission: part for submission, part in batch.items() if submission._alive()}
        if not batch:
            return
        started = time.monotonic()
        outcome = self._attempt([submission.items[i] for submission, part in batch.items() for i in part])
        seconds = time.monotonic() - started
        for submission in batch:
            submission.inference_seconds += seconds
        if not isinstance(outcome, BaseException):
            self._count(batch, seconds)
            rows = iter(outcome)
            for submission, part in batch.items():
                submission._add([next(rows) for _ in part])
        elif len(batch) == 1:
            next(iter(batch))._end(outcome)
        else:
            for submission, part in batch.items():
                self._run({submission: part})

    def _attempt(self, items: list[Any]) -> list[FloatArray] | BaseException:
        """Call the inner scorer. An error is returned, since it belongs to the callers, not to this thread."""
        score = self._scorer.score if self._encoding is None else self._encoding.score_encoded
        try:
            rows = list(score(items))
            if len(rows) != len(items):
                raise RuntimeError(f"expected {len(items)} results of the inner scorer, got {len(rows)}")
        except BaseException as error:  # panics of tokenizers and onnxruntime are not subclasses of Exception
            return error
        return rows

    def _count(self, batch: Batch, seconds: float) -> None:
        requests = sum(map(len, batch.values()))
        tokens = sum([submission.costs[i] for submission, part in batch.items() for i in part])
        if self._on_batch is not None:
            self._on_batch(requests, tokens, seconds)
        with self._changed:
            self._batches += 1
            self._requests += requests
            self._tokens += tokens
            self._recent_tokens = MEMORY * self._recent_tokens + tokens
            self._recent_seconds = MEMORY * self._recent_seconds + max(seconds, 1e-6)
            if tokens >= self._queue.turn:
                self._busy_tokens = MEMORY * self._busy_tokens + tokens
                self._busy_seconds = MEMORY * self._busy_seconds + max(seconds, 1e-6)
