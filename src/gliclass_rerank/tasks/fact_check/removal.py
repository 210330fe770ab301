"""Remove sentences from a text and keep its markup valid."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence

from gliclass_rerank.tasks.fact_check.markup import Mark
from gliclass_rerank.tasks.fact_check.sentences import Sentence, SplitText
from gliclass_rerank.types import Span


def remove_sentences(split: SplitText, removed: Collection[Sentence]) -> str:
    """Remove sentences from a text and leave the rest unchanged.

    The white space after a sentence is removed too, or that before it if the one after separates more (at the end of a
    paragraph or the text, for example). Of several sentences in a row, one white space stays likewise. A list marker is
    removed with all sentences of its item, a table's header with all rows, and a pair of marks ("**", tags) with all
    text in it.
    """
    gone = set(removed)
    staying = {one.marker for one in split.sentences if one.marker and one not in gone}
    spans = {(one.start, one.end) for one in gone} | ({one.marker for one in gone if one.marker} - staying)
    kept, emptied = _pairs(split, gone)
    starting = {end for _, end in staying} | {mark.end for mark in kept if mark.side == "opening"}
    ending = {mark.start for mark in kept if mark.side == "closing"}
    parts, position = [], 0
    for run in _runs(split.text, [*_without(sorted({*spans, *emptied}), kept)]):
        gaps = _gaps(split.text, run)
        parts += [split.text[position : gaps[0][0]], _gap_that_stays(split.text, gaps, starting, ending)]
        position = gaps[-1][1]
    return "".join([*parts, split.text[position:]])


def _pairs(split: SplitText, gone: Collection[Sentence]) -> tuple[list[Mark], list[Span]]:
    """The marks, in order, of pairs with text left inside, and the ranges of pairs that have lost all their text."""
    left = [one for one in split.sentences if one not in gone and split.plain(one)] if gone else []
    lost = sorted(gone, key=_end)
    by_start = {mark.start: mark for mark in split.marks}
    kept: list[Mark] = []
    emptied: list[Span] = []
    for opening in split.marks:
        if opening.side == "opening" and opening.partner is not None:
            closing = by_start[opening.partner]
            if _any_between(left, opening.end, closing.start):
                kept += [opening, closing]
            elif _any_between(lost, opening.end, closing.start):
                emptied += [(opening.start, opening.end), (closing.start, closing.end)]
    return sorted(kept, key=_end), emptied


def _any_between(sentences: Sequence[Sentence], start: int, end: int) -> bool:
    place = bisect_right(sentences, start, key=_end)
    return place < len(sentences) and sentences[place].start < end


def _end(one: Sentence | Mark) -> int:
    return one.end


def _without(spans: Sequence[Span], marks: Sequence[Mark]) -> Iterator[Span]:
    """The union of spans minus the marks. Spans and marks must be in order."""
    position = place = 0
    for start, end in spans:
        position = max(position, start)
        while place < len(marks) and marks[place].end <= position:
            place += 1
        while place < len(marks) and marks[place].start < end:
            if position < marks[place].start:
                yield position, marks[place].start
            position = max(position, marks[place].end)
            place += 1
        if position < end:
            yield position, end
            position = end


def _runs(text: str, spans: Sequence[Span]) -> list[list[Span]]:
    """Group spans with only white space between them. The spans must be in order."""
    runs: list[list[Span]] = []
    for start, end in spans:
        inside = text[start:end]
        start, end = start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        if start >= end:
            continue
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


def _gap_that_stays(text: str, gaps: Sequence[Span], starting: Collection[int], ending: Collection[int]) -> str:
    at_start, at_end = gaps[0][0] == 0, gaps[-1][1] == len(text)
    first, last = text[slice(*gaps[0])], text[slice(*gaps[-1])]
    if at_start and at_end:
        return ""
    if at_end or (gaps[-1][1] in ending and gaps[0][0] not in starting):
        return last
    if gaps[0][0] in starting:
        return first  # the following text begins its item or its pair of marks, as the removed text did
    most = first if at_start else text[slice(*max(gaps, key=lambda gap: (text.count("\n", *gap), gap[0] < gap[1])))]
    if "\n" not in last:
        return most
    # The following text keeps its own indentation, which determines its list.
    return most[: most.rfind("\n") + 1] + last[last.rfind("\n") + 1 :]
