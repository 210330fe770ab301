"""The demo's questions and their judged answers, stored in the package (``questions.json``)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, TypeVar

from gliclass_rerank.demo.collection import load_collection
from gliclass_rerank.types import ScoreRequest

T = TypeVar("T")
Split = Literal["tune", "held_out"]
CALIBRATION_QUESTIONS = 50  # two passages each


@dataclass(frozen=True, slots=True)
class Question:
    """A question in everyday words, and the grade of each relevant passage (2: answers it directly, 1: helps)."""

    id: str
    query: str
    relevant: Mapping[str, int]
    split: Split


@dataclass(frozen=True, slots=True)
class Judged:
    """The questions that one Python version's collection can answer, and the judgments without a passage in it."""

    questions: tuple[Question, ...]
    missing_names: tuple[str, ...]
    dropped_questions: tuple[str, ...]


def load_questions() -> tuple[Question, ...]:
    """Return all questions of the package."""
    data = json.loads((resources.files("gliclass_rerank.demo") / "questions.json").read_text("utf-8"))
    return tuple(Question(**question) for question in data["questions"])


def judge(questions: Sequence[Question], known: Collection[str]) -> Judged:
    """Drop judgments of passages that are not in ``known``, and questions without remaining judgments."""
    missing = {name for question in questions for name in question.relevant if name not in known}
    kept, dropped = [], []
    for question in questions:
        relevant = {name: grade for name, grade in question.relevant.items() if name not in missing}
        if any(grade >= 1 for grade in relevant.values()):
            kept.append(Question(question.id, question.query, relevant, question.split))
        else:
            dropped.append(question.id)
    return Judged(tuple(kept), tuple(sorted(missing)), tuple(dropped))


def calibration_requests(cache_dir: Path | None = None) -> list[ScoreRequest]:
    """About a hundred typical requests, always the same, for `gliclass_rerank.export.onnx.export_checkpoint`.

    They use the questions of the split "tune" only. Each question is paired with a passage that answers it, and with
    one from anywhere in the collection.
    """
    passages = load_collection(cache_dir)
    texts = {passage.name: passage.text for passage in passages}
    tune = [question for question in judge(load_questions(), texts).questions if question.split == "tune"]
    chosen = _spread(tune, CALIBRATION_QUESTIONS)
    requests = []
    for question, other in zip(chosen, _spread(passages, len(chosen)), strict=True):
        answer = max(question.relevant, key=lambda name: question.relevant[name])
        requests += [ScoreRequest(text, (question.query,)) for text in (texts[answer], other.text)]
    return requests


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return ``count`` evenly spaced items, or all of them if there are fewer."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
