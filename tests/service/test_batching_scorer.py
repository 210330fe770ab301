"""Laws of batching across callers: the same answers, shared batches, and every way in which a submission may end."""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from functools import partial
from itertools import combinations, count

import numpy as np
import pytest
from fakes import INFO, OverlapScorer
from gliclass_rerank_service import (
    BatchingScorer,
    ClosedError,
    DeadlineExceededError,
    OverloadedError,
    SubmissionCancelledError,
    estimate_tokens,
)
from gliclass_rerank_service.queue.fair_queue import TURNS_PER_BATCH, FairQueue
from gliclass_rerank_service.queue.submission import Prepared, Submission
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gliclass_rerank import (
    Example,
    GLiClassRerankError,
    InvalidTextError,
    Logits,
    OptionError,
    Reranker,
    Scorer,
    ScoreRequest,
)
from gliclass_rerank.types import FloatArray

PATIENCE = 30.0  # seconds until a test says that something hangs
WORDS = ("bread", "rises", "slowly", "the", "sea", "is", "salt")

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
requests = st.builds(ScoreRequest, texts, st.lists(texts, min_size=1, max_size=3).map(tuple))
submissions = st.lists(st.lists(requests, max_size=8), min_size=1, max_size=8)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=30)


class HeldScorer:
    """Scores as its inner scorer does, but not before it is let go.

    Attributes:
        batches: the texts of each call, noted when it begins.
    """

    info = INFO

    def __init__(self, inner: Scorer | None = None) -> None:
        self._inner = inner or OverlapScorer()
        self._gate = threading.Event()
        self._entered = threading.Event()
        self.batches: list[list[str]] = []

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        self.batches.append([request.text for request in requests])
        self._entered.set()
        assert self._gate.wait(PATIENCE)
        return self._inner.score(requests)

    def wait_until_busy(self) -> None:
        assert self._entered.wait(PATIENCE)

    def let_go(self) -> None:
        self._gate.set()


class SteppedScorer:
    """Ends a call only when the test says so, one at a time.

    Attributes:
        batches: the texts of each call, noted when it begins.
    """

    info = INFO

    def __init__(self, inner: Scorer | None = None) -> None:
        self._inner = inner or OverlapScorer()
        self._begun, self._steps = threading.Semaphore(0), threading.Semaphore(0)
        self.batches: list[list[str]] = []

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        self.batches.append([request.text for request in requests])
        self._begun.release()
        assert self._steps.acquire(timeout=PATIENCE)
        return self._inner.score(requests)

    def wait_for_a_call(self) -> None:
        assert self._begun.acquire(timeout=PATIENCE)

    def step(self, count: int = 1) -> None:
        self._steps.release(count)


class PanicError(BaseException):
    """As extensions written in Rust raise it: no Exception."""


ERRORS: dict[str, BaseException] = {
    "malformed": InvalidTextError("text 'malformed': nothing is left of it"),
    "crash": RuntimeError("out of memory"),
    "panic": PanicError("called unwrap on None"),
}


class FragileScorer(OverlapScorer):
    """Fails the whole call for a text that is one of these words; "forget" loses a result."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        for request in requests:
            if request.text in ERRORS:
                raise ERRORS[request.text]
        return super().score([request for request in requests if request.text != "forget"])


def words(request: ScoreRequest) -> int:
    """A cost that tests can count by eye."""
    return len(request.text.split())


def asking(*texts: str) -> list[ScoreRequest]:
    return [ScoreRequest(text, ("the sea is salt",)) for text in texts]


def of_size(name: str, costs: Sequence[int]) -> list[ScoreRequest]:
    """Requests of so many words, each text beginning with the name and its number in place of the first word."""
    return asking(*(" ".join([f"{name}-{i}"] + ["word"] * (cost - 1)) for i, cost in enumerate(costs)))


def names(batch: Sequence[str]) -> list[str]:
    """Whose texts these are."""
    return [text.split()[0].split("-")[0] for text in batch]


def total(batch: Sequence[str]) -> int:
    return sum(len(text.split()) for text in batch)


@contextmanager
def held(
    scorer: HeldScorer, *, queue_batch_tokens: int = 1000, max_queue_tokens: int = 1_000_000
) -> Iterator[BatchingScorer]:
    """A batching scorer whose worker is busy with a "plug" of 1 token until the inner scorer is let go."""
    with BatchingScorer(
        scorer, queue_batch_tokens=queue_batch_tokens, max_queue_tokens=max_queue_tokens, cost=words
    ) as batching:
        try:
            batching.submit(asking("plug"))
            scorer.wait_until_busy()
            yield batching
        finally:
            scorer.let_go()


def in_threads(calls: Sequence[Callable[[], object]]) -> list[object]:
    """Run all at once, a thread each; results in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait(PATIENCE)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, call) for call in calls]]


