"""Messages to decision servers: ``POST /v1/systemone`` of TypeSafe and ``POST /v1/decisions`` of OpenAI."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gliclass_rerank.scorers.remote.protocol import parse_response
from gliclass_rerank.scorers.remote.question import Question, quoted

WORDING = (
    "Is the label a topic or category of the text, a question that the text answers, or a statement that the text "
    "supports?"
)
SMALLEST = 2.0**-53
"""Probabilities are clipped to [SMALLEST, 1 - SMALLEST], between which a float holds everything but rounded 0 and 1."""


def instructions(question: Question) -> str:
    """The question about a label: `WORDING`, the task's prompt, solved examples, and last the label, as JSON strings.

    The text is the state.
    """
    return "\n\n".join([WORDING, *question.context, f"Label: {quoted(question.label)}"])


def log_odds(probability: float) -> float:
    """log(p / (1 - p)) of a probability clipped to [2**-53, 1 - 2**-53]: in [-36.8, 36.8]."""
    clipped = min(1 - SMALLEST, max(SMALLEST, probability))
    return math.log(clipped) - math.log1p(-clipped)


def systemone_body(model: str, questions: Sequence[Question]) -> bytes:
    """The body of ``POST /v1/systemone``: questions about one text as nouls, named "q0", "q1", ..."""
    asked = {name: {"type": "noul", "instructions": instructions(one)} for name, one in _named(questions)}
    return _json({"model": model, "state": questions[0].text, "questions": asked})


def decisions_body(model: str, questions: Sequence[Question]) -> bytes:
    """The body of ``POST /v1/decisions``: questions about one text as predicates, named "q0", "q1", ..."""
    asked = [{"type": "predicate", "name": name, "instructions": instructions(one)} for name, one in _named(questions)]
    return _json({"model": model, "input": questions[0].text, "questions": asked})


def read_nouls(body: bytes, where: str, questions: Sequence[Question]) -> list[float]:
    """Read the response of ``POST /v1/systemone``: the probability of yes of each question.

    Raises:
        ServiceError: a missing or unknown answer, one of another type, or no probability.
    """
    return parse_response(lambda: _nouls(json.loads(body), questions), where, _expected(questions))


def read_predicates(body: bytes, where: str, questions: Sequence[Question]) -> list[float]:
    """Read the response of ``POST /v1/decisions``: the probability of yes of each question.

    Raises:
        ServiceError: another number of answers, one with another name or type (a refusal), or no probability.
    """
    return parse_response(lambda: _predicates(json.loads(body), questions), where, _expected(questions))


def _nouls(answer: Any, questions: Sequence[Question]) -> list[float]:
    answers = answer["answers"]
    named = dict(_named(questions))
    for name, question in named.items():
        if name not in answers:
            raise ValueError(f"no answer{question.place}")
    if unknown := sorted(set(answers) - set(named)):
        raise ValueError(f"an answer to {unknown[0]!r:.60}, which was not asked")
    return [_probability(answers[name], "noul", "noul", question) for name, question in named.items()]


def _predicates(answer: Any, questions: Sequence[Question]) -> list[float]:
    answers = answer["answers"]
    if not isinstance(answers, list) or len(answers) != len(questions):
        raise ValueError(f"{len(answers)} answers")
    for (name, question), one in zip(_named(questions), answers, strict=True):
        if one.get("name") not in (None, name):
            raise ValueError(f"an answer with the name {one['name']!r:.60} instead of {name!r}{question.place}")
    return [
        _probability(one, "predicate", "probability", question)
        for question, one in zip(questions, answers, strict=True)
    ]


def _probability(answer: Mapping[str, Any], kind: str, field: str, question: Question) -> float:
    if answer["type"] != kind:
        raise ValueError(f"an answer of type {answer['type']!r:.60} instead of {kind!r}{question.place}")
    value = answer[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r:.60} instead of a probability in [0, 1]{question.place}")
    return float(value)


def _named(questions: Sequence[Question]) -> list[tuple[str, Question]]:
    return [(f"q{i}", question) for i, question in enumerate(questions)]


def _expected(questions: Sequence[Question]) -> str:
    return f"probabilities that answer {len(questions)} yes-or-no questions"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
