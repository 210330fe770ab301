"""A text to its sentences, which slice back exactly, and to itself without some of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import sentencex

from gliclass_rerank.types import Span

LINE_END = re.compile(r"\r(?!\n)|[\x85\u2028\u2029]")
OTHER_SPACE = re.compile(r"[^\S\n]")
BULLETS = re.compile(r" *(?:(?:[-*+•◦▪‣·–>]|#{1,6}) +)*")
NUMBER = re.compile(r"([0-9]{1,3})[.)] +(?=\S)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, or what stands like one, in a text; without white space around it.

    Attributes:
        start, end: half-open range of code points.
        marker: range of what announces its line: bullets, "1.", "#", ">". All sentences of an item share it.
    """

    start: int
    end: int
    marker: Span | None = None


def split_sentences(text: str) -> list[Sentence]:
    """Split a text at its paragraphs, list items, headings and sentences; whatever is no white space is in one of them.

    A single line end does not end a sentence, unless a list item or a heading begins, or a colon or a line without
    letters and digits stands before it.
    Numbers begin an item only if they count: "1." does, "42." does after "41.". Sentence ends are told by sentencex's
    English rules, which know abbreviations, and the full stops of other scripts.
    """
    # sentencex 1.0.32 panics at an initial after white space beyond ASCII ("\u00a0A."), and reads "\r\n" as two ends.
    # One code point stands for one, so that offsets stay.
    plain = OTHER_SPACE.sub(" ", LINE_END.sub("\n", text))
    return [sentence for block in _blocks(plain) for sentence in _sentences(plain, block)]


def remove_sentences(text: str, sentences: Sequence[Sentence], removed: Sequence[Sentence]) -> str:
    """Leave sentences out of a text, and touch nothing else.

    With a sentence goes the white space after it; or that before it, where the one after separates more because it
    ends a paragraph or the text, say. Of several in a row, one white space stays likewise. A list marker goes when
    all sentences of its item do.

    Args:
        text: what `split_sentences` was given.
        sentences: all that it gave.
        removed: some of them.
    """
    gone = set(removed)
    staying = {one.marker for one in sentences if one.marker and one not in gone}
    markers = {one.marker for one in gone if one.marker} - staying
    marked = {end for _, end in staying}
    parts, position = [], 0
    for run in _runs(text, sorted({(one.start, one.end) for one in gone} | markers)):
        gaps = _gaps(text, run)
        start, end = _gap_that_stays(text, gaps, marked)
        parts += [text[position : gaps[0][0]], text[start:end]]
        position = gaps[-1][1]
    return "".join([*parts, text[position:]])


def _blocks(plain: str) -> Iterator[Sentence]:
    """Parts of a text that no sentence goes beyond, some of them blank."""
    position = start = 0
    marker: Span | None = None
    counted: set[int] = set()
    closed = False
    for line in plain.splitlines(keepends=True):
        is_rule = not any(character.isalnum() for character in line)  # "---", or nothing at all
        own = None if is_rule else _marker(line, counted)
        if own or closed or is_rule:
            yield Sentence(start, position, marker)
            start = position + (own[1] if own else 0)
            marker = (position + own[0], position + own[1]) if own else None
        closed = is_rule or line.rstrip().endswith((":", "：")) or (own is not None and "#" in line[slice(*own)])
        position += len(line)
    yield Sentence(start, position, marker)


def _marker(line: str, counted: set[int]) -> Span | None:
    """Where the marker of a line is, if it has one; its number joins those that were ``counted``."""
    bullets = BULLETS.match(line)
    end = bullets.end() if bullets else 0
    if number := NUMBER.match(line, end):
        value = int(number[1])
        if value == 1 or value - 1 in counted:
            counted.add(value)
            end = number.end()
    marker = line[:end]
    return (end - len(marker.lstrip()), len(marker.rstrip())) if marker.strip() else None


def _sentences(plain: str, block: Sentence) -> Iterator[Sentence]:
    text = plain[block.start : block.end]
    # Only the places of its cuts are taken, so that nothing can be lost, whatever the library does to its strings.
    ends = accumulate(len(piece) for piece in sentencex.segment("en", text))
    for start, end in pairwise([0, *(end for end in ends if end < len(text)), len(text)]):
        piece = text[start:end]
        if stripped := piece.strip():
            first = block.start + start + len(piece) - len(piece.lstrip())
            yield Sentence(first, first + len(stripped), block.marker)


def _runs(text: str, spans: Sequence[Span]) -> list[list[Span]]:
    """Put spans, in order, between which there is only white space together."""
    runs: list[list[Span]] = []
    for start, end in spans:
        if runs and not text[runs[-1][-1][1] : start].strip():
            runs[-1].append((start, end))
        else:
            runs.append([(start, end)])
    return runs


def _gaps(text: str, run: Sequence[Span]) -> list[Span]:
    """The white space before, between and after the spans of a run."""
    first, last = run[0][0], run[-1][1]
    while first and text[first - 1].isspace():
        first -= 1
    while last < len(text) and text[last].isspace():
        last += 1
    edges = [first, *(edge for span in run for edge in span), last]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _gap_that_stays(text: str, gaps: Sequence[Span], marked: Collection[int]) -> Span:
    at_start, at_end = gaps[0][0] == 0, gaps[-1][1] == len(text)
    if at_start and at_end:
        return 0, 0
    if at_end:
        return gaps[-1]
    if at_start or gaps[0][0] in marked:
        return gaps[0]  # what follows begins the text, or its item, as the removed did
    return max(gaps, key=lambda gap: text.count("\n", *gap))
