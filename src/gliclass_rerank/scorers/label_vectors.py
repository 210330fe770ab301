"""LabelVectors: the vectors of labels, for the similarity that a request adds to its logits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from gliclass_rerank.forks import PerProcess
from gliclass_rerank.types import FloatArray

KEPT = 16_384
"""Labels whose vectors are kept: 24 MiB at 384 dimensions."""


class LabelVectors:
    """Vectors of labels, each read once as a text. The least recently used leave first. Thread-safe.

    Args:
        read: returns the vectors of texts, float32, shape (D,).
        kept: most labels that stay.
    """

    def __init__(self, read: Callable[[Sequence[str]], Iterable[FloatArray]], kept: int = KEPT) -> None:
        self._read, self._kept = read, kept
        self._vectors: OrderedDict[str, FloatArray] = OrderedDict()
        self._lock = PerProcess(Lock)

    def of(self, labels: Iterable[str]) -> dict[str, FloatArray]:
        """The vector of each label. Those that are not kept are read together."""
        asked = dict.fromkeys(labels)
        with self._lock.get():
            known = {label: self._vectors[label] for label in asked if label in self._vectors}
            for label in known:
                self._vectors.move_to_end(label)
        if new := [label for label in asked if label not in known]:
            read = dict(zip(new, self._read(new), strict=True))
            known |= read
            with self._lock.get():
                self._vectors |= read
                while len(self._vectors) > self._kept:
                    self._vectors.popitem(last=False)
        return known
