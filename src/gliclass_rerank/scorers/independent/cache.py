"""PassageCache: what was read of texts with labels, kept for the next labels that are asked of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, Protocol, TypeVar

from gliclass_rerank.forks import PerProcess
from gliclass_rerank.models.encoding import EncodedSequence


class Sized(Protocol):
    """Anything with a size in bytes."""

    @property
    def nbytes(self) -> int: ...


S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Use of a passage cache.

    Attributes:
        hits, misses: texts that were found, and that had to be read, since the model was loaded.
        texts: texts that are kept now.
        bytes: memory that they take.
        max_bytes: memory that they may take.
    """

    hits: int
    misses: int
    texts: int
    bytes: int
    max_bytes: int


class PassageCache(Generic[S]):
    """States of texts by their token ids, bounded by bytes. The least recently used leave first. Thread-safe.

    A forked process keeps what its parent had read, and counts on its own.

    Args:
        max_bytes: bound of the memory of all states. A larger state is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._states: OrderedDict[bytes, S] = OrderedDict()
        self._lock = PerProcess(Lock)
        self._bytes = self._hits = self._misses = 0

    def __contains__(self, sequence: EncodedSequence) -> bool:
        return sequence.ids.tobytes() in self._states

    def states(self, batch: Sequence[EncodedSequence], read: Callable[[list[EncodedSequence]], Sequence[S]]) -> list[S]:
        """The state of each sequence's text.

        Args:
            batch: sequences; equal texts are read once.
            read: reads the texts of sequences that are not kept yet.
        """
        keys = [item.ids.tobytes() for item in batch]
        with self._lock.get():
            known = {key: self._states[key] for key in keys if key in self._states}
            for key in known:
                self._states.move_to_end(key)
            self._hits += sum(key in known for key in keys)
            self._misses += sum(key not in known for key in keys)
        new = {key: item for key, item in zip(keys, batch, strict=True) if key not in known}
        if new:
            read_now = dict(zip(new, read(list(new.values())), strict=True))
            self._keep(read_now)
            known |= read_now
        return [known[key] for key in keys]

    def stats(self) -> CacheStats:
        """Return a consistent snapshot."""
        with self._lock.get():
            return CacheStats(self._hits, self._misses, len(self._states), self._bytes, self.max_bytes)

    def _keep(self, states: dict[bytes, S]) -> None:
        with self._lock.get():
            for key, state in states.items():
                if key in self._states or state.nbytes > self.max_bytes:
                    continue
                self._states[key] = state
                self._bytes += state.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._states.popitem(last=False)[1].nbytes
