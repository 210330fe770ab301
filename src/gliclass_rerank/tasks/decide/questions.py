"""Questions about a state: yes or no (`Noul`), one of several options (`Choice`), a level (`Score`).

Each question is read as labels, one per possible answer. A label has all that the model is told: neither the name of
the question nor other questions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gliclass_rerank.errors import InputError
from gliclass_rerank.tasks.decide.state import Json, optional_text, text_of
from gliclass_rerank.validation import check_text

MAX_OPTIONS = 255
"""Largest number of options of a choice, and of levels of a score."""
MAX_QUESTIONS = 400
"""Largest number of questions about one state."""
YES, NO = "Yes", "No"
INSTRUCTIONS_FIRST = True
"""Whether the instructions of a choice or score precede each option in its label."""


@dataclass(frozen=True, slots=True)
class Question(ABC):
    """Base of `Noul`, `Choice` and `Score`."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Labels in the model's input, one per possible answer."""


@dataclass(frozen=True, slots=True)
class Noul(Question):
    """A question whose answer is yes or no.

    Args:
        instructions: the question, or a statement to judge: a string, or an object or array, which is read as JSON.
        true: when the answer is yes, in words.
        false: when the answer is no, in words.

    Raises:
        InputError: neither instructions nor a described side, or a value that is no text, object or array.
    """

    instructions: Json | None = field(default=None, hash=False)
    true: Json | None = field(default=None, hash=False)
    false: Json | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        _ = self.labels

    @property
    def labels(self) -> tuple[str, str]:
        """Labels in the model's input, of yes and of no.

        The answer, or the description of its side, follows the instructions: "Is it urgent? Yes". Without
        instructions, descriptions stand alone. If only one side is described, it takes the place of the instructions.
        """
        asked = optional_text(self.instructions, "instructions")
        true, false = optional_text(self.true, "criteria of true"), optional_text(self.false, "criteria of false")
        if asked:
            return f"{asked} {true or YES}", f"{asked} {false or NO}"
        if true and false:
            return true, false
        if true:
            return f"{true} {YES}", f"{true} {NO}"
        if false:
            return f"{false} {NO}", f"{false} {YES}"
        raise InputError("noul: expected instructions, or criteria for true or false, got none of them")


@dataclass(frozen=True, slots=True, init=False)
class Choice(Question):
    """A question whose answer is one of several options.

    Args:
        instructions: the question: a string, or an object or array, which is read as JSON; None without one.
        options: 1 to 255 names, each with a description or None. Or a sequence of names.

    Raises:
        InputError: no options or too many, an empty name, a name twice, or a value that is no text, object or array.
    """

    instructions: Json | None = field(hash=False)
    options: Mapping[str, Json | None] = field(hash=False)

    def __init__(self, instructions: Json | None, options: Mapping[str, Json | None] | Sequence[str]) -> None:
        object.__setattr__(self, "instructions", instructions)
        object.__setattr__(self, "options", _options(options))
        _ = self.labels

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the model's input, one per option: its name, or "name: description", after the instructions."""
        asked = optional_text(self.instructions, "instructions")
        return tuple(
            _label(asked, described(name, optional_text(about, f"description of {name!r:.60}")))
            for name, about in self.options.items()
        )


@dataclass(frozen=True, slots=True)
class Score(Question):
    """A question whose answer is a level on a scale.

    Args:
        instructions: the question: a string, or an object or array, which is read as JSON; None without one.
        levels: 1 to 255 descriptions, from the lowest level to the highest.

    Raises:
        InputError: no sequence, no levels or too many, or a value that is no text, object or array.
    """

    instructions: Json | None = field(hash=False)
    levels: Sequence[Json] = field(hash=False)

    def __post_init__(self) -> None:
        if isinstance(self.levels, str | bytes) or not isinstance(self.levels, Sequence):
            got = type(self.levels).__name__
            raise InputError(f"levels: expected a sequence, from the lowest to the highest, got {got}")
        _check_count(len(self.levels), "levels")
        object.__setattr__(self, "levels", tuple(self.levels))
        _ = self.labels

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the model's input, one per level: its description, after the instructions."""
        asked = optional_text(self.instructions, "instructions")
        return tuple(_label(asked, text_of(level, f"level {i}")) for i, level in enumerate(self.levels))


