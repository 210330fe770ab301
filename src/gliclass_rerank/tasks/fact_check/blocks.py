"""Blocks of a text that are never divided into sentences: fenced code, JSON, and table rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from gliclass_rerank.types import Span

FENCE = re.compile(r"[ \t>]*(?:(?:[-*+]|[0-9]+[.)])[ \t]+)?(?P<fence>`{3,}|~{3,})[^`\n]*$")
RULE = re.compile(r"[ \t>]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
JSON = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Block:
    """A block, one sentence of its own.

    Attributes:
        start, end: half-open range of code points, without white space around it.
        kind: "code" (fenced code with its fences, or JSON) or "row" (of a table).
        header: range of the table's header and rule, for a row.
    """

    start: int
    end: int
    kind: Literal["code", "row"]
    header: Span | None = None


def find_blocks(text: str) -> list[Block]:
    """Find the blocks of a text in their order. Lines must end with a line feed."""
    lines = text.splitlines(keepends=True)
    starts = [*accumulate(map(len, lines), initial=0)]
    found: list[Block] = []
    at = tried = 0
    while at < len(lines):
        blocks = [*_code(lines, starts, at), *_table(lines, starts, at)]
        if starts[at] >= tried:  # parse every character as JSON only once, even with many unclosed brackets
            json_blocks, tried = _json(text, lines[at], starts[at])
            blocks += json_blocks
        found += blocks
        end = max((block.end for block in blocks), default=0)
        at += 1
        while at < len(lines) and starts[at] < end:
            at += 1
    return found


def plain_block(text: str, block: Block) -> str:
    """Text of a block for the model: code without its fences, or a row's cells, each after its header cell."""
    lines = text[block.start : block.end].splitlines()
    if block.kind == "code":
        opening = FENCE.match(lines[0])
        closes = bool(opening) and len(lines) > 1 and _closes(lines[-1], opening["fence"] if opening else "")
        return "\n".join(lines[bool(opening) : len(lines) - closes]).strip()
    header = _cells(text[slice(*block.header)].splitlines()[0]) if block.header else []
    cells = _cells(lines[0])
    names = [f"{name}: " if name else "" for name in header] + [""] * len(cells)
    return ", ".join(f"{name}{cell}" for name, cell in zip(names, cells, strict=False) if cell)


def _code(lines: Sequence[str], starts: Sequence[int], first: int) -> Iterator[Block]:
    """The fenced code that begins in a line. Without a closing fence it runs to the end of the text."""
    opening = FENCE.match(lines[first].rstrip())
    if not opening:
        return
    fence = opening["fence"]
    start, last = starts[first] + opening.start("fence"), len(lines) - 1
    for i in range(first + 1, len(lines)):
        if _closes(lines[i], fence):
            last = i
            break
    yield Block(start, starts[first] + len("".join(lines[first : last + 1]).rstrip()), "code")


def _closes(line: str, fence: str) -> bool:
    """Whether a line ends the fenced code that ``fence`` began."""
    closing = line.strip(" \t>\n")
    return len(closing) >= len(fence) and set(closing) == {fence[0]}


def _json(text: str, line: str, start: int) -> tuple[list[Block], int]:
    """A JSON array or object that contains a string and fills its lines, and the position where parsing ended."""
    if not line.startswith(("[", "{")):
        return [], start
    try:
        _, end = JSON.raw_decode(text, start)
    except json.JSONDecodeError as error:
        return [], error.pos
    except (ValueError, RecursionError):  # a number of thousands of digits, nested too deep
        return [], len(text)
    line_end = text.find("\n", end)
    fills = '"' in text[start:end] and not text[end : line_end if line_end >= 0 else None].strip()
    return [Block(start, end, "code")] if fills else [], end


def _table(lines: Sequence[str], starts: Sequence[int], first: int) -> Iterator[Block]:
    """The rows of the table that begins with a line, if a rule follows it."""
    if "|" not in lines[first] or first + 1 == len(lines) or not RULE.match(lines[first + 1].rstrip("\n")):
        return
    if "|" not in lines[first + 1]:
        return
    header = _span(lines, starts, first)[0], _span(lines, starts, first + 1)[1]
    for i in range(first + 2, len(lines)):
        if "|" not in lines[i]:
            return
        yield Block(*_span(lines, starts, i), "row", header)


def _span(lines: Sequence[str], starts: Sequence[int], i: int) -> Span:
    line = lines[i]
    return starts[i] + len(line) - len(line.lstrip()), starts[i] + len(line.rstrip())


def _cells(row: str) -> list[str]:
    return [
        cell.strip().replace("\\|", "|")
        for cell in re.split(r"(?<!\\)\|", row.strip(" \t>").removeprefix("|").removesuffix("|"))
    ]