# The same answers


@settings(max_examples=25)
@given(asked=submissions, budget=st.integers(1, 60))
def test_every_caller_gets_what_the_inner_scorer_gives(asked: list[list[ScoreRequest]], budget: int) -> None:
    inner = OverlapScorer(window=3)
    with BatchingScorer(inner, queue_batch_tokens=budget) as batching:
        answers = in_threads([partial(batching.score, mine) for mine in asked])
    for mine, answer in zip(asked, answers, strict=True):
        assert isinstance(answer, list)
        expected = inner.score(mine)
        assert len(answer) == len(expected)
        for got, wanted in zip(answer, expected, strict=True):
            assert isinstance(got, Logits)
            assert isinstance(wanted, Logits)
            np.testing.assert_array_equal(got, wanted)
            np.testing.assert_array_equal(got.per_window, wanted.per_window)
            assert (got.spans, got.truncated) == (wanted.spans, wanted.truncated)


def test_eight_threads_rank_as_one() -> None:
    passages = [f"the sea is {word}" for word in WORDS] * 20
    queries = [*WORDS, "the sea"]
    alone = [Reranker(OverlapScorer()).rank(query, passages) for query in queries]
    with BatchingScorer(OverlapScorer(), queue_batch_tokens=200) as batching:
        reranker = Reranker(batching)
        together = in_threads([partial(reranker.rank, query, passages) for query in queries])
    assert together == alone


def test_results_are_the_inner_scorers_own_objects() -> None:
    class Keeping(OverlapScorer):
        def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
            self.given = super().score(requests)
            return self.given

    inner = Keeping(window=2)
    with BatchingScorer(inner) as batching:
        got = batching.score(asking("the sea is salt", "bread"))
        assert all(mine is given for mine, given in zip(got, inner.given, strict=True))


def test_info_is_the_inner_scorers() -> None:
    inner = OverlapScorer(first_stage_weight=0.5)
    with BatchingScorer(inner) as batching:
        assert batching.info is inner.info


def test_no_requests_no_call() -> None:
    inner = OverlapScorer()
    with BatchingScorer(inner) as batching:
        assert batching.score([]) == []
    assert inner.calls == []


# Batches


def test_callers_share_a_batch() -> None:
    scorer = HeldScorer()
    with held(scorer) as batching:
        for name in "abcde":
            batching.submit(of_size(name, [3, 3]))
    assert [names(batch) for batch in scorer.batches] == [["plug"], list("aabbccddee")]


@settings(max_examples=30)
@given(asked=st.lists(sizes, min_size=1, max_size=6), budget=st.integers(1, 40))
def test_batches_keep_to_the_budget(asked: list[list[int]], budget: int) -> None:
    scorer = HeldScorer()
    with held(scorer, queue_batch_tokens=budget) as batching:
        for i, costs in enumerate(asked):
            batching.submit(of_size(str(i), costs))
    assert all(batch and (len(batch) == 1 or total(batch) <= budget) for batch in scorer.batches)
    assert sum(map(len, scorer.batches)) == 1 + sum(map(len, asked))


