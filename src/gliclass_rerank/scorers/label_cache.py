"""LabelCache: what was read of labels, kept for the next texts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Generic, TypeVar

from gliclass_rerank.forks import PerProcess

V = TypeVar("V")

KEPT = 16_384
"""Labels that are kept. Their vectors take 24 MiB at 384 dimensions."""


class LabelCache(Generic[V]):
    """Values of labels, each read once. The least recently used leave first. Thread-safe.

    Args:
        read: returns the values of labels.
        kept: most labels that stay.
    """

    def __init__(self, read: Callable[[Sequence[str]], Iterable[V]], kept: int = KEPT) -> None:
        self._read, self._kept = read, kept
        self._values: OrderedDict[str, V] = OrderedDict()
        self._lock = PerProcess(Lock)

    def of(self, labels: Iterable[str]) -> dict[str, V]:
        """The value of each label. Those that are not kept are read together."""
        asked = dict.fromkeys(labels)
        with self._lock.get():
            known = {label: self._values[label] for label in asked if label in self._values}
            for label in known:
                self._values.move_to_end(label)
        if new := [label for label in asked if label not in known]:
            read = dict(zip(new, self._read(new), strict=True))
            known |= read
            with self._lock.get():
                self._values |= read
                while len(self._values) > self._kept:
                    self._values.popitem(last=False)
        return known
