"""Find inline markup (emphasis, code spans, links, HTML tags, citation marks) and read a text without it."""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from gliclass_rerank.tasks.fact_check.citations import CITATION, is_citation
from gliclass_rerank.types import Span

URL = r"(?:[^()\s]|\([^()\s]*\))*(?:[ ]+\"[^\"\n]*\")?"
CODE = r"(?P<code>(?P<ticks>`+)(?!`)(?:(?!\n[ ]*\n)[^`]){1,1000}(?P=ticks)(?!`))|(?P<escape>\\[*_~`\#])"
MARKUP = rf"""
    (?P<image>[ \t]{{0,3}}!\[[^\[\]\n]{{0,400}}\]\({URL}\))
    |(?P<link>\[(?=[^\[\]]{{1,400}}\]\({URL}\)))
    |(?P<link_end>\]\({URL}\))
    |(?P<comment><!--(?:(?!<!--).)*?-->)
    |(?P<tag><(?P<slash>/?)(?P<name>[A-Za-z][A-Za-z0-9]*)(?:\s[^<>]{{0,1000}})?/?>)
    |(?P<entity>&(?:[A-Za-z]{{2,8}}|\#\d{{1,6}});)
    |(?P<url>https?://[^\s<>()\[\]*"`]*[^\s<>()\[\]*"`_~.,;:!?])
    |(?P<emphasis>\*+|_+|~~)
    |(?P<border>\n[ \t]*\n|\n(?=[ \t>]{{0,12}}(?:[-*+•]|[0-9]+[.)]|\#{{1,6}})[ ]))
"""
TOKEN = re.compile(rf"{CODE}|(?P<citation>{CITATION})|{MARKUP}", re.VERBOSE | re.DOTALL)
UNCITED = re.compile(MARKUP, re.VERBOSE | re.DOTALL)
BULLETS = re.compile(r"\s*(?:(?:[-*+•◦▪‣·–>]|#{1,6})\s+)*")
NUMBER = re.compile(r"\s*[0-9]{1,3}[.)]\s+(?=\S)")
VOID = frozenset("br hr img wbr input".split())
BLOCK = frozenset(
    "p div ul ol li dl dt dd table thead tbody tfoot tr blockquote pre section article header footer main figure "
    "figcaption details summary h1 h2 h3 h4 h5 h6 br hr".split()
)
INLINE = frozenset(
    "a abbr b big cite code del em font i ins kbd mark q s small span strike strong sub sup tt u td th".split()
)
CELL = ("td", "th")


