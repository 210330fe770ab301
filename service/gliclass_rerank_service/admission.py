"""How much a request asks for, told before any of it is built: texts and labels multiply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

BYTES = 4  # of a token, in UTF-8, about


def bytes_of(text: str) -> int:
    """Its UTF-8 bytes; of ASCII, without looking at it."""
    return len(text) if text.isascii() else len(text.encode())


def estimate_tokens_for(texts: Sequence[str], shared: Iterable[str] = (), *, passes: int = 1) -> int:
    """Tokens of texts of which each is read in so many passes, and of what is read once beside each of them, about.

    What is shared counts with a marker each, as labels have one. The time is that of reading all once.
    """
    beside = list(shared)
    read = passes * sum(map(len, map(str.encode, texts))) + len(texts) * sum(map(len, map(str.encode, beside)))
    return read // BYTES + len(texts) * len(beside)


def sizes_in(value: object, above: int = 0) -> Iterator[int]:
    """UTF-8 bytes of each string in nested lists and mappings, those of the keys above it included."""
    if isinstance(value, str):
        yield above + bytes_of(value)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from sizes_in(one, above + bytes_of(str(key)))
    elif isinstance(value, Sequence):
        for one in value:
            yield from sizes_in(one, above)
