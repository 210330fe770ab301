"""Claims: the labels that judge one, the verdict, and the sentences that make no claim."""

from __future__ import annotations

import re
from typing import Literal

Verdict = Literal["supported", "refuted", "not_enough_info"]

DENIAL = "It is false that {claim}"
"""Denial of a claim. The models are trained with this wording."""


def claim_labels(claim: str) -> tuple[str, str]:
    """The two labels that a claim is judged by: itself (support) and its denial (refutation)."""
    return claim, DENIAL.format(claim=claim)


def verdict_of(support: float, refute: float, threshold: float = 0.5, refute_threshold: float = 0.5) -> Verdict:
    """The more probable of supported and refuted if it reaches its threshold. All numbers in [0, 1]."""
    if support >= threshold and support >= refute:
        return "supported"
    if refute >= refute_threshold and refute > support:
        return "refuted"
    return "not_enough_info"


LETTERS = re.compile(r"[^\W\d_]")
# Ends of lines, clauses and words.
PART_ENDS = [re.compile(border) for border in (r"\n", r"[,;:.!?)}\]]\s|[，、；：。！？]", r"\s")]


def has_claim(text: str) -> bool:
    """Whether a text is long enough for a claim: two letters, or one beyond ASCII. A bare number is too short."""
    letters = LETTERS.findall(text)
    return len(letters) > 1 or any(not letter.isascii() for letter in letters)


def divide_claim(text: str, size: int) -> list[str]:
    """Divide a text into parts of at most ``size`` characters, after lines, else clauses, else words, else anywhere.

    Parts without letters and digits are left out.
    """
    parts = []
    while len(text) > size:
        ends = ([found.end() for found in border.finditer(text, 0, size)] for border in PART_ENDS)
        end = next((found[-1] for found in ends if found), size)
        parts.append(text[:end].strip())
        text = text[end:]
    return [part for part in [*parts, text.strip()] if any(map(str.isalnum, part))]


# In doubt a sentence is a claim: checking one too many costs little, missing one is an error.
CLOSING = " \"'”’»)]*_"
QUESTION = ("?", "？", "؟")
ASKS = re.compile(
    r"¿|(who|whom|whose|what|when|where|why|how|which|is|are|was|were|am|do|does|did|can|could|would|will|shall"
    r"|should|may|might|has|have|had|any|anything|need|want)\b(?! ?n['o]t\b)(?!.*\bknow\b)",
    re.IGNORECASE,
)
TAG = re.compile(
    r", ?(\w+n't \w+|(is|was|does|did|do|has|have|are|were|can|will) \w+|right|correct|no|yes|ok|okay|eh)\?$"
)
COURTESY = re.compile(
    r"(hi|hello|hey|dear|greetings|good (morning|afternoon|evening|day))( there| all| everyone| \w+)?"
    r"|(many )?thanks( a lot| again)?|thank you( very much| so much| again| for (asking|your \w+))*"
    r"|you('re| are) welcome|(sure|certainly|absolutely|of course|okay|ok)( thing)?"
    r"|(great|good|excellent|interesting) question|(best|kind|warm)? ?regards"
    r"|i hope (this|that|it) (helps|is helpful|answers your question)|(i'm |i am )?(happy|glad) to help",
    re.IGNORECASE,
)
# The rest of a request has no number, no second part, and no verb of a statement except after "if".
REST = r"(?!.*\b(?:that|is|are|was|were|has|had)\b)[^0-9,;:—]*"
REQUEST = re.compile(
    r"(please,? )?(let (me|us) know( (if|whether|what|which|how|when|should)\b[^0-9,;:—]*)?"
    rf"|feel free to\b{REST}|do(n't| not) hesitate to\b{REST}|let's (see|look|start|begin|go|dive|explore)\b{REST})"
    rf"|please,? (read|see|refer|contact|visit|check|try|ask|tell|provide|share|clarify|consult|review)\b{REST}",
    re.IGNORECASE,
)
ANNOUNCEMENT = re.compile(
    r"(here (is|are)|here's|below (is|are)|the following( (is|are))?|(in|to) (summary|sum up|summari[sz]e)|let me"
    r"|i('ll| will))\b(?!.*\b(?:that|is|are|was|were|has|had|have)\b)[^0-9,;—]*:",
    re.IGNORECASE,
)
STATEMENT = re.compile(r"[0-9.!]|\b(is|are|was|were|has|have|had|will|can|cannot|does|did)\b", re.IGNORECASE)
FEW_WORDS = 3


def claims_something(sentence: str, *, is_heading: bool = False) -> bool:
    """Whether a sentence states something that evidence could support or refute, by rules for English.

    Every sentence is a claim except

    - questions: a question word or verb first, or at most three words; "It is big, isn't it?" and "Did you know that
      it is big?" are claims,
    - greetings and courtesies that are the whole sentence: "Hello!", "Great question!", "I hope this helps.",
    - requests that are the whole sentence: "Please read on.", "Let me know if you need more.", "Feel free to ask.",
    - announcements: "Here is", "The following", "In summary" and the like at the beginning, a colon at the end, no
      number and no verb between,
    - headings: at most three words and a colon, "Key facts:", or marked as such (``is_heading``), and no statement.

    A bare "Yes." or "No." is a claim: it answers a question that is not known here.
    """
    plain = sentence.strip(CLOSING).replace("’", "'")
    words = len(plain.split())
    if plain.endswith(QUESTION):
        return bool(
            TAG.search(plain) or not (words <= FEW_WORDS or ASKS.match(plain)) or sentence.rstrip().endswith(")")
        )
    if REQUEST.fullmatch(plain.rstrip(".!")) or COURTESY.fullmatch(plain.rstrip(".!,:")):
        return False
    if plain.endswith((":", "：")):
        return not (ANNOUNCEMENT.fullmatch(plain) or (words <= FEW_WORDS and not STATEMENT.search(plain)))
    return not is_heading or bool(STATEMENT.search(plain))
