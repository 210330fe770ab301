"""A text without some of its sentences, with its markup whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence

from gliclass_rerank.tasks.fact_check.markup import Mark
from gliclass_rerank.tasks.fact_check.sentences import Sentence, SplitText
from gliclass_rerank.types import Span


def remove_sentences(split: SplitText, removed: Collection[Sentence]) -> str:
    """Leave sentences out of a text, and touch nothing else.

    With a sentence goes the white space after it; or that before it, where the one after separates more because it
    ends a paragraph or the text, say. Of several in a row, one white space stays likewise. A list marker goes when
    all sentences of its item do, a table's header with all rows, and a pair of marks ("**", tags) with all text in it.
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
    """The marks, in order, of pairs with text left inside, and the ranges of those that have lost all of theirs."""
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
    """The union of spans, in order, without marks, in order."""
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
    """Put spans, in order, between which there is only white space together."""
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
        return first  # what follows begins its item or its pair of marks, as the removed did
    most = first if at_start else text[slice(*max(gaps, key=lambda gap: (text.count("\n", *gap), gap[0] < gap[1])))]
    if "\n" not in last:
        return most
    # What follows keeps its own indentation, which says in which list it stands.
    return most[: most.rfind("\n") + 1] + last[last.rfind("\n") + 1 :]