@settings(max_examples=100)
@given(
    asked=st.lists(sizes, min_size=2, max_size=5),
    comes=st.lists(st.integers(0, 5), min_size=5, max_size=5),
    budget=st.integers(1, 60),
)
@example(asked=[[1] * 200, [1] * 200], comes=[0] * 5, budget=40)  # turns alone, without overdrafts
def test_nobody_gets_much_more_than_another_who_waits_too(
    asked: list[list[int]], comes: list[int], budget: int
) -> None:
    """While two callers wait, what they get differs by a turn and what each may overdraw, and by no more."""
    queue = FairQueue(budget, 10**6)
    callers = [Submission(Prepared(asking("x") * len(costs), costs), deadline=None) for costs in asked]
    served = dict.fromkeys(callers, 0)
    leads: dict[tuple[Submission, Submission], list[int]] = defaultdict(list)  # after each batch, while both wait
    for batch in count():
        for caller, first in zip(callers, comes, strict=False):
            if first == batch:
                queue.put(caller)
        waiting = set(queue.submissions())
        for one, other in combinations(callers, 2):
            if {one, other} <= waiting:
                leads[one, other].append(served[one] - served[other])
        if not waiting and batch > max(comes):
            break
        for caller, part in queue.take().items():
            served[caller] += sum(caller.costs[i] for i in part)
    for (one, other), lead in leads.items():
        overdrafts = max(one.costs) - 1 + max(other.costs) - 1
        assert max(lead) - min(lead) <= math.ceil(budget / TURNS_PER_BATCH) + overdrafts


@pytest.mark.parametrize("huge_ones", [1, 3])
def test_a_small_submission_overtakes_huge_ones(huge_ones: int) -> None:
    """It comes while the huge ones are being worked on, and is answered with the very next batch."""
    scorer = SteppedScorer()
    with BatchingScorer(scorer, queue_batch_tokens=100, max_queue_tokens=10**6, cost=words) as batching:
        huge = [batching.submit(of_size(f"huge{i}", [5] * 2000)) for i in range(huge_ones)]
        for _ in range(3):
            scorer.wait_for_a_call()
            scorer.step()
        scorer.wait_for_a_call()  # the fourth batch is in work
        small = batching.submit(of_size("small", [5] * 4))
        scorer.step()
        scorer.wait_for_a_call()
        scorer.step()
        assert len(small.result(PATIENCE)) == 4
        assert names(scorer.batches[4]).count("small") == 4
        assert not any(submission.done() for submission in huge)
        for submission in huge:
            submission.cancel()
        scorer.step(10)


def test_small_ones_that_keep_coming_do_not_starve_a_huge_one() -> None:
    """With each batch come four new submissions that would fill the next one."""
    scorer = SteppedScorer()
    with BatchingScorer(scorer, queue_batch_tokens=20, max_queue_tokens=10**6, cost=words) as batching:
        huge = batching.submit(of_size("huge", [5] * 20))
        rounds = 0
        while not huge.done() and rounds < 200:
            scorer.wait_for_a_call()
            for i in range(4):
                batching.submit(of_size(f"small{rounds}.{i}", [5]))
            scorer.step()
            rounds += 1
        scorer.step(1000)
        assert len(huge.result(PATIENCE)) == 20
    assert rounds < 200


def test_a_request_above_the_budget_is_scored_alone_and_delays_others_once() -> None:
    scorer = HeldScorer()
    with held(scorer, queue_batch_tokens=10) as batching:
        batching.submit(of_size("big", [50, 50]))
        batching.submit(of_size("small", [2, 2]))
    assert [names(batch) for batch in scorer.batches] == [["plug"], ["big"], ["small", "small"], ["big"]]


# Overload


