"""FairQueue: submissions that wait, and the division of their requests into batches."""

from __future__ import annotations

import math
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

from gliclass_rerank.types import FloatArray
from gliclass_rerank_service.queue.batch import Batch
from gliclass_rerank_service.queue.submission import Submission

TURNS_PER_BATCH = 4  # least number of callers in a batch, if so many wait; an ordinary request fits in one turn


@dataclass(slots=True)
class _Place:
    """A submission in the queue, with its taken requests and the tokens left in its turn."""

    submission: Submission
    waiting: int  # tokens
    credit: int  # tokens
    taken: int = 0  # requests


class FairQueue:
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
