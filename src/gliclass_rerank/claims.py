"""What a claim is: how one is put to the model, and which sentences make none."""

from __future__ import annotations

import re
from typing import Literal

Verdict = Literal["supported", "refuted", "not_enough_info"]

DENIAL = "It is false that {claim}"
"""How a claim is denied; the models are trained with these very words."""


def claim_labels(claim: str) -> tuple[str, str]:
    """The two labels that a claim is judged by: itself (support) and its denial (refutation)."""
    return claim, DENIAL.format(claim=claim)


def verdict_of(support: float, refute: float, threshold: float = 0.5, refute_threshold: float = 0.5) -> Verdict:
    """The likelier of supported and refuted where its probability reaches its threshold; all numbers in [0, 1]."""
    if support >= threshold and support >= refute:
        return "supported"
    if refute >= refute_threshold and refute > support:
        return "refuted"
    return "not_enough_info"


# In doubt a sentence claims something: to check one too many costs little, to miss one is an error.
CLOSING = " \"'”’»)]*_"
QUESTION = ("?", "？", "؟")
COURTESY = re.compile(
    r"(hi|hello|hey|dear|greetings|good (morning|afternoon|evening|day))( there| all| everyone| \w+)?"
    r"|(many )?thanks( a lot| again)?|thank you( very much| so much| again| for (asking|your \w+))*"
    r"|you('re| are) welcome|(yes|no|sure|certainly|absolutely|of course|okay|ok)( thing)?"
    r"|(great|good|excellent|interesting) question|(best|kind|warm)? ?regards"
    r"|i hope (this|that|it) (helps|is helpful|answers your question)|(i'm |i am )?(happy|glad) to help",
    re.IGNORECASE,
)
REQUEST = re.compile(
    r"(please(?! (note|remember|be aware|keep in mind))|let me know|let's|feel free|do(n't| not) hesitate)\b",
    re.IGNORECASE,
)
ANNOUNCEMENT = re.compile(
    r"(here (is|are)|here's|below (is|are)|the following|(in|to) (summary|sum up|summari[sz]e)|let me|i('ll| will))\b",
    re.IGNORECASE,
)
HEADING_WORDS = 3


def claims_something(sentence: str) -> bool:
    """Whether a sentence says what evidence could support or refute. English rules; whatever they do not name, does.

    No claims are

    - questions: they end with a question mark,
    - greetings and courtesies that are the whole sentence: "Hello!", "Great question!", "I hope this helps.",
    - requests: they begin with "please" (but for "please note"), "let me know", "feel free", "let's",
    - headings: at most three words and a colon, "Key facts:" (those of Markdown are told by their marker),
    - announcements: "Here is", "The following", "In summary" and the like at the beginning, a colon at the end.
    """
    plain = sentence.strip(CLOSING).replace("’", "'")
    if plain.endswith(QUESTION) or REQUEST.match(plain) or COURTESY.fullmatch(plain.rstrip(".!,:")):
        return False
    if plain.endswith((":", "：")):
        return len(plain.split()) > HEADING_WORDS and not ANNOUNCEMENT.match(plain)
    return True
