"""Two generators that let one step of a pipeline overlap with the next, and hold one item more for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(make: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Like ``map``, but the next result is made on a thread while the consumer works on the current one.

    Results come in order, and an error of ``make`` where its result would have come. When the generator ends or is
    closed, the thread has ended too: at worst one call of ``make`` is waited for.
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
    """Yield each item after the one behind it was drawn: what that one started runs while this one is finished."""
    waiting: list[T] = []
    for item in started:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
