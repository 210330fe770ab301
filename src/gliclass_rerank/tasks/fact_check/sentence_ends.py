"""Ends of sentences: sentencex's rules with corrections for abbreviations and missed ends."""

from __future__ import annotations

import re
from itertools import accumulate

import sentencex

BEFORE_NUMBER = re.compile(
    r"(?:^|[^\w.])(?:approx|ca|max|min|est|[Ee]qs?|[Ff]igs?|(?:[Ss]ub)?[Ss]ec(?:t|s)?|[Cc]h(?:ap)?|[Vv]ols?|Nos?|Nr|pp?|Arts?|[Pp]aras?"
    r"|Tab|[Rr]efs?|App|Bd|Abb|Kap|(?:[A-Z]\w*)?[Ss]tr|[Pp]t|[Cc]irca)\.$"
)
NUMBER_FOLLOWS = re.compile(r"[(\[]?(?:[$€£]?\d|[A-Z]?\d|[IVX]{2,}\b|[B-HJ-Z]\b)")  # "I" and "A" begin sentences
BEFORE_NAME = re.compile(r"(?:^|[^\w.])(?:Ms|Mrs?|Mx|Mme|Mlle|Dr|Prof|Ft|Mt|Gen|Lt|Col|Sgt|Capt|Maj|Rev|Gov|Sen)\.$")
NO_NAME = re.compile(r"(?:He|She|It|They|We|I|You|The|A|An|This|That|These|Those|In|On|At|But|And)\b")
INSIDE = re.compile(r"(?:\b(?:[^\W\d_aeiouyAEIOUY]{1,5}|oz|inkl|evtl|approx|ca|est|max|min|dept|[IVX]+)|\.\w+)\.$")
DAYS = r"(?:Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)"
MONTHS = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
DAY_OR_MONTH = re.compile(rf"\b(?:{DAYS}|{MONTHS})\.$")
DATE_FOLLOWS = re.compile(rf"\d|{DAYS}\b|{MONTHS}\b")
HOUR = re.compile(r"\d ?[ap]\. ?m\.$", re.IGNORECASE)
TIME_FOLLOWS = re.compile(rf"(?:{DAYS}|{MONTHS})[a-z]*\b|[A-Z]{{1,4}}T\b|UTC\b|[a-z]")
ORDINAL = re.compile(
    r"\b(?:der|die|das|dem|den|des|am|im|vom|zum|zur|beim|seit|bis|eine[mnrs]?) \d{1,3}\.$", re.IGNORECASE
)
GERMAN_MONTH = re.compile(r"(?:Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember)\b")
CITED_WORK = re.compile(r"\bal\.,? ?[(\[][^()\[\]]*[)\]]$")

MISSED = re.compile(r"(?<=[.!?]) (?=\([A-Z][^()]*[.!?]\)(?: [A-Z]|$))|(?<=[.!?]\)) (?=[A-Z])|(?<= etc\.) (?=[A-Z])")


def sentence_ends(text: str) -> list[int]:
    """Ends of the sentences of a text, with the white space after them. The last is the end of the text.

    Abbreviations before a number or a name end no sentence ("approx. 5 kg", "Eq. 4", "9 a.m. Monday"). Ordinals in
    German ("am 3. Mai") and names with a full stop in them ("ASP.NET") end none either. Sentencex's English rules cover
    the full stops of other scripts.
    """
    ends = {*accumulate(len(piece) for piece in sentencex.segment("en", text)), *map(_end, MISSED.finditer(text))}
    start, found = 0, []
    for end in sorted(end for end in ends if 0 < end < len(text)):
        if not _goes_on(text[start:end], text[end : end + 40]):
            found.append(end)
            start = end
    return [*found, len(text)]


def _end(found: re.Match[str]) -> int:
    return found.end()


def _goes_on(before: str, after: str) -> bool:
    """Whether a sentence continues after an end found by sentencex."""
    is_apart = before[-1].isspace() or after[:1].isspace()
    before, after = before.rstrip()[-60:], after.lstrip()
    if not is_apart:
        return bool(re.search(r"[A-Za-z]\.$", before) and re.match(r"[A-Z]{2,}\b", after))
    return bool(
        (BEFORE_NUMBER.search(before) and NUMBER_FOLLOWS.match(after))
        or (BEFORE_NAME.search(before) and after[:1].isupper() and not NO_NAME.match(after))
        or (INSIDE.search(before) and after[:1].islower())
        or (DAY_OR_MONTH.search(before) and DATE_FOLLOWS.match(after))
        or (HOUR.search(before) and TIME_FOLLOWS.match(after))
        or (re.search(r"\d\.$", before) and (GERMAN_MONTH.match(after) or ORDINAL.search(before)))
        or (CITED_WORK.search(before) and after[:1].islower())
    )
