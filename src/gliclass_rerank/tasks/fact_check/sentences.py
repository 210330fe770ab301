"""Split a text into sentences, as ranges of the text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gliclass_rerank.tasks.fact_check.blocks import Block, find_blocks, plain_block
from gliclass_rerank.tasks.fact_check.markup import BULLETS, Mark, find_marks, plain_part, read
from gliclass_rerank.tasks.fact_check.sentence_ends import sentence_ends
from gliclass_rerank.types import Span

LINE_END = re.compile(r"\r(?!\n)|[\x85\u2028\u2029]")
OTHER_SPACE = re.compile(r"[^\S\n]")
NUMBER = re.compile(r"([0-9]{1,3})[.)] +(?=\S)")
REFERENCE = re.compile(r"\[\^?([0-9]{1,3})\]:? +(?=[^\s.,;:)])")
BORDER = re.compile(
    r"(?P<tags>\n\s*\n)|(?:^|(?<=[:;.!?,])\s|\n)\s*(?:and |or )?(?P<number>\(?(?P<value>[0-9]{1,3})[.)])\s+(?=\S)"
)
LONG = 1000  # characters; a longer sentence is also split at its line ends


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence or a block of a text, without white space around it.

    Attributes:
        start, end: half-open range of code points.
        marker: range of the marker before it: bullets, "1.", "#", ">", or a table's header. All sentences of an item,
            and all rows of a table, share it.
        block: the block, if it is fenced code, JSON or a table row.
    """

    start: int
    end: int
    marker: Span | None = None
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text, its sentences, and the marks of its markup, all in their order."""

    text: str
    sentences: Sequence[Sentence]
    marks: Sequence[Mark]

    def plain(self, sentence: Sentence) -> str:
        """The rendered text of a sentence, without markup and citation marks."""
        if sentence.block:
            block = plain_block(self.text, sentence.block)
            return block if sentence.block.kind == "code" else plain_part(block, 0, len(block), find_marks(block))
        return plain_part(self.text, sentence.start, sentence.end, self.marks)

    def is_heading(self, sentence: Sentence) -> bool:
        """Whether a sentence is a Markdown heading."""
        return sentence.marker is not None and self.text[slice(*sentence.marker)].endswith("#")


def split_sentences(text: str) -> list[Sentence]:
    """Split a text at its paragraphs, list items, headings and sentences. All but white space is in one of them.

    Fenced code, JSON and each table row are one sentence. A single line end does not end a sentence, unless a list item
    or a heading begins, a colon or a line without letters and digits stands before it, or the sentence is very long.
    Numbers begin an item only if they count: "1." does, "42." does after "41.", also within a line: "Two: 1. One.
    2. Two.". HTML tags of blocks end a sentence. Closing marks and citations belong to the sentence before them.
    """
    return list(split(text).sentences)


def split(text: str) -> SplitText:
    """The sentences of a text, as by `split_sentences`, with its marks."""
    # sentencex 1.0.32 panics at an initial after white space beyond ASCII ("\u00a0A."), and reads "\r\n" as two ends.
    # Each code point is replaced by one, so that offsets stay valid.
    plain = OTHER_SPACE.sub(" ", LINE_END.sub("\n", text))
    blocks = find_blocks(plain)
    marks = find_marks(plain, [(block.start, block.end) for block in blocks])
    counted: set[int] = set()
    sentences: list[Sentence] = []
    position = 0
    for block in blocks:
        start = block.header[0] if block.header else block.start
        sentences += _prose_sentences(plain, (position, start), counted, marks)
        sentences.append(Sentence(block.start, block.end, block.header, block))
        position = block.end
    sentences += _prose_sentences(plain, (position, len(plain)), counted, marks)
    return SplitText(text, sentences, marks)


def _prose_sentences(plain: str, span: Span, counted: set[int], marks: Sequence[Mark]) -> Iterator[Sentence]:
    for part in _parts(plain, span, counted):
        if not plain[part.start : part.end].strip():
            continue
        for one in _Part(plain, part, marks).sentences():
            yield from _lines(plain, one) if one.end - one.start > LONG else _stripped(plain, one)


def _parts(plain: str, span: Span, counted: set[int]) -> Iterator[Sentence]:
    """Divide a range into parts that no sentence crosses, some of them blank."""
    position = start = span[0]
    marker: Span | None = None
    closed = False
    for line in plain[slice(*span)].splitlines(keepends=True):
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
    """Range of a line's marker, if it has one. Its number is added to ``counted``."""
    bullets = BULLETS.match(line)
    end = bullets.end() if bullets else 0
    if number := NUMBER.match(line, end) or REFERENCE.match(line, end):
        value = int(number[1])
        if value == 1 or value - 1 in counted:
            counted.add(value)
            end = number.end()
    marker = line[:end]
    return (end - len(marker.lstrip()), len(marker.rstrip())) if marker.strip() else None


