"""Decisions with known answers, for fitting the calibrators of `Decider`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gliclass_rerank.calibration.calibrators import Calibrator, Kind
from gliclass_rerank.calibration.fitting import fit_calibrator, fit_softmax_temperature
from gliclass_rerank.errors import InputError
from gliclass_rerank.scoring import run
from gliclass_rerank.tasks.decide.answers import Floats, task_of
from gliclass_rerank.tasks.decide.decider import Decider
from gliclass_rerank.tasks.decide.questions import Choice, Noul, Question, Score, read_questions
from gliclass_rerank.tasks.decide.state import Json, text_of
from gliclass_rerank.types import Scorer


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A state, questions about it, and the position of the true label of each: 0 for yes, 1 for no."""

    state: Json = field(hash=False)
    questions: Mapping[str, Question] = field(hash=False)
    answers: Mapping[str, int] = field(hash=False)


def read_decisions(file: Path) -> list[DecisionRecord]:
    """Read decision records, JSON lines ``{"state": ..., "questions": {...}, "answers": {...}}``.

    States and questions are those of `/v1/systemone`. Answers are true or false, the name of an option, or the number
    of a level, from 0.

    Raises:
        InputError: the file cannot be read or is empty, or a record is malformed. File and line are named.
    """
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    records = [_record(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise InputError(f"{file}: expected at least one record, found none")
    return records


def decision_logits(scorer: Scorer, records: Sequence[DecisionRecord]) -> dict[str, list[tuple[Floats, int]]]:
    """Raw logits of each question, and the position of its true label, by task. Questions of one label are left out."""
    decider, found = Decider(scorer), dict[str, list[tuple[Floats, int]]]()
    for record in records:
        logits = run(decider.logits(record.state, record.questions), scorer)
        for name, question in record.questions.items():
            if len(question.labels) > 1:
                found.setdefault(task_of(question), []).append((logits[name][0], record.answers[name]))
    return found


def fit_decisions(
    scorer: Scorer, records: Sequence[DecisionRecord], kind: Kind = "platt", *, fitted_on: str | None = None
) -> dict[str, Calibrator]:
    """Fit a calibrator for each task of the records: of this kind for "noul", a temperature for the others.

    Raises:
        InputError: logits that tell nothing about the answers, or nouls that all have the same one.
        MissingExtraError: scikit-learn is not installed.
    """
    fitted: dict[str, Calibrator] = {}
    for task, judged in decision_logits(scorer, records).items():
        rows, true = [row for row, _ in judged], [place for _, place in judged]
        if task == "noul":
            pairs = np.stack(rows)
            fitted[task] = fit_calibrator(pairs[:, 0] - pairs[:, 1], np.array(true) == 0, kind, fitted_on=fitted_on)
        else:
            fitted[task] = fit_softmax_temperature(rows, true, fitted_on=fitted_on)
    return fitted


def _record(line: str, where: str) -> DecisionRecord:
    try:
        value = json.loads(line)
        if not isinstance(value, dict) or not value.keys() >= {"state", "questions", "answers"}:
            raise InputError('expected an object with "state", "questions" and "answers"')
        text_of(value["state"], "state")
        questions, answers = read_questions(value["questions"]), value["answers"]
        if not isinstance(answers, dict) or answers.keys() != questions.keys():
            raise InputError("answers: expected one for each question, by name")
        return DecisionRecord(
            value["state"], questions, {name: _place(one, answers[name], name) for name, one in questions.items()}
        )
    except (ValueError, RecursionError) as error:  # JSON's, and InputError
        raise InputError(f"{where}: {error}") from error


def _place(question: Question, answer: Any, name: str) -> int:
    """The position of an answer among the labels of a question."""
    if isinstance(question, Noul) and isinstance(answer, bool):
        return 0 if answer else 1
    if isinstance(question, Choice) and isinstance(answer, str) and answer in question.options:
        return list(question.options).index(answer)
    if isinstance(question, Score) and type(answer) is int and 0 <= answer < len(question.levels):
        return answer
    raise InputError(
        f"answer {name!r:.60}: expected true or false, one of the options, or the number of a level, got {answer!r:.60}"
    )
