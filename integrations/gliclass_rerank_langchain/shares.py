"""Split a batch of inputs by route, and join the outputs again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gliclass_rerank_langchain.route_options import Names


def shares_of(chosen: Sequence[Names | Exception]) -> dict[Names, list[int]]:
    """Group the indices of inputs by route."""
    shares: dict[Names, list[int]] = {}
    for place, names in enumerate(chosen):
        if not isinstance(names, Exception):
            shares.setdefault(names, []).append(place)
    return shares


def joined(
    chosen: Sequence[Names | Exception], shares: Mapping[Names, list[int]], outputs: list[list[Any]]
) -> list[Any]:
    """Join the outputs in the order of the inputs, errors included."""
    every: list[Any] = list(chosen)
    for places, share in zip(shares.values(), outputs, strict=True):
        for place, output in zip(places, share, strict=True):
            every[place] = output
    return every