def described(name: str, description: str) -> str:
    """Text of an option: "name: description", or the name if there is no description."""
    return f"{name}: {description}" if description else name


def _label(instructions: str, option: str) -> str:
    return f"{instructions} {option}" if instructions and INSTRUCTIONS_FIRST else option


def check_questions(questions: object) -> dict[str, Question]:
    """Return questions by name if there are 1 to `MAX_QUESTIONS`, else raise `InputError`."""
    if not isinstance(questions, Mapping):
        raise InputError(f"questions: expected a mapping from name to question, got {type(questions).__name__}")
    if not questions:
        raise InputError("questions: expected at least one, got none")
    if len(questions) > MAX_QUESTIONS:
        raise InputError(f"questions: expected at most {MAX_QUESTIONS}, got {len(questions)}; divide them")
    for name, question in questions.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"questions: expected names that are texts and not empty, got {name!r:.60}")
        if not isinstance(question, Noul | Choice | Score):
            raise InputError(f"question {name!r:.60}: expected Noul, Choice or Score, got {type(question).__name__}")
    return dict(questions)


def read_questions(value: object) -> dict[str, Question]:
    """Read questions from JSON, in the form of `/v1/systemone`.

    An object from name to ``{"type": "noul" | "choice" | "score", "instructions": ..., "criteria": ...}``. The criteria
    are ``{"true": ..., "false": ...}``, an object from option to description or null, or an array of levels.

    Raises:
        InputError: another form. The message names the question.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"questions: expected an object from name to question, got {type(value).__name__}")
    read: dict[str, Question] = {}
    for name, question in value.items():
        try:
            read[name] = _question(question)
        except InputError as error:
            raise InputError(f"question {name!r:.60}: {error}") from error
    return check_questions(read)


def _question(value: object) -> Question:
    if not isinstance(value, Mapping):
        raise InputError(f"expected an object, got {type(value).__name__}")
    kind, instructions, criteria = value.get("type"), value.get("instructions"), value.get("criteria")
    if kind == "noul":
        sides: Any = {} if criteria is None else criteria
        if not isinstance(sides, Mapping) or sides.keys() - {"true", "false"}:
            raise InputError(f'criteria: expected {{"true": ..., "false": ...}}, got {criteria!r:.60}')
        return Noul(instructions, sides.get("true"), sides.get("false"))
    if kind == "choice":
        if not isinstance(criteria, Mapping):
            raise InputError(f"criteria: expected an object from option to description, got {criteria!r:.60}")
        return Choice(instructions, criteria)
    if kind == "score":
        if not isinstance(criteria, list):
            raise InputError(f"criteria: expected an array of levels, from low to high, got {criteria!r:.60}")
        return Score(instructions, criteria)
    raise InputError(f"type: expected 'noul', 'choice' or 'score', got {kind!r:.60}")


def _options(options: object) -> dict[str, Json | None]:
    """Options as a new dict, checked but for their descriptions."""
    if isinstance(options, str | bytes) or not isinstance(options, Mapping | Sequence):
        raise InputError(f"options: expected a mapping from name to description, got {type(options).__name__}")
    _check_count(len(options), "options")
    names = [check_text(name, f"option {i}") for i, name in enumerate(options)]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"options: expected each name once, got {twice!r:.60} twice")
    return dict(options) if isinstance(options, Mapping) else dict.fromkeys(names)


def _check_count(count: int, what: str) -> None:
    if not 1 <= count <= MAX_OPTIONS:
        raise InputError(f"{what}: expected 1 to {MAX_OPTIONS}, got {count}; divide the question")