def test_beyond_the_bound_submissions_are_refused_at_once() -> None:
    scorer = HeldScorer()
    with held(scorer, max_queue_tokens=100) as batching:
        accepted = [batching.submit(of_size("a", [10])) for _ in range(10)]
        with pytest.raises(OverloadedError, match="retry in") as refusal:
            batching.submit(of_size("b", [1]))
        assert refusal.value.retry_after > 0
        assert batching.stats().queue_tokens == 100
        scorer.let_go()
        assert all(len(submission.result(PATIENCE)) == 1 for submission in accepted)
        assert len(batching.score(of_size("b", [1]))) == 1  # as before the overload
        assert batching.stats().queue_tokens == 0


def test_what_would_be_late_is_refused_at_once() -> None:
    """Half of the deadline is what a submission may be expected to take."""
    scorer = SteppedScorer()
    with BatchingScorer(scorer, queue_batch_tokens=200, cost=words) as batching:
        scorer.step()
        batching.score(of_size("first", [50]))
        scorer.wait_for_a_call()
        batching.submit(of_size("plug", [1]))
        scorer.wait_for_a_call()
        assert len(batching.submit(of_size("alone", [40]), deadline=1e-9).items) == 1  # nothing else waits
        rate = batching.stats().tokens_per_second
        assert rate is not None
        expected = 50 / rate
        with pytest.raises(OverloadedError, match=r"queue too long: an answer would") as refusal:
            batching.submit(of_size("late", [10]), deadline=1.9 * expected)
        assert refusal.value.retry_after == pytest.approx(0.05 * expected)
        batching.submit(of_size("in time", [10]), deadline=2.1 * expected)
        scorer.step(10)


def test_a_small_batch_tells_nothing_of_a_full_one() -> None:
    """A warm-up is slow for its size; what comes first after it is not refused for that."""
    scorer = SteppedScorer()
    with BatchingScorer(scorer, cost=words) as batching:
        scorer.step()
        batching.score(of_size("warm-up", [1]))
        scorer.wait_for_a_call()
        waiting = [batching.submit(of_size("a", [1000] * 20), deadline=1e-3) for _ in range(3)]
        assert len(waiting) == 3
        scorer.step(10)


def test_what_would_be_served_early_is_not_refused_for_what_waits_behind_it() -> None:
    """Of a large submission only what is served before the small one counts; of many small ones all of them do."""
    scorer = SteppedScorer()
    with BatchingScorer(scorer, queue_batch_tokens=100, cost=words) as batching:
        scorer.step()
        batching.score(of_size("first", [50]))
        scorer.wait_for_a_call()
        batching.submit(of_size("plug", [1]))
        scorer.wait_for_a_call()
        rate = batching.stats().tokens_per_second
        assert rate is not None
        large = batching.submit(of_size("large", [5] * 2000))
        small = batching.submit(of_size("small", [5, 5]), deadline=100 / rate)  # 10, and 10 and a turn of the large one
        assert len(small.items) == 2
        with pytest.raises(OverloadedError):
            batching.submit(of_size("larger", [5] * 20), deadline=100 / rate)
        large.cancel()
        waiting = [batching.submit(of_size("equal", [5, 5])) for _ in range(4)]
        with pytest.raises(OverloadedError, match="retry in"):
            batching.submit(of_size("late", [5, 5]), deadline=100 / rate)
        for submission in (small, *waiting):
            submission.cancel()
        scorer.step(10)


def test_retry_after_follows_the_measured_throughput() -> None:
    scorer = SteppedScorer()
    with BatchingScorer(scorer, max_queue_tokens=100, cost=words) as batching:
        scorer.step()
        batching.score(of_size("first", [50]))
        scorer.wait_for_a_call()
        batching.submit(of_size("plug", [1]))
        scorer.wait_for_a_call()
        batching.submit(of_size("a", [40]))
        batching.submit(of_size("b", [50]))
        with pytest.raises(OverloadedError) as refusal:
            batching.submit(of_size("c", [11]))
        rate = batching.stats().tokens_per_second
        assert rate is not None
        assert refusal.value.retry_after == pytest.approx(90 / rate)
        scorer.step(10)


