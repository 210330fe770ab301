"""Group sequences into batches by their lengths."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from gliclass_rerank.models.encoding import chunk_sizes
from gliclass_rerank.types import ScoreRequest

T = TypeVar("T")


def plan_batches(
    lengths: Sequence[int], kinds: Sequence[Hashable], *, max_tokens: int, padded: bool = True
) -> list[list[int]]:
    """Group items so that padding is small and no batch exceeds a budget.

    Items of one batch share their kind (such as the number of labels, so that none needs padding) and have similar
    lengths. An item longer than the budget gets a batch of its own. Batches are planned longest first, so the last ones
    are small and workers finish together.

    Args:
        lengths: tokens of each item, > 0.
        kinds: same length as ``lengths``. Items of different kinds never share a batch.
        max_tokens: budget of one batch, see `batch_cost`, > 0.
        padded: items of a batch are padded to its longest; else they are packed one after another.

    Returns:
        Indices into ``lengths``. Every index occurs exactly once.
    """
    open_batch: dict[Hashable, tuple[list[int], int]] = {}  # current batch of each kind, and its tokens so far
    planned: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        batch, tokens = open_batch.get(kinds[index], ([], 0))
        tokens += lengths[batch[0]] if padded and batch else lengths[index]
        if not batch or tokens > max_tokens:
            batch, tokens = [], lengths[index]
            planned.append(batch)
        batch.append(index)
        open_batch[kinds[index]] = batch, tokens
    return planned


def batch_cost(lengths: Sequence[int], *, padded: bool = True) -> int:
    """Tokens of a batch of items with these lengths: padded, their number times the longest, else their sum."""
    return len(lengths) * max(lengths) if padded else sum(lengths)


def request_chunks(
    requests: Sequence[ScoreRequest], *, max_requests: int, max_characters: int
) -> Iterator[list[ScoreRequest]]:
    """Divide requests into lists of at most ``max_requests`` and about ``max_characters``, all texts included."""
    return chunked(requests, chunk_sizes(requests), max_items=max_requests, max_size=max_characters)


def chunked(items: Iterable[T], sizes: Iterable[int], *, max_items: int, max_size: int) -> Iterator[list[T]]:
    """Divide a stream into lists of at most ``max_items`` items and about ``max_size`` in total size."""
    chunk: list[T] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if chunk and (len(chunk) >= max_items or total + size > max_size):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += size
    if chunk:
        yield chunk
