"""Batching across callers: many threads ask, one worker scores in batches that are shared fairly.

    GLiClassRerankError
    ├── OverloadedError                                 the queue is too full; says when to come again
    ├── DeadlineExceededError (TimeoutError)            no answer in the time that the caller gave
    ├── SubmissionCancelledError                        cancelled before it was answered
    └── ClosedError                                     the scorer is shut down

A submission walks one way: `BatchingScorer.submit` -> queue -> batch -> inner scorer -> `Submission.result`.
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

TURNS_PER_BATCH = 4  # callers that meet in a batch, at least, if so many wait; an ordinary request fits in one turn
MEMORY = 0.9  # weight of the past, a batch, in the mean throughput
UNKNOWN_WAIT = 1.0  # seconds; said before any throughput has been measured
IN_TIME = 0.5  # share of its deadline that a submission may be expected to take; what is late costs twice


class OverloadedError(GLiClassRerankError):
    """The queue is too full. ``retry_after`` is the estimated time until there is room, in seconds."""

    def __init__(self, message: str, retry_after: float = UNKNOWN_WAIT) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceededError(GLiClassRerankError, TimeoutError):
    """There was no answer in the time that the caller gave."""


class SubmissionCancelledError(GLiClassRerankError):
    """The submission was cancelled before it was answered."""


class ClosedError(GLiClassRerankError):
    """The scorer is shut down, or was before it came to this submission."""


def estimate_tokens(request: ScoreRequest) -> int:
    """Tokens that a request costs, about: a quarter of its UTF-8 bytes, and a marker for each label; at least 1.

    Bytes and not characters, because scripts other than Latin get more tokens a character. Labels that are read again
    with each window of a long text are counted once.
    """
    texts = [request.text, request.prompt, *request.labels]
    for example in request.examples:
        texts += [example.text, *example.labels]
    return math.ceil(sum(len(text.encode()) for text in texts) / 4) + len(request.labels)


class EncodingScorer(Scorer, Protocol):
    """A `Scorer` whose requests can be tokenised before they are scored, as all scorers that hold a model can."""

    def encode(self, requests: Sequence[ScoreRequest]) -> Sequence[EncodedRequest]:
        """Tokenise requests; raises `InputError` for those that cannot be."""
        ...

    def score_encoded(self, encoded: Sequence[EncodedRequest]) -> Sequence[FloatArray]:
        """Logits of encoded requests, as of `Scorer.score`."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """Requests that are ready to be queued.

    Attributes:
        items: a request each, tokenised where the scorer can do that apart.
        costs: tokens of each, at least 1; estimated where the scorer does not tokenise here.
    """

    items: Sequence[ScoreRequest] | Sequence[EncodedRequest]
    costs: Sequence[int]

    @property
    def tokens(self) -> int:
        """Tokens of all."""
        return sum(self.costs)


class Submission(Future[list[FloatArray]]):
    """What one caller waits for: a future of one array a request. `BatchingScorer.submit` makes it.

    An event loop awaits it by `asyncio.wrap_future`, whose cancellation cancels it too. Nobody watches the deadline
    then but the worker, between batches. Callbacks may run on the worker's thread, which waits for them.

    Attributes:
        items: what is to be scored, in order; see `Prepared`.
        costs: tokens of each.
        inference_seconds: time that the inner scorer took for the batches with a part of it, which others share.
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
        """Time that it has waited: before its first batch, and between its batches."""
        ended = time.monotonic() if self._ended is None else self._ended
        return max(0.0, ended - self._submitted - self.inference_seconds)

    def result(self, timeout: float | None = None) -> list[FloatArray]:
        """Wait for the arrays, at most until the deadline; what is not computed by then never will be.

        Args:
            timeout: seconds to wait, where that is less than what the deadline leaves. It ends the waiting only.

        Raises:
            DeadlineExceededError, SubmissionCancelledError, ClosedError: it ended without a result.
            concurrent.futures.TimeoutError: ``timeout`` is over, and the deadline is not.
            Exception: whatever the inner scorer raised on these requests.
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
        """End it with `SubmissionCancelledError`, unless it has ended: what is not computed yet never will be.

        Returns:
            Whether this call ended it.
        """
        return self._end(SubmissionCancelledError("cancelled by its caller; submit it again if it is wanted after all"))

    def _alive(self) -> bool:
        """Whether somebody still waits for it; ends it if its deadline is over."""
        if self._seconds_left() <= 0:
            self._expire()
        return not self.done()

    def _seconds_left(self) -> float:
        return self._submitted + self._deadline - time.monotonic()

    def _expire(self) -> None:
        self._end(DeadlineExceededError(f"expected an answer within {self._deadline:g} s, and there is none yet"))

    def _add(self, rows: Sequence[FloatArray]) -> None:
        """Take the arrays of the next requests; the last ones end it."""
        self._rows += rows
        if len(self._rows) == len(self.items):
            self._end(self._rows)

    def _end(self, outcome: list[FloatArray] | BaseException) -> bool:
        """Answer the caller, once: returns False, and changes nothing, if that has happened. Hold no lock."""
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
"""Which requests of each submission, by their position in it, are scored in one call."""


@dataclass(slots=True)
class _Place:
    """A submission in the queue: how much of it is taken, and how many tokens it may take before its turn is over."""

    submission: Submission
    waiting: int  # tokens
    credit: int  # tokens
    taken: int = 0  # requests


class _FairQueue:
    """Submissions in a ring, served in turns of equally many tokens. Its owner holds a lock.

    Who stands in front spends credit on its next requests; when that is used up, it goes to the back with the credit of
    one more turn. A request dearer than the credit is served, and the debt is worked off in later turns. So over any
    time in which two submissions wait, the tokens served to them differ by at most one turn and, for each of the two,
    one token less than its dearest request.
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
        """Whether there is room; for more than the whole queue may hold, there is if nothing waits."""
        if tokens > self._max_queue_tokens:
            return not self._ring
        return self.charged + self._charge(tokens) <= self._max_queue_tokens

    def ahead(self, tokens: int) -> int:
        """Tokens that are served before the last of so many that come now: a turn of each other one for each of theirs.

        As if no other one ended: where there is a queue, there is somebody to take its place.
        """
        return math.ceil(tokens / self.turn) * sum(min(place.waiting, self.turn) for place in self._ring.values())

    def put(self, submission: Submission) -> None:
        tokens = sum(submission.costs)
        self._ring[submission] = _Place(submission, waiting=tokens, credit=self.turn)
        self.charged += self._charge(tokens)

    def remove(self, submission: Future[list[FloatArray]]) -> None:
        """Forget a submission, if it is still here."""
        if place := self._ring.pop(submission, None):
            self.charged -= self._charge(place.waiting)

    def take(self) -> Batch:
        """Take the next batch: never above the budget, unless one request alone is."""
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
        """Book requests that are taken; returns their tokens."""
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
        """What a submission counts for in the bound: half of it at most, as small ones need not wait for the rest."""
        return min(tokens, math.ceil(self._max_queue_tokens / 2))