def _lines(plain: str, sentence: Sentence) -> Iterator[Sentence]:
    start = sentence.start
    for line in plain[start : sentence.end].splitlines(keepends=True):
        yield from _stripped(plain, Sentence(start, start + len(line), sentence.marker))
        start += len(line)


def _stripped(plain: str, sentence: Sentence) -> Iterator[Sentence]:
    """The sentence without the white space around it; nothing if it is blank."""
    text = plain[sentence.start : sentence.end]
    if stripped := text.strip():
        start = sentence.start + len(text) - len(text.lstrip())
        yield Sentence(start, start + len(stripped), sentence.marker)


class _Part:
    """A part of a text that no sentence crosses. Sentence ends are searched in its text without marks."""

    def __init__(self, plain: str, part: Sentence, marks: Sequence[Mark]) -> None:
        self._text, self._part = plain, part
        first, last = (bisect_left(marks, place, key=lambda mark: mark.start) for place in (part.start, part.end))
        self._marks = {mark.start: mark for mark in marks[first:last]}
        self._opening = {mark.end: mark for mark in marks[first:last] if mark.side == "opening"}
        self._code = [
            (mark.start, mark.partner) for mark in marks[first:last] if mark.is_code and mark.side == "opening"
        ]
        self._reading = read(plain, part.start, part.end, marks)

    def sentences(self) -> Iterator[Sentence]:
        """Its sentences, with the white space around them."""
        position, marker, begin = self._part.start, self._part.marker, 0
        for stop, following, own in [*self._borders(), (len(self._reading.text), 0, None)]:
            for end in sentence_ends(self._reading.text[begin:stop]):
                place = self._place(begin + end)
                if place > position and not any(first < place <= (last or 0) for first, last in self._code):
                    yield Sentence(position, place, marker)
                    position = place
            begin = following
            if own:
                yield Sentence(position, own[0], marker)
                position, marker = own[1], own
        yield Sentence(position, self._part.end, marker)

    def _borders(self) -> Iterator[tuple[int, int, Span | None]]:
        """Ends and new beginnings in the text without marks: at tags of blocks, and at list numbers."""
        found = [*BORDER.finditer(self._reading.text)]
        values = {int(one["value"]) for one in found if one["value"]}
        expected = self._next_number()
        for one in found:
            if one["tags"]:
                yield *one.span(), None
                continue
            marker, is_emphasised = self._number(one)
            value = int(one["value"])
            if is_emphasised or (value == expected and (value > 1 or 2 in values)):
                expected = value + 1
                yield one.start("number"), one.end(), marker

    def _next_number(self) -> int:
        number = re.search(r"([0-9]+)[.)]$", self._text[slice(*self._part.marker)]) if self._part.marker else None
        return int(number[1]) + 1 if number else 1

    def _number(self, found: re.Match[str]) -> tuple[Span | None, bool]:
        """Range of a list number, and whether it is emphasised. Emphasised with its text, it is no marker."""
        start, end = self._reading.ends[found.start("number")] - 1, self._reading.ends[found.end("number") - 1]
        opening = self._opening.get(start)
        if opening is None:
            return (start, end), False
        if opening.partner == end:
            return (opening.start, self._marks[end].end), True
        return None, True

    def _place(self, end: int) -> int:
        """Text position of an end in the text without marks, after the marks that belong to the sentence before it."""
        seen = len(self._reading.text[:end].rstrip())
        place = self._reading.ends[seen - 1] if seen else self._part.start
        while (mark := self._marks.get(place)) and mark.side == "closing":
            place = mark.end
        return place