def test_a_submission_is_let_in_and_queued_without_others_between() -> None:
    """Else two that are let in at once may be more than there is room for, or come after the end."""
    added = 0

    class Cost(int):
        """Whoever adds it up while others could look at the queue is found out."""

        def __radd__(self, other: int) -> int:
            nonlocal added
            if submitting:
                added += 1
                with pytest.raises(FutureTimeoutError):
                    pool.submit(batching.stats).result(0.2)
            return int(self) + other

    scorer = HeldScorer()
    with ThreadPoolExecutor(2) as pool, BatchingScorer(scorer, cost=lambda request: Cost(words(request))) as batching:
        submitting = False
        batching.submit(asking("plug"))
        scorer.wait_until_busy()
        submitting = True
        batching.submit(asking("bread rises"))
        submitting = False
        scorer.let_go()
    assert added == 2  # to see whether there is room, and in the queue


def test_a_submission_above_the_bound_is_accepted_while_nothing_waits() -> None:
    scorer = HeldScorer()
    with held(scorer, max_queue_tokens=100) as batching:
        huge = batching.submit(of_size("huge", [10] * 50))
        with pytest.raises(OverloadedError):
            batching.submit(of_size("another", [10] * 50))
        small = [batching.submit(of_size("small", [10])) for _ in range(5)]  # half of the bound is left to them
        with pytest.raises(OverloadedError):
            batching.submit(of_size("small", [1]))
        scorer.let_go()
        assert len(huge.result(PATIENCE)) == 50
        assert all(submission.result(PATIENCE) for submission in small)
        assert batching.stats().queue_tokens == 0


def test_room_is_counted_right_after_any_history() -> None:
    """However submissions have ended, exactly as much fits into the empty queue as at first."""
    scorer = SteppedScorer()
    with BatchingScorer(scorer, queue_batch_tokens=7, max_queue_tokens=100, cost=words) as batching:
        asked = [batching.submit(of_size("x", [3] * 40)), *(batching.submit(of_size("y", [9])) for _ in range(3))]
        scorer.wait_for_a_call()
        scorer.step(5)
        for _ in range(5):
            scorer.wait_for_a_call()
        asked[0].cancel()
        asked[2].cancel()
        scorer.step(100)
        assert asked[1].result(PATIENCE)
        assert asked[3].result(PATIENCE)
    stats = batching.stats()
    assert (stats.queue_tokens, stats.queue_submissions, batching._queue.charged) == (0, 0, 0)


def test_the_refusal_crosses_processes() -> None:
    copy = pickle.loads(pickle.dumps(OverloadedError("full", 2.5)))
    assert (str(copy), copy.retry_after) == ("full", 2.5)


# Deadlines and cancellation


def test_what_is_late_is_never_computed() -> None:
    scorer = HeldScorer()
    with held(scorer) as batching:
        late = batching.submit(of_size("late", [1]), deadline=0.01)
        with pytest.raises(DeadlineExceededError, match=r"within 0\.01 s"):
            late.result()  # while the worker is busy with something else
        assert batching.stats().queue_submissions == 0
        too_late = batching.submit(of_size("late", [1]), deadline=-1)  # nobody waits: the worker finds it
        in_time = batching.submit(of_size("good", [1]), deadline=PATIENCE)
        scorer.let_go()
        assert len(in_time.result()) == 1
        assert isinstance(too_late.exception(PATIENCE), DeadlineExceededError)
    assert [names(batch) for batch in scorer.batches] == [["plug"], ["good"]]


def test_the_rest_of_a_late_submission_is_never_computed() -> None:
    scorer = SteppedScorer()
    with BatchingScorer(scorer, queue_batch_tokens=10, cost=words) as batching:
        late = batching.submit(of_size("late", [10] * 100), deadline=0.05)
        with pytest.raises(DeadlineExceededError):
            late.result()  # its first batch does not end before the next line
        scorer.step(100)
    assert len(scorer.batches) <= 1


