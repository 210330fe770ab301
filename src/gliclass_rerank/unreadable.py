"""Texts that a model cannot read: the affected scores, their positions in the input, and the error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.errors import UnreadableTextError
from gliclass_rerank.types import FloatArray, Logits, ScoreRequest

Unreadable = Literal["flag", "error"]
"""Treatment of a text of which the model's vocabulary covers (almost) nothing: set ``readable=False`` in the result, or
raise `UnreadableTextError`."""

Places = Iterable[tuple[str, str]]
"""The texts of a call, each with the name of its position, "passage 3"."""

UNKNOWN_WORDS = "the model's vocabulary does not know its words; take a model of its language"


def readable(row: FloatArray) -> NDArray[np.bool_]:
    """Whether the model could read both text and label, shape (labels,). True for other rows than `Logits`."""
    mask = np.ones(len(row), bool)
    if isinstance(row, Logits):
        mask[list(row.unread_labels)] = False
        mask &= not row.unread_text
    return mask


def refuse_unread(requests: Sequence[ScoreRequest], rows: Sequence[FloatArray]) -> None:
    """Raise `UnreadableTextError` for the first text or label that the model could not read."""
    for i, (request, row) in enumerate(zip(requests, rows, strict=False)):
        if not isinstance(row, Logits):
            continue
        if row.unread_text:
            raise UnreadableTextError(f"text of request {i}", request.text, UNKNOWN_WORDS)
        for j in row.unread_labels:
            raise UnreadableTextError(f"label {j} of request {i}", request.labels[j], UNKNOWN_WORDS)


@contextmanager
def naming(places: Callable[[], Places]) -> Iterator[None]:
    """Replace the position in an `UnreadableTextError` by the name of the first of these places with the same text."""
    try:
        yield
    except UnreadableTextError as error:
        name = next((name for name, text in places() if text == error.text), error.place)
        raise UnreadableTextError(name, error.text, error.reason) from None


def request_places(requests: Sequence[ScoreRequest]) -> Iterator[tuple[str, str]]:
    """The texts and labels of requests, with names."""
    for i, request in enumerate(requests):
        yield f"text of request {i}", request.text
        for j, label in enumerate(request.labels):
            yield f"label {j} of request {i}", label


def numbered(what: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Texts with the names "passage 0", "passage 1", ..."""
    return [(f"{what} {i}", text) for i, text in enumerate(texts)]
