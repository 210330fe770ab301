"""Make a sentence false by rule: another number, date, unit, name or quantifier, or a negation (after FactCC, 2020).

Each rule returns a changed sentence, or None where it finds nothing to change. The changed sentence contradicts the
first one, or at least does not follow from it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

NUMBER = re.compile(r"(?<![\w.,-])\d{1,3}(?:,\d{3})+(?![\w-])|(?<![\w.,-])\d+(?:\.\d+)?(?![\w-])(?!\.\d)")
YEAR = re.compile(r"\b(?:1[5-9]|20)\d\d\b")
MONTHS = (
    "January February March April May June July August September October November December"
).split()  # fmt: skip
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
WORDS_OF_NUMBER = "two three four five six seven eight nine ten twelve twenty thirty fifty".split()
NAME = re.compile(r"(?<=[\w,;] )(?:[A-Z][\w'’-]+)(?: (?:of |the |de )?[A-Z][\w'’-]+)*")

OPPOSITES: dict[str, tuple[str, ...]] = {
    "all": ("no", "only some"), "every": ("no",), "each": ("no",), "many": ("few", "no"), "most": ("few", "none"),
    "several": ("no",), "some": ("no",), "few": ("many",), "always": ("never", "rarely"), "never": ("always",),
    "often": ("never", "rarely"), "usually": ("rarely",), "rarely": ("usually",), "sometimes": ("never",),
    "more": ("less", "fewer"), "less": ("more",), "fewer": ("more",), "most common": ("least common",),
    "largest": ("smallest",), "smallest": ("largest",), "highest": ("lowest",), "lowest": ("highest",),
    "longest": ("shortest",), "best": ("worst",), "worst": ("best",), "first": ("last", "second"),
    "last": ("first",), "before": ("after",), "after": ("before",), "above": ("below",), "below": ("above",),
    "increase": ("decrease",), "increases": ("decreases",), "increased": ("decreased",), "decrease": ("increase",),
    "decreases": ("increases",), "decreased": ("increased",), "higher": ("lower",), "lower": ("higher",),
    "larger": ("smaller",), "smaller": ("larger",), "better": ("worse",), "worse": ("better",),
    "required": ("optional",), "optional": ("required",), "allowed": ("forbidden",), "forbidden": ("allowed",),
    "enabled": ("disabled",), "disabled": ("enabled",), "true": ("false",), "false": ("true",), "with": ("without",),
    "without": ("with",), "include": ("exclude",), "includes": ("excludes",), "supports": ("does not support",),
    "at least": ("at most",), "at most": ("at least",), "more than": ("less than",), "less than": ("more than",),
    "won": ("lost",), "lost": ("won",), "won't": ("will",), "north": ("south",), "south": ("north",),
    "east": ("west",), "west": ("east",), "male": ("female",), "female": ("male",), "men": ("women",),
    "women": ("men",), "public": ("private",), "private": ("public",), "internal": ("external",),
    "early": ("late",), "late": ("early",), "old": ("new",), "new": ("old",), "positive": ("negative",),
    "negative": ("positive",), "possible": ("impossible",), "necessary": ("unnecessary",), "safe": ("unsafe",),
    "only": ("not only",), "must": ("need not", "must not"), "can": ("cannot",), "cannot": ("can",),
    "can't": ("can",), "may": ("must",), "should": ("should not",), "will": ("will not",), "both": ("neither",),
    "hours": ("days",), "days": ("weeks", "hours"), "weeks": ("months",), "months": ("years",), "minutes": ("hours",),
    "seconds": ("minutes",), "years": ("months",), "million": ("billion", "thousand"), "billion": ("million",),
    "km": ("m",), "kg": ("g",), "mg": ("g",), "percent": ("million",), "meters": ("kilometers",),
    "miles": ("feet",), "feet": ("miles",), "euros": ("dollars",), "dollars": ("cents",),
}  # fmt: skip
OPPOSITE = re.compile(r"\b(" + "|".join(sorted(map(re.escape, OPPOSITES), key=len, reverse=True)) + r")\b", re.I)
NEGATED = re.compile(
    r"\b(is|are|was|were|has been|have been|had been|can|could|will|would|should|must|did|does|do) not\b"
)
VERB = re.compile(
    r"\b(is|are|was|were|can|could|will|would|should|must|may|might|has been|have been|had been)\b(?! not\b)"
)
PLAIN_VERB = re.compile(r"\b(\w{3,}[^s\W])s\b")


def number(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """Another number, of a similar size."""
    found = list(NUMBER.finditer(sentence))
    if not found:
        words = list(re.finditer(r"\b(" + "|".join(WORDS_OF_NUMBER) + r")\b", sentence))
        if not words:
            return None
        return _put(sentence, m := rng.choice(words), rng.choice([w for w in WORDS_OF_NUMBER if w != m[0]]))
    match = rng.choice(found)
    digits = match[0].replace(",", "")
    if YEAR.fullmatch(digits):
        return _put(sentence, match, str(int(digits) + rng.choice((-40, -12, -7, -3, -2, -1, 1, 2, 3, 8, 15, 30))))
    value = float(digits)
    new = value + rng.choice((1, 2, 3, -1)) if value < 20 and "." not in digits else value * rng.choice((0.5, 2, 3, 10))
    if new < 0 or new == value:
        new = value + 2
    shown = (
        f"{new:.{len(digits.partition('.')[2])}f}"
        if "." in digits
        else f"{round(new):,}"
        if "," in match[0]
        else str(round(new))
    )
    return _put(sentence, match, shown) if shown != match[0] else None


def date(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """Another month or day of the week."""
    for names in rng.sample((MONTHS, DAYS), 2):
        if found := [
            m
            for m in re.finditer(r"\b(" + "|".join(names) + r")\b", sentence)
            if m[0] != "May" or m.end() < len(sentence)
        ]:
            match = rng.choice(found)
            return _put(sentence, match, rng.choice([name for name in names if name != match[0]]))
    return None


def opposite(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """The opposite of a quantifier, a comparison, a modal verb or a unit."""
    found = list(OPPOSITE.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    new = rng.choice(OPPOSITES[match[0].lower()])
    return _put(sentence, match, new[0].upper() + new[1:] if match[0][0].isupper() else new)


def negation(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """A "not" more, or one less."""
    if match := NEGATED.search(sentence):
        return _put(sentence, match, match[1])
    if match := VERB.search(sentence):
        return _put(sentence, match, f"{match[1]} not" if match[1] != "can" else "cannot")
    return None


def name(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """Another name, from another sentence of the passage where there is one."""
    found = [m for m in NAME.finditer(sentence) if m[0] not in MONTHS + DAYS]
    choices = [other for other in others if all(other not in m[0] and m[0] not in other for m in found)]
    if not found or not choices:
        return None
    return _put(sentence, rng.choice(found), rng.choice(choices))


def swap(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """Two names of the sentence in each other's place."""
    found = [m for m in NAME.finditer(sentence) if m[0] not in MONTHS + DAYS]
    if len(found) < 2 or found[0][0] == found[1][0]:
        return None
    first, second = found[0], found[1]
    return (
        sentence[: first.start()] + second[0] + sentence[first.end() : second.start()] + first[0]
        + sentence[second.end() :]
    )  # fmt: skip


Rule = Callable[[str, random.Random, Sequence[str]], str | None]
RULES: tuple[Rule, ...] = (number, number, date, opposite, opposite, negation, negation, name, swap)


def corrupted(sentence: str, rng: random.Random, others: Sequence[str] = ()) -> str | None:
    """The sentence changed by one rule, drawn at random among those that apply, or None.

    Args:
        others: names that may take the place of a name of the sentence.
    """
    for rule in rng.sample(RULES, len(RULES)):
        changed = rule(sentence, rng, others)
        if changed and changed != sentence:
            return changed
    return None


def names_of(text: str) -> list[str]:
    """Names in a text, without months and days."""
    return [match[0] for match in NAME.finditer(text) if match[0] not in MONTHS + DAYS]


def _put(sentence: str, match: re.Match[str], new: str) -> str:
    return sentence[: match.start()] + new + sentence[match.end() :]