def test_what_is_late_takes_no_room_in_a_batch() -> None:
    scorer = HeldScorer()
    with held(scorer, queue_batch_tokens=10) as batching:
        batching.submit(of_size("late", [5]), deadline=0)
        for name in "ab":
            batching.submit(of_size(name, [5]))
    assert [names(batch) for batch in scorer.batches] == [["plug"], ["a", "b"]]


def test_of_two_threads_that_end_it_at_once_one_does() -> None:
    """Both find that it has not ended yet."""
    both_have_looked = threading.Barrier(2)

    class Contested(Submission):
        def done(self) -> bool:
            found = super().done()
            both_have_looked.wait(PATIENCE)
            return found

    contested = Contested(Prepared(asking("bread"), [1]), deadline=None)
    assert sorted(in_threads([contested.cancel, contested.cancel]), key=str) == [False, True]
    assert isinstance(contested.exception(0), SubmissionCancelledError)


def test_a_timeout_ends_the_waiting_alone() -> None:
    scorer = HeldScorer()
    with held(scorer) as batching:
        for deadline in (None, PATIENCE):
            patient = batching.submit(of_size("a", [1]), deadline=deadline)
            with pytest.raises(FutureTimeoutError):
                patient.result(timeout=0)
            assert not patient.done()
        scorer.let_go()
        assert len(patient.result()) == 1


@pytest.mark.parametrize("deadline", [float("nan"), float("inf"), "1", True])
def test_a_deadline_is_a_finite_number(deadline: float) -> None:
    with BatchingScorer(OverlapScorer()) as batching, pytest.raises(OptionError, match="deadline"):
        batching.submit(asking("bread"), deadline=deadline)


def test_what_is_cancelled_is_dropped_before_it_is_computed() -> None:
    scorer = HeldScorer()
    with held(scorer, max_queue_tokens=10) as batching:
        gone = batching.submit(of_size("gone", [10]))
        assert gone.cancel()
        assert not gone.cancel()
        assert batching.stats().queue_tokens == 0
        stays = batching.submit(of_size("stays", [10]))  # there is room again, at once
        with pytest.raises(SubmissionCancelledError):
            gone.result()
        scorer.let_go()
        assert len(stays.result(PATIENCE)) == 1
        assert not stays.cancel()
        assert len(stays.result()) == 1
    assert [names(batch) for batch in scorer.batches] == [["plug"], ["stays"]]


def test_cancelling_an_awaiting_task_cancels_its_submission() -> None:
    scorer = HeldScorer()
    with held(scorer) as batching:
        gone, stays = batching.submit(of_size("gone", [1])), batching.submit(of_size("stays", [1]))

        async def serve() -> int:
            waiting = asyncio.wrap_future(gone)
            waiting.cancel()
            await asyncio.sleep(0)
            scorer.let_go()
            rows: list[FloatArray] = await asyncio.wrap_future(stays)
            return len(rows)

        assert asyncio.run(serve()) == 1
        assert isinstance(gone.exception(0), SubmissionCancelledError)
    assert [names(batch) for batch in scorer.batches] == [["plug"], ["stays"]]


# What fails, fails alone


@pytest.mark.parametrize("word", ["malformed", "crash", "panic"])
def test_only_the_offending_caller_gets_the_error(word: str) -> None:
    scorer = HeldScorer(FragileScorer())
    with held(scorer) as batching:
        good_ones = of_size("a", [2, 2]), of_size("b", [2, 2])
        before = batching.submit(good_ones[0])
        offending = batching.submit(asking("bread rises", word, "the sea"))
        after = batching.submit(good_ones[1])
        scorer.let_go()
        for good, requests in zip((before, after), good_ones, strict=True):
            np.testing.assert_array_equal(good.result(PATIENCE), OverlapScorer().score(requests))
        assert offending.exception(PATIENCE) is ERRORS[word]
        assert len(batching.score(asking("bread"))) == 1  # the worker lives
    assert len(scorer.batches[1]) == 7  # they had been put together


