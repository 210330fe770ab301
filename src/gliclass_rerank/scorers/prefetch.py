"""Generators that overlap one step of a pipeline with the next, at the cost of one more item in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(make: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Like ``map``, but the next result is computed on a thread while the consumer works on the current one.

    Results come in order, and an error of ``make`` is raised in place of its result. When the generator ends or is
    closed, the thread has ended too, which may take one call of ``make``.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="gliclass-ahead") as pool:
        current: Future[R] | None = None
        for item in items:
            coming = pool.submit(make, item)
            if current is not None:
                yield current.result()
            current = coming
        if current is not None:
            yield current.result()


def drain_one_late(started: Iterable[T]) -> Iterator[T]:
    """Yield each item after the next one was drawn, so that the next one runs while this one is finished."""
    waiting: list[T] = []
    for item in started:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
