"""Pure: a batch of inputs taken apart by where they go, and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gliclass_rerank_langchain.decision import Names


def shares_of(chosen: Sequence[Names | Exception]) -> dict[Names, list[int]]:
    """Places of the inputs that go the same way."""
    shares: dict[Names, list[int]] = {}
    for place, names in enumerate(chosen):
        if not isinstance(names, Exception):
            shares.setdefault(names, []).append(place)
    return shares


def joined(
    chosen: Sequence[Names | Exception], shares: Mapping[Names, list[int]], outputs: list[list[Any]]
) -> list[Any]:
    """Outputs in the order of the inputs, errors among them."""
    every: list[Any] = list(chosen)
    for places, share in zip(shares.values(), outputs, strict=True):
        for place, output in zip(places, share, strict=True):
            every[place] = output
    return every