def test_what_is_cancelled_meanwhile_is_not_scored_again() -> None:
    scorer = SteppedScorer(FragileScorer())
    with BatchingScorer(scorer) as batching:
        batching.submit(asking("plug"))
        scorer.wait_for_a_call()
        batching.submit(asking("crash"))
        gone = batching.submit(asking("gone"))
        scorer.step()
        scorer.wait_for_a_call()
        gone.cancel()
        scorer.step(10)
    assert scorer.batches == [["plug"], ["crash", "gone"], ["crash"]]


def test_a_lost_result_shifts_nobody_elses() -> None:
    scorer = HeldScorer(FragileScorer())
    with held(scorer) as batching:
        lost = batching.submit(asking("forget"))
        good = batching.submit(asking("the sea is salt"))
        scorer.let_go()
        np.testing.assert_array_equal(good.result(PATIENCE), [[5]])
        with pytest.raises(RuntimeError, match="expected 1 results of the inner scorer, got 0"):
            lost.result()


def test_an_error_ends_the_whole_submission() -> None:
    scorer = HeldScorer(FragileScorer())
    with held(scorer, queue_batch_tokens=10) as batching:
        offending = batching.submit([*asking("malformed"), *of_size("rest", [10] * 100)])
        scorer.let_go()
        with pytest.raises(InvalidTextError):
            offending.result()
    assert scorer.batches == [["plug"], ["malformed"]]


def test_a_cost_that_fails_is_the_callers_error() -> None:
    def refuses(request: ScoreRequest) -> int:
        raise InvalidTextError("no")

    with BatchingScorer(OverlapScorer(), cost=refuses) as batching:
        with pytest.raises(InvalidTextError):
            batching.score(asking("bread"))
        assert batching.stats().queue_submissions == 0


# The end


def test_closing_drains_what_was_accepted() -> None:
    scorer = HeldScorer()
    with held(scorer, queue_batch_tokens=5) as batching:
        accepted = [batching.submit(of_size("a", [5] * 10)) for _ in range(5)]
    assert all(len(submission.result(0)) == 10 for submission in accepted)
    assert not batching._worker.is_alive()


def test_closing_without_draining_finishes_the_batch_in_work() -> None:
    scorer = SteppedScorer()
    batching = BatchingScorer(scorer, queue_batch_tokens=10, cost=words)
    in_work = batching.submit(of_size("a", [10]))
    scorer.wait_for_a_call()
    waiting = batching.submit(of_size("b", [10]))
    assert not batching.close(drain=False, timeout=0)
    with pytest.raises(ClosedError, match="before it scored these"):
        waiting.result(0)
    scorer.step()
    assert len(in_work.result(PATIENCE)) == 1
    assert batching.close()
    assert len(scorer.batches) == 1


def test_a_drain_that_takes_too_long_is_given_up() -> None:
    scorer = HeldScorer()
    with held(scorer) as batching:
        waiting = batching.submit(of_size("a", [1]))
        assert not batching.close(timeout=0.01)
        with pytest.raises(ClosedError):
            waiting.result(0)
        scorer.let_go()
        assert batching.close(timeout=PATIENCE)
        assert batching.close(drain=False)  # again, harmless


@pytest.mark.parametrize("requests", [asking("bread"), []])
def test_closed_is_closed(requests: list[ScoreRequest]) -> None:
    with BatchingScorer(OverlapScorer()) as batching:
        pass
    with pytest.raises(ClosedError, match="the scorer is closed; send"):
        batching.score(requests)


def test_an_error_in_the_block_does_not_wait_for_the_queue() -> None:
    scorer = HeldScorer()
    with held(scorer) as batching:
        waiting = batching.submit(of_size("a", [1]))
        waiting.add_done_callback(lambda _: scorer.let_go())
        with pytest.raises(KeyError), batching:
            raise KeyError
    assert isinstance(waiting.exception(0), ClosedError)


