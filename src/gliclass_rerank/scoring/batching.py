"""Grouping passes into batches. Pure: numbers in, indices out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def plan_batches(lengths: Sequence[int], kinds: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Group items so that little is padded and no batch exceeds a budget.

    Items of one batch share their kind (the number of labels, so that none needs padding) and have similar
    lengths; a batch costs its count times its longest length. An item longer than the budget gets a batch of
    its own. Longest first: the last batches are small, so workers finish together.

    Args:
        lengths: tokens of each item, > 0.
        kinds: same length as ``lengths``; items of different kinds never share a batch.
        max_tokens: budget of one batch, padding included, > 0.

    Returns:
        Indices into ``lengths``; every index occurs exactly once.
    """
    open_batch: dict[int, list[int]] = {}
    planned: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        batch = open_batch.get(kinds[index])
        if batch is None or (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            batch = open_batch[kinds[index]] = []
            planned.append(batch)
        batch.append(index)
    return planned


def chunked(items: Iterable[T], sizes: Iterable[int], *, max_items: int, max_size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of at most ``max_items`` items and about ``max_size`` in total size."""
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
