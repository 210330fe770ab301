"""A small real scorer for tests of what stands above scoring: no model, no weights, no surprises."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gliclass_rerank import LabelTooLongError, Logits, ModelInfo, ScoreRequest
from gliclass_rerank.types import NO_VECTOR, Direction, FloatArray, Span

INFO = ModelInfo("overlap", "1", "uni-encoder", "fake", "cpu", "fp32", 512)


class OverlapScorer:
    """Counts the words that a label shares with a text: 2 * shared - 3 is its logit. A prompt precedes the text.

    Like a model it reads a text in windows, of ``window`` words, and keeps the best logit of each label. With
    ``embeds`` it also gives vectors, which depend on the words that were read.

    Attributes:
        calls: how many requests each call of `score` had.
    """

    def __init__(
        self,
        *,
        window: int | None = None,
        direction: Direction = "passage-as-text",
        first_stage_weight: float | None = None,
        embeds: bool = False,
        prompts: bool = False,
    ) -> None:
        self._window = window
        self.info = ModelInfo(
            INFO.name, INFO.revision, INFO.architecture, INFO.backend, INFO.device, INFO.dtype, INFO.max_length,
            direction=direction, first_stage_weight=first_stage_weight, embeds=embeds, prompts=prompts,
        )  # fmt: skip
        self.calls: list[int] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.calls.append(len(requests))
        return [self._score(request) for request in requests]

    def _score(self, request: ScoreRequest) -> FloatArray:
        if self._window is None and not request.vector:
            return self._logits(f"{request.prompt} {request.text}", request.labels)
        spans = windows(request.text, self._window or len(request.text))
        read = spans[:1] if request.long_text == "truncate" else spans
        rows = np.stack(
            [self._logits(f"{request.prompt} {request.text[start:end]}", request.labels) for start, end in read]
        )
        vector = word_vector(request.text[: read[-1][1]]) if request.vector else NO_VECTOR
        return Logits.over_windows(rows, read, truncated=len(read) < len(spans), vector=vector)

    def _logits(self, text: str, labels: Sequence[str]) -> FloatArray:
        words = set(text.lower().split())
        return np.array([2 * len(words & set(label.lower().split())) - 3 for label in labels], np.float32)


class ShortScorer(OverlapScorer):
    """Refuses labels of more than 60 characters, as a model does whose tokens are characters."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        for label in (label for request in requests for label in request.labels):
            if len(label) > 60:
                raise LabelTooLongError(label)
        return super().score(requests)


class ConstantScorer:
    """Gives every label the same logit, NaN for instance."""

    info = INFO

    def __init__(self, logit: float) -> None:
        self._logit = logit

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        return [np.full(len(request.labels), self._logit, np.float32) for request in requests]


def word_vector(text: str) -> FloatArray:
    """A vector of length 1 that depends on each word of a text."""
    words = text.lower().split()
    summed = np.sum([np.random.default_rng(list(word.encode())).normal(size=8) for word in words], axis=0)
    unit: FloatArray = (summed / np.linalg.norm(summed)).astype(np.float32)
    return unit


def windows(text: str, words: int) -> list[Span]:
    """Ranges of code points that hold so many words each, the last perhaps fewer."""
    ends = [i + 1 for i, c in enumerate(text) if not c.isspace() and (i + 1 == len(text) or text[i + 1].isspace())]
    cuts = [0, *ends[words - 1 : -1 : words], len(text)]
    return list(pairwise(cuts))
