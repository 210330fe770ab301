"""JobCalls: calls to a broker that block neither the event loop nor other requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from gliclass_rerank import ServiceError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank_service.queue.errors import DeadlineExceededError

T = TypeVar("T")
THREADS = 4
MOST_CALLS = 64  # running or waiting for a thread; far below the limit of requests, so that others find room


class JobCalls:
    """Runs blocking calls on its own threads, few at a time. Its `run` belongs to one event loop."""

    def __init__(self) -> None:
        self._threads = PerProcess(partial(ThreadPoolExecutor, THREADS, thread_name_prefix="gliclass-job-calls"))
        self._lock = PerProcess(threading.Lock)
        self._under_way = 0

    async def run(self, call: Callable[[], T], *, seconds: float) -> T:
        """Return the result of ``call``, or raise its error, if it ends within so many seconds.

        Raises:
            ServiceError: too many calls have not ended.
            DeadlineExceededError: the time is over. A call that has begun continues, and a job that it submits may be
                accepted.
        """
        with self._lock.get():
            if self._under_way >= MOST_CALLS:
                raise ServiceError(
                    f"{MOST_CALLS} calls wait for the jobs' broker, the limit; check that it answers, then try again"
                )
            self._under_way += 1
        future = self._threads.get().submit(call)
        future.add_done_callback(self._ended)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except asyncio.TimeoutError:
            raise DeadlineExceededError(
                f"no answer of the jobs' broker within {seconds:.3g} s; check that it answers, then try again"
            ) from None

    def close(self) -> None:
        """Begin no more calls. Running ones are not awaited."""
        self._threads.get().shutdown(wait=False, cancel_futures=True)

    def _ended(self, _: Future[T]) -> None:
        with self._lock.get():
            self._under_way -= 1
