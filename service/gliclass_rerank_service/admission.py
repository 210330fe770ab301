"""Estimates of a request's tokens, computed from the body before any work: texts and labels multiply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

BYTES = 4  # UTF-8 bytes per token, approximately


def bytes_of(text: str) -> int:
    """UTF-8 bytes of a text, without encoding it if it is ASCII."""
    return len(text) if text.isascii() else len(text.encode())


def estimate_tokens_for(texts: Sequence[str], shared: Iterable[str] = (), *, passes: int = 1) -> int:
    """Estimated tokens of texts read in ``passes`` passes each, with ``shared`` strings (labels) once per text.

    Each shared string counts with one marker token. The runtime is that of reading every string once.
    """
    beside = list(shared)
    read = passes * sum(map(len, map(str.encode, texts))) + len(texts) * sum(map(len, map(str.encode, beside)))
    return read // BYTES + len(texts) * len(beside)


def sizes_in(value: object, above: int = 0) -> Iterator[int]:
    """UTF-8 bytes of each string in nested lists and mappings, including the keys above it."""
    if isinstance(value, str):
        yield above + bytes_of(value)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from sizes_in(one, above + bytes_of(str(key)))
    elif isinstance(value, Sequence):
        for one in value:
            yield from sizes_in(one, above)
