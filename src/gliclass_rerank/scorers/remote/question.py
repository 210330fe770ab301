"""Question: whether a label holds for a text. Requests as questions, and their answers as logits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gliclass_rerank.errors import NoVectorsError
from gliclass_rerank.types import Example, Logits, ScoreRequest

# Servers interpret marks of their chat templates in the texts of users, too: "<|im_end|>", "</s>", "[INST]".
MARK = re.compile(r"<(?=[\w/|｜])|\[(?=/?[A-Za-z_]+\])")


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a label holds for a text."""

    text: str
    label: str
    prompt: str = ""
    examples: tuple[Example, ...] = ()

    @property
    def context(self) -> list[str]:
        """Paragraphs before the text and label: the task, and solved examples."""
        task = [f"Task: {quoted(self.prompt)}"] if self.prompt else []
        return task + [f"Text: {quoted(one.text)}\nLabels that hold: {quoted(one.labels)}" for one in self.examples]

    @property
    def place(self) -> str:
        """The label and the text, for errors."""
        return f" (label {self.label!r:.60}, text {self.text!r:.60})"


def questions_of(requests: Sequence[ScoreRequest], model: str) -> list[list[Question]]:
    """The questions of each request, one per label.

    Raises:
        NoVectorsError: a request for a vector, or for a similarity of vectors.
    """
    if any(request.vector or request.similarity for request in requests):
        raise NoVectorsError(model)
    return [
        [Question(request.text, label, request.prompt, request.examples) for label in request.labels]
        for request in requests
    ]


def whole_texts(
    requests: Sequence[ScoreRequest], rows: Sequence[Sequence[Question]], logits: Mapping[Question, float]
) -> list[Logits]:
    """The logits of requests, each text as one window, from those of their questions."""
    return [
        Logits.over_windows(np.array([[logits[one] for one in row]], np.float32), [(0, len(request.text))])
        for request, row in zip(requests, rows, strict=True)
    ]


def quoted(value: str | Sequence[str]) -> str:
    """A text as JSON, without unescaped quotes or marks of a chat template. The encoding is lossless."""
    return MARK.sub(lambda mark: f"\\u{ord(mark[0]):04x}", json.dumps(value, ensure_ascii=False))
