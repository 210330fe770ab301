"""Bodies of many parts: as many as the limit are parsed, one more is refused before it is parsed."""

from __future__ import annotations

import pytest
from gliclass_rerank_service.admission import MOST_PARTS, check_structure
from starlette.exceptions import HTTPException

UNITS = (b"[]", b"{}", b"0", b'"ab"', b'"\\\\"', b'"a\\"b"')


def _list_of(unit: bytes, parts: int) -> bytes:
    """A list whose commas and brackets are at most ``parts``, as many as fit."""
    own = 1 + (unit in (b"[]", b"{}"))
    return b"[" + b",".join([unit] * (parts // own)) + b"]"


@pytest.mark.parametrize("unit", UNITS)
def test_the_limit_is_accepted_and_twice_as_many_parts_are_refused(unit: bytes) -> None:
    check_structure(_list_of(unit, MOST_PARTS))
    with pytest.raises(HTTPException, match=f"expected at most {MOST_PARTS} elements in one body, got") as refused:
        check_structure(_list_of(unit, 2 * MOST_PARTS + 2))
    assert refused.value.status_code == 413


def test_one_part_more_is_refused() -> None:
    check_structure(_list_of(b"0", MOST_PARTS))
    with pytest.raises(HTTPException, match=f"got {MOST_PARTS + 1}; divide it"):
        check_structure(_list_of(b"0", MOST_PARTS + 1))


@pytest.mark.parametrize("text", [b",", b"[", b"{", b'\\",', b"\\\\,"])
def test_text_inside_strings_does_not_count(text: bytes) -> None:
    check_structure(b'{"query": "' + text * (MOST_PARTS + 1) + b'"}')