@dataclass(frozen=True, slots=True)
class BatchingStats:
    """What a `BatchingScorer` has done and has still to do.

    Attributes:
        queue_tokens: estimated tokens that wait; those being computed are not among them.
        queue_submissions: submissions of which something waits.
        batches: calls of the inner scorer that succeeded.
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
    """A `Scorer` over any scorer that puts the requests of many callers into common batches.

    One thread calls the inner scorer. Callers share its batches in turns of equally many tokens, so that a small
    submission is answered after a batch or two, however large the others are. What is cancelled or late is dropped
    before it is computed. If a batch fails, its submissions are scored one by one, and only those that fail alone get
    an error. A forked process begins with an empty queue and a thread of its own.

    Args:
        scorer: what computes; its scores must not depend on what else is in a batch.
        queue_batch_tokens: budget of one call of ``scorer``. A request above it gets a call of its own. For local
            scorers a few times their own batch budget, so that all their threads have work.
        max_queue_tokens: how much may wait. One submission counts for half of it at most, so that a large one leaves
            room for small ones. A submission above the bound is accepted while nothing else waits, else refused. So
            no more than twice the bound waits, or one such submission and as much as the bound.
        cost: tokens that a request costs where ``scorer`` does not tokenise here, the unit of both bounds; at least 1.
        on_batch: told of each batch: its requests, their tokens, and the seconds that it took.

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
        self._changed = threading.Condition()  # guards all that follows, the queue and whether it is closed
        self._batches = self._requests = self._tokens = 0
        self._recent_tokens = self._recent_seconds = 0.0
        self._busy_tokens = self._busy_seconds = 0.0  # the same of batches of a turn at least
        self._worker = threading.Thread(target=self._work, name="gliclass-batching", daemon=True)
        self._worker.start()

    @property
    def info(self) -> ModelInfo:
        """What the inner scorer says of itself."""
        return self._scorer.info

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """See `gliclass_rerank.scoring.labels_share_pass`."""
        return labels_share_pass(self._scorer, labels, examples)

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Return what the inner scorer returns for these requests, in order. Safe to call from many threads.

        Raises:
            OverloadedError, ClosedError: they were not accepted, or not computed before the scorer was closed.
            Exception: whatever the inner scorer raises on these requests.
        """
        return self.submit(requests).result()

    def prepare(self, requests: Sequence[ScoreRequest]) -> Prepared:
        """Tokenise requests for `submit` and count their tokens, on the caller's thread.

        Where the scorer cannot be asked for that, because it is elsewhere, tokens are estimated by ``cost``.

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
            requests: what to score; they may be divided over batches.
            deadline: seconds from now in which the answer is worth something. What is not computed by then never
                will be.

        Raises:
            OverloadedError: the queue is full, or half of the deadline would probably pass before the last of them is
                answered; its ``retry_after`` says when there should be room. In an empty queue all is accepted.
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
        """Accept nothing more, end what was accepted, and stop the thread. May be called again.

        Args:
            drain: compute what waits; otherwise only the batch in work is finished, and what waits gets `ClosedError`.
            timeout: seconds to wait; what still waits then gets `ClosedError`. The batch in work cannot be stopped.

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
        """Close; after an error without computing what waits."""
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
            raise OverloadedError(
                f"expected room for {tokens} tokens, and the queue is full; retry in {wait:.1f} s", wait
            )
        if deadline is None or not self._busy_tokens or not self._queue:
            return
        # A small batch, as that of a warm-up, takes far longer for each token, and tells nothing of a full one.
        pace = self._busy_seconds / self._busy_tokens
        taken, allowed = pace * (self._queue.ahead(tokens) + tokens), IN_TIME * deadline
        if taken > allowed:
            raise OverloadedError(
                f"expected an answer within {deadline:g} s, and with what waits it takes {taken:.1f} s; "
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
            del batch  # texts and results are not kept until there is more to do

    def _next_batch(self) -> Batch | None:
        """Wait for work and take a batch; it is empty if all that waited was late."""
        with self._changed:
            while not (self._queue.charged or self._closed):
                self._changed.wait()
            waiting = self._queue.submissions()
        for submission in waiting:
            submission._alive()  # without the lock, because whoever is told now may call back
        with self._changed:
            return self._queue.take() if waiting else None

    def _run(self, batch: Batch) -> None:
        """Score a batch and hand out its rows; if it fails, score the parts of its submissions one by one."""
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
        """Call the inner scorer; its error is returned, since it is for the callers and not for this thread."""
        score = self._scorer.score if self._encoding is None else self._encoding.score_encoded
        try:
            rows = list(score(items))
            if len(rows) != len(items):
                raise RuntimeError(f"expected {len(items)} results of the inner scorer, got {len(rows)}")
        except BaseException as error:  # tokenizers and onnxruntime panic with what is no Exception
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