def test_no_thread_is_left() -> None:
    threads = threading.active_count()
    with BatchingScorer(OverlapScorer()):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads


def test_an_idle_worker_keeps_no_submission() -> None:
    forgotten = threading.Event()
    with BatchingScorer(OverlapScorer()) as batching:
        submission = batching.submit(asking("bread"))
        weakref.finalize(submission, forgotten.set)
        submission.result()
        del submission
        assert forgotten.wait(PATIENCE)


def test_nothing_hangs_whatever_callers_do() -> None:
    """Eight threads submit, cancel, run late and are refused, with errors between, until it is closed under them."""
    inner = FragileScorer()
    batching = BatchingScorer(inner, queue_batch_tokens=20, max_queue_tokens=200, cost=words)
    closing = threading.Event()

    def call(seed: int) -> int:
        ends = 0
        for i in range(60):
            if seed == 0 and i == 40:
                closing.set()
            try:
                texts = ["bread rises slowly"] * (1 + (seed * i) % 30) + ["crash"] * (i % 7 == seed % 7)
                submission = batching.submit(asking(*texts), deadline=0 if i % 5 == 4 else PATIENCE)
                if i % 4 == 3:
                    submission.cancel()
                assert len(submission.result()) == len(texts)
            except (GLiClassRerankError, RuntimeError):
                pass
            ends += 1
        return ends

    def close() -> int:
        assert closing.wait(PATIENCE)
        assert batching.close(timeout=PATIENCE)
        return 60

    assert in_threads([*(partial(call, seed) for seed in range(8)), close]) == [60] * 9
    assert batching._queue.charged == 0


# What it says of itself


def test_stats_add_up() -> None:
    scorer = HeldScorer()
    with held(scorer, queue_batch_tokens=10) as batching:
        assert batching.stats().tokens_per_second is None
        batching.submit(of_size("a", [4, 3]))
        batching.submit(of_size("b", [10, 10]))
        stats = batching.stats()
        assert (stats.queue_tokens, stats.queue_submissions, stats.batches) == (27, 2, 0)
    stats = batching.stats()
    assert (stats.queue_tokens, stats.queue_submissions) == (0, 0)
    assert (stats.batches, stats.requests, stats.tokens) == (len(scorer.batches), 5, 28)
    assert stats.tokens_per_second is not None
    assert stats.tokens_per_second > 0


def test_a_submission_knows_where_its_time_went() -> None:
    scorer = HeldScorer()
    with held(scorer) as batching:
        waits = batching.submit(of_size("a", [1]))
        assert waits.queue_seconds > 0
        assert waits.inference_seconds == 0
        scorer.let_go()
        waits.result(PATIENCE)
        assert waits.inference_seconds > 0
        told = waits.queue_seconds
        assert told > 0
        assert waits.queue_seconds == told  # it stands still


@pytest.mark.parametrize("option", ["queue_batch_tokens", "max_queue_tokens"])
@pytest.mark.parametrize("value", [0, -1, None, float("nan")])
def test_budgets_are_positive(option: str, value: int) -> None:
    with pytest.raises(OptionError, match=option):
        BatchingScorer(OverlapScorer(), **{option: value})  # type: ignore[arg-type]


def test_the_estimate_counts_all_that_is_read() -> None:
    assert estimate_tokens(ScoreRequest("x" * 400, ("y" * 40,))) == 100 + 10 + 1
    assert estimate_tokens(ScoreRequest("x" * 400, ("y" * 40,) * 3, prompt="z" * 20)) == 100 + 30 + 5 + 3
    shown = ScoreRequest("x" * 400, ("y" * 40,), examples=(Example("e" * 80, ("y" * 40,)),))
    assert estimate_tokens(shown) == 100 + 10 + 1 + 20 + 10
    assert estimate_tokens(ScoreRequest("海は塩辛い", ("海",))) == 6  # 18 bytes
    assert estimate_tokens(ScoreRequest("x", ("y",))) >= 1
