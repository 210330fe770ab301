"""Validation of user input: texts, numbers, choices."""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.errors import InputError, InvalidTextError, OptionError

WORD_CHARACTER = re.compile(r"\w")
BYTES = re.compile(r"(?P<number>\d+(\.\d+)?)\s*((?P<unit>[KMGT])(?P<binary>i)?)?B?", re.IGNORECASE)
BLANK_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Mn", "Zl", "Zp", "Zs"})
# The replacement character, and a vowel sign that was a combining mark until Unicode 14.
BLANK_SIGNS = frozenset("\ufffd\u1734")


def is_blank(text: str) -> bool:
    """Whether a text has nothing readable: no letter, digit, punctuation or symbol.

    White space, control and format characters (U+200B, U+FEFF, U+00AD), private ones, combining marks without a letter
    and replacement characters (U+FFFD) are blank, as a BERT tokenizer drops them.
    """
    # Nearly every text has a letter or digit at its start, which settles it.
    return not WORD_CHARACTER.search(text) and all(
        unicodedata.category(character) in BLANK_CATEGORIES or character in BLANK_SIGNS for character in text
    )


def check_text(value: object, what: str, *, may_be_empty: bool = False) -> str:
    """Return ``value`` if every tokenizer can read it. ``what`` names it in the error.

    Raises:
        InvalidTextError: not a string, empty or blank (see `is_blank`), or with a NUL or a lone surrogate in it.
    """
    if not isinstance(value, str):
        raise InvalidTextError(f"{what}: expected a string, got {type(value).__name__}")
    if not may_be_empty and not WORD_CHARACTER.search(value) and is_blank(value):
        raise InvalidTextError(
            f"{what}: expected some text, got {value[:20]!r}; it needs a letter, a digit or another visible character"
        )
    if (position := value.find("\0")) >= 0:
        raise InvalidTextError(f"{what}: NUL character at position {position}; remove it (is this binary data?)")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidTextError(
                f"{what}: lone surrogate {value[error.start]!r} at position {error.start}; "
                "decode the source with errors='replace'"
            ) from None
    return value


def check_choice(value: object, choices: Sequence[str], what: str) -> None:
    """Raise `OptionError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise OptionError(f"{what}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def refuse_options(options: Mapping[str, object], why: str) -> None:
    """Raise `OptionError` for an option that is not at its default. The value is omitted, since it may be a key."""
    for name, value in options.items():
        if value not in (None, "auto"):
            raise OptionError(f"{name}: {why}")


def check_number(value: object, what: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a float if it is a finite number in [low, high], else raise `OptionError`."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    # isfinite converts to a float, which fails for a very large integer.
    is_number = is_number and (not isinstance(value, int) or abs(value) <= sys.float_info.max)
    if not is_number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        bounds = "" if low == -math.inf else f" >= {low:g}" if high == math.inf else f" in [{low:g}, {high:g}]"
        raise OptionError(f"{what}: expected a finite number{bounds}, got {value!r:.60}")
    return float(value)  # type: ignore[arg-type]


def check_bytes(value: object, what: str) -> int:
    """Return bytes given as a whole number >= 0 or with a unit ("500MB", "1 GiB"), else raise `OptionError`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := BYTES.fullmatch(value.strip())):
        base = 1024 if found["binary"] else 1000
        return int(float(found["number"]) * base ** "BKMGT".index((found["unit"] or "B").upper()))
    raise OptionError(f'{what}: expected bytes, as a number or like "500MB" or "1GB", got {value!r:.60}')


def check_texts(
    value: object, what: str, *, plural: str | None = None, at_least_one: bool = False, or_one: bool = False
) -> tuple[str, ...]:
    """Return ``value`` as a tuple if it is a sequence of texts that pass `check_text`.

    Args:
        value: user input.
        what: name of a text in the error, followed by its index: "passage" for "passage 3".
        plural: name of all of them; ``what`` with an "s" by default.
        at_least_one: refuse an empty sequence.
        or_one: accept a string as a sequence of one.

    Raises:
        InputError: not a sequence, a string unless ``or_one``, or empty with ``at_least_one``.
        InvalidTextError: see `check_text`.
    """
    if or_one and isinstance(value, str):
        return (check_text(value, what),)
    several = plural or f"{what}s"
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Sequence):
        expected = f"{what}: expected a string or" if or_one else f"{several}: expected"
        raise InputError(f"{expected} a sequence of strings, got {type(value).__name__}")
    if at_least_one and not value:
        raise InputError(f"{several}: expected at least one, got none")
    return tuple([check_text(item, f"{what} {i}") for i, item in enumerate(value)])


def scores_and_outcomes(
    scores: ArrayLike, outcomes: ArrayLike, what: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and outcomes as arrays of one shape (examples,), at least one. ``what`` names the scores in errors.

    Raises:
        InputError: other shapes, none, scores that are no finite numbers, outcomes that are no booleans.
    """
    try:
        numbers, observed = np.asarray(scores, np.float64), np.asarray(outcomes)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected finite numbers with as many outcomes, got {scores!r:.60}") from error
    if numbers.ndim != 1 or numbers.shape != observed.shape:
        raise InputError(
            f"{what}: expected a row and as many outcomes, got shapes {numbers.shape} and {observed.shape}"
        )
    if not len(numbers):
        raise InputError(f"{what}: expected at least one, got none")
    if observed.dtype != np.bool_:
        raise InputError(f"outcomes: expected booleans, got {observed.dtype}; compare grades with a threshold first")
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{what}: expected finite numbers, got {numbers[~np.isfinite(numbers)][0]}; is the model broken?"
        )
    return numbers, observed


def check_both_occur(observed: NDArray[np.bool_]) -> None:
    """Raise `InputError` unless there are positive and negative outcomes."""
    if observed.all() or not observed.any():
        which = "all of them hold" if observed.all() else "none of them holds"
        raise InputError(f"outcomes: expected some that hold and some that do not, but {which}; add the other kind")
