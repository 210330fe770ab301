"""Bounds on a request before any work: the parts of its JSON, and its estimated tokens. Texts and labels multiply."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from starlette.exceptions import HTTPException

BYTES = 4  # UTF-8 bytes per token, approximately

MOST_PARTS = 2**18
"""Largest number of elements, lists and objects of one body, and of its strings."""

STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
ADVICE = "divide it, and leave out fields that the service does not read"


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


def check_structure(body: bytes) -> None:
    """Refuse a body of too many parts before it is parsed: a part costs far more than its bytes.

    Fields that the service does not read count as well.

    Args:
        body: JSON in UTF-8.

    Raises:
        HTTPException: 413, if it has more than `MOST_PARTS`. Commas and brackets inside strings do not count.
    """
    if _parts(body) <= MOST_PARTS:
        return
    strings = (body.count(b'"') - body.count(b'\\"')) // 2
    parts = strings if strings > MOST_PARTS else _parts(STRINGS.sub(b"", body))
    if parts > MOST_PARTS:
        raise HTTPException(413, f"expected at most {MOST_PARTS} elements in one body, got {parts}; {ADVICE}")


def _parts(json: bytes) -> int:
    return json.count(b",") + json.count(b"[") + json.count(b"{")