@dataclass(frozen=True, slots=True)
class Mark:
    """Characters that are invisible in the rendered text.

    Attributes:
        start, end: half-open range of code points.
        side: "opening" marks belong to the text after them, "closing" marks to the text before them. "content" is part
            of the text itself: an entity, or the backslash of an escape.
        partner: start of the other mark of a pair, None for a mark that stands alone.
        reads: text that replaces the mark.
        is_code: whether the text between the pair is code, in which nothing else is markup.
    """

    start: int
    end: int
    side: Literal["opening", "closing", "content"] = "closing"
    partner: int | None = None
    reads: str = ""
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of a text without its marks. ``ends[i]`` is the end of ``text[i]`` in the whole text."""

    text: str
    ends: Sequence[int]


def plain_text(text: str) -> str:
    """The text as rendered from Markdown or HTML, without citation marks and surrounding white space.

    Emphasis, headings, bullets, links, images, HTML tags and citation marks are left out. Text that only resembles
    markup stays: "a * b", "snake_case", "x[1]", "5 < 6 > 3".
    """
    bullets = BULLETS.match(text)
    return plain_part(text, bullets.end() if bullets else 0, len(text), find_marks(text))


def plain_part(text: str, start: int, end: int, marks: Sequence[Mark]) -> str:
    """`plain_text` of ``text[start:end]``, given the marks that `find_marks` found in the whole text.

    An emphasised list number at its beginning, "**1. Paris** is big.", is left out, too.
    """
    plain = read(text, start, end, marks).text
    place = bisect_left(marks, start, key=_start)
    is_marked = place < len(marks) and marks[place].start == start and marks[place].side == "opening"
    return (NUMBER.sub("", plain, count=1) if is_marked and NUMBER.match(plain) else plain).strip()


def read(text: str, start: int, end: int, marks: Sequence[Mark]) -> Reading:
    """Read ``text[start:end]`` without the marks that begin in it. ``marks`` are those of the whole text."""
    parts: list[str] = []
    ends: list[int] = []
    position = start
    for mark in marks[bisect_left(marks, start, key=_start) : bisect_left(marks, end, key=_start)]:
        parts += [text[position : mark.start], mark.reads]
        ends += [*range(position + 1, mark.start + 1), *[mark.end] * len(mark.reads)]
        position = mark.end
    parts.append(text[position:end])
    ends += range(position + 1, end + 1)
    return Reading("".join(parts), ends)


def find_marks(text: str, skipped: Collection[Span] = ()) -> list[Mark]:
    """Find the marks of a text in their order, outside the ranges ``skipped``."""
    finder = _Finder(text)
    position = 0
    for start, end in [*sorted(skipped), (len(text), len(text))]:
        for token in TOKEN.finditer(text, position, start):
            if token["citation"] is None or is_citation(text, token):
                finder.take(token)
            else:
                for one in UNCITED.finditer(text, *token.span()):
                    finder.take(one)
        position = end
        finder.leave_paragraph()
    return finder.marks()


def _start(mark: Mark) -> int:
    return mark.start


class _Finder:
    """Pairs the tokens of a text, which must be given in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[Mark] = []
        self._open = _Stack()  # emphasis and links, of one paragraph
        self._tags = _Stack()

    def take(self, token: re.Match[str]) -> None:
        span = start, end = token.span()
        match token.lastgroup:
            case "code":
                width = len(token["ticks"])
                self._pair((start, start + width), (end - width, end), is_code=True)
            case "escape":
                self._found.append(Mark(start, start + 1, "content"))
            case "image" | "comment" | "citation":
                self._found.append(Mark(start, end))
            case "entity":
                reads = html.unescape(token[0])
                self._found.append(Mark(start, end, "content" if reads.strip() else "closing", reads=reads))
            case "link":
                self._open.push("[", span)
            case "link_end":
                self._close("[", span)
            case "emphasis":
                self._take_emphasis(token[0], span)
            case "tag":
                self._take_tag(token["name"].lower(), span, is_end=bool(token["slash"]))
            case "border":
                self.leave_paragraph()

    def leave_paragraph(self) -> None:
        """Discard open emphasis and links. Only tags may be closed in another paragraph."""
        self._open.clear()

    def marks(self) -> list[Mark]:
        """All marks, in their order."""
        return sorted([*self._found, *_unclosed(self._tags.clear())], key=_start)

    def _take_emphasis(self, kind: str, span: Span) -> None:
        before, after = self._text[: span[0]][-1:], self._text[span[1] :][:1]
        closes = bool(before.strip()) and not _joins(after, kind)
        opens = bool(after.strip()) and not _joins(before, kind)
        if not (closes and self._close(kind, span)) and opens:
            self._open.push(kind, span)

    def _close(self, kind: str, span: Span) -> bool:
        """Pair a span with the last open one of its kind and discard those opened since. False if none is open."""
        opening = self._open.pop(kind)
        if opening is not None:
            self._pair(opening[0], span)
        return opening is not None

    def _take_tag(self, name: str, span: Span, *, is_end: bool) -> None:
        if name in VOID:
            self._found.append(Mark(*span, reads="\n" if name in BLOCK else ""))
        elif not is_end and name in BLOCK | INLINE:
            self._tags.push(name, span)
        elif is_end and (last := self._tags.pop(name)) is not None:
            opening, since = last
            self._found += _unclosed(since)
            self._pair(opening, span, *self._tag_reads(name, self._text[opening[1] : span[0]]))

    def _tag_reads(self, name: str, inside: str) -> tuple[str, str]:
        if name in BLOCK:
            return "\n\n", "\n\n"
        if name in CELL:
            return " ", " "
        return ("^" if name == "sup" and inside.strip("-−").isdigit() else ""), ""

    def _pair(self, opening: Span, closing: Span, *reads: str, is_code: bool = False) -> None:
        first, second = reads or ("", "")
        self._found.append(Mark(*opening, "opening", closing[0], first, is_code))
        self._found.append(Mark(*closing, "closing", opening[0], second, is_code))


class _Stack:
    """Open marks by kind. A search returns at once if none of its kind is open, so that parsing takes linear time."""

    def __init__(self) -> None:
        self._items: list[tuple[str, Span]] = []
        self._counts: Counter[str] = Counter()

    def push(self, kind: str, span: Span) -> None:
        self._items.append((kind, span))
        self._counts[kind] += 1

    def pop(self, kind: str) -> tuple[Span, list[tuple[str, Span]]] | None:
        """Remove the last mark of a kind, and all that were opened since: they can no longer be closed."""
        if not self._counts[kind]:
            return None
        since: list[tuple[str, Span]] = []
        while True:
            found, span = self._items.pop()
            self._counts[found] -= 1
            if found == kind:
                return span, since[::-1]
            since.append((found, span))

    def clear(self) -> list[tuple[str, Span]]:
        """Remove and return all marks."""
        items, self._items, self._counts = self._items, [], Counter()
        return items


def _unclosed(tags: Sequence[tuple[str, Span]]) -> list[Mark]:
    """Marks of tags that HTML allows without an end tag. Others are text, "a <b" for instance."""
    return [Mark(*span, "opening", reads="\n\n") for name, span in tags if name in BLOCK]


def _joins(neighbour: str, kind: str) -> bool:
    """Whether a character beside emphasis makes it part of a word. Scripts without spaces allow ``**`` there."""
    return neighbour.isalnum() and (neighbour < "\u2e80" or "_" in kind)
