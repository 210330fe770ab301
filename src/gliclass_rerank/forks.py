"""PerProcess: threads, connections and locks that a forked process creates anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value created at its first use in each process.

    A forked child has one thread, shares its sockets with the parent, and inherits locks held by other threads. So it
    must create these again.

    Args:
        make: creates the value, once in each process.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[T, ...] = ()
        self._lock = Lock()
        _living.add(self)

    def get(self) -> T:
        """Return this process's value."""
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made = (self._make(),)
        return self._made[0]

    def _forget(self) -> None:
        self._lock = Lock()
        self._made = ()


_living: WeakSet[PerProcess[Any]] = WeakSet()


def _forget_all() -> None:
    for value in list(_living):
        value._forget()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget_all)
