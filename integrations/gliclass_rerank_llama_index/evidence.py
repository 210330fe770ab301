"""Check an answer against retrieved texts, some of which may be blank."""

from __future__ import annotations

from collections.abc import Sequence

from gliclass_rerank import FactChecker, FactReport
from gliclass_rerank.validation import is_blank


def has_text(texts: Sequence[str]) -> bool:
    return not all(map(is_blank, texts))


def check_by(checker: FactChecker, answer: str, texts: Sequence[str]) -> FactReport:
    """`FactChecker.check` on the non-blank texts, at least one. Those of images, for instance, are blank.

    Blank ones support and refute nothing. ``evidence`` of each claim is an index into all texts.
    """
    places = [i for i, text in enumerate(texts) if not is_blank(text)]
    return checker.check(answer, [texts[i] for i in places]).renumbered(places)
