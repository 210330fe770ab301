"""Data types shared by all modules: requests, logits, results. Frozen, and independent of any backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.errors import InputError
from gliclass_rerank.validation import check_choice, check_number, check_text, check_texts

if TYPE_CHECKING:
    from gliclass_rerank.calibration.calibrators import Calibrator

Direction = Literal["passage-as-text", "passage-as-label"]
LabelAttention = Literal["joint", "independent"]
LongText = Literal["window", "truncate", "error"]
Span = tuple[int, int]
"""Half-open range of code points, ``text[start:end]``."""

FloatArray = NDArray[np.float32]
NO_VECTOR: FloatArray = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Example:
    """A solved example for the model: a text and the labels that apply to it."""

    text: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        check_text(self.text, "example text")
        object.__setattr__(self, "labels", check_texts(self.labels, "example label"))


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One text and the labels to score against it.

    Args:
        text: the text that the model reads (a passage, a query, evidence). Not empty.
        labels: at least one, or none with ``vector``; duplicates keep their places.
        prompt: a task description before the text, for checkpoints trained with one.
        examples: solved examples; mappings with "text" and "labels" are accepted too.
        long_text: treatment of a text that does not fit: "window" reads all of it in overlapping windows, "truncate"
            reads its beginning and sets ``truncated`` in the result, "error" raises.
        vector: also give the vector of the text, see `Logits.vector`. Only for models that embed (``info.embeds``).
        similarity: add this times the cosine of the vectors of the text and of each label to the label's logit. Only
            for models that embed. Each label is read once as a text for it.

    Raises:
        InvalidTextError: a text that no tokenizer can read.
        InputError, OptionError: no labels, or an unknown value of ``long_text``.
    """

    text: str
    labels: tuple[str, ...]
    prompt: str = ""
    examples: tuple[Example, ...] = ()
    long_text: LongText = "window"
    vector: bool = False
    similarity: float = 0.0

    def __post_init__(self) -> None:
        check_text(self.text, "text")
        check_text(self.prompt, "prompt", may_be_empty=True)
        check_choice(self.long_text, get_args(LongText), "long_text")
        check_number(self.similarity, "similarity")
        object.__setattr__(self, "labels", check_texts(self.labels, "label", at_least_one=not self.vector))
        object.__setattr__(self, "examples", tuple(_as_example(example) for example in self.examples))

    @classmethod
    def of_checked(
        cls,
        text: str,
        labels: tuple[str, ...],
        *,
        prompt: str = "",
        examples: tuple[Example, ...] = (),
        long_text: LongText = "window",
        vector: bool = False,
        similarity: float = 0.0,
    ) -> ScoreRequest:
        """Create a request from texts already checked by `check_text`, without checking them again."""
        request = object.__new__(cls)
        for name, value in (
            ("text", text), ("labels", labels), ("prompt", prompt), ("examples", examples), ("long_text", long_text),
            ("vector", vector), ("similarity", similarity),
        ):  # fmt: skip
            object.__setattr__(request, name, value)
        return request


class Logits(np.ndarray[Any, np.dtype[np.float32]]):
    """Raw logits of one request, float32, shape (labels,), with the windows of the text.

    The values are the largest logit of each label over the windows of the text. Arrays derived from this one (slices,
    sums, NumPy's copies) lose the attributes: ``spans`` is then empty.

    Attributes:
        spans: code-point range of each window in the request's text, in reading order.
        per_window: float32, shape (windows, labels).
        truncated: some of the text was not read (``long_text="truncate"``).
        unread_text: the model's vocabulary covers (almost) nothing of the text, so the logits are meaningless.
        unread_labels: positions of the labels of which it covers (almost) nothing, whose logits are meaningless.
        vector: of the text, float32, shape (D,), of length 1; shape (0,) unless it was asked for. Cosines of two
            vectors tell how alike two texts are. That of a long text is the mean over its windows.
    """

    spans: tuple[Span, ...]
    per_window: FloatArray
    truncated: bool
    unread_text: bool
    unread_labels: tuple[int, ...]
    vector: FloatArray

    @classmethod
    def over_windows(
        cls,
        per_window: FloatArray,
        spans: Sequence[Span],
        *,
        truncated: bool = False,
        unread_text: bool = False,
        unread_labels: Sequence[int] = (),
        vector: FloatArray = NO_VECTOR,
    ) -> Logits:
        """Reduce ``per_window`` (float32, shape (windows, labels)) to one logit per label, and store it."""
        largest = per_window.max(axis=0).astype(np.float32)
        return _restore_logits(largest, per_window, tuple(spans), truncated, unread_text, tuple(unread_labels), vector)

    def __array_finalize__(self, source: object) -> None:
        self.spans, self.truncated = (), False
        self.unread_text, self.unread_labels = False, ()
        self.per_window, self.vector = np.empty((0, 0), np.float32), NO_VECTOR

    def __copy__(self) -> Logits:
        restore, (values, per_window, *rest, vector) = self.__reduce__()
        return restore(values.copy(), per_window.copy(), *rest, vector.copy())

    def __deepcopy__(self, memo: object) -> Logits:
        return self.__copy__()

    def __reduce__(self) -> tuple[Callable[..., Logits], tuple[Any, ...]]:
        """Keep the attributes when the array is pickled, for results that cross processes."""
        values = np.asarray(self)
        return _restore_logits, (
            values, self.per_window, self.spans, self.truncated, self.unread_text, self.unread_labels, self.vector
        )  # fmt: skip


def _restore_logits(
    values: FloatArray,
    per_window: FloatArray,
    spans: tuple[Span, ...],
    truncated: bool,
    unread_text: bool,
    unread_labels: tuple[int, ...],
    vector: FloatArray,
) -> Logits:
    logits = values.view(Logits)
    logits.spans, logits.per_window, logits.truncated = spans, per_window, truncated
    logits.unread_text, logits.unread_labels, logits.vector = unread_text, unread_labels, vector
    return logits


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Information about a loaded model.

    Attributes:
        name: "mini", a folder's name or a hub id.
        revision: hub commit, or a fingerprint of configuration and weights.
        architecture: "uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder", "encoder-decoder-cls",
            "decoder-kv", "generative" for an OpenAI-compatible server, "decision" for a decision server, or
            "escalating".
        backend: "onnx", "torch", "http" for a service, "openai", "systemone", "decisions", or "escalating".
        device: "cpu", "cuda:0", ..., or the URL of the service.
        dtype: "int8", "fp32", "bf16", "fp16", or "unknown" for a server of others.
        max_length: tokens of one pass, labels and special tokens included; 0 if a server does not report it.
        direction: which of query and passage this model was trained to read as its text.
        first_stage_weight: log-odds that one standard deviation of a first-stage score is worth, if it was fitted.
        similarity: the ``similarity`` of requests that suits the model, by task ("relevance", "labels"), if it was
            fitted.
        calibration: calibrators from logits to calibrated log-odds, by task ("relevance", "support", "refutation",
            "labels", "noul", "choice-2", ...). Uncalibrated tasks are absent.
        kernel: types of activations and weights in the products of an int8 graph, "u8s8", or "u8u8" on processors where
            onnxruntime's u8s8 products saturate; else "".
        independent_labels: a label's logit is the same whatever other labels are asked. Otherwise it may depend on
            them, and on their order.
        embeds: it gives vectors of texts, with ``embed`` or `ScoreRequest.vector`.
        prompts: it was trained with prompts (`ScoreRequest.prompt`). To others a prompt is more text.
    """

    name: str
    revision: str
    architecture: str
    backend: str
    device: str
    dtype: str
    max_length: int
    direction: Direction = "passage-as-text"
    first_stage_weight: float | None = None
    similarity: Mapping[str, float] = field(default_factory=dict, hash=False)
    calibration: Mapping[str, Calibrator] = field(default_factory=dict, hash=False)
    kernel: str = ""
    independent_labels: bool = False
    embeds: bool = False
    prompts: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether its folder has a fitted calibration for any task."""
        return bool(self.calibration)


class Scorer(Protocol):
    """Any object that scores labels against texts: a local model, a service, a test's fake.

    It may also have a method ``labels_share_pass``, see `gliclass_rerank.scoring.labels_share_pass`.
    """

    @property
    def info(self) -> ModelInfo: ...

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        """Return one float32 array of raw logits per request, shape (labels,), in the order of its labels.

        Scorers of `load_scorer` return `Logits`, with the windows of a long text.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """One passage of a ranking.

    Attributes:
        index: position of the passage in the caller's list.
        score: in [0, 1], the sort key of the ranking. Calibrated if the model has a calibrator (task "relevance").
        logit: the model's raw relevance logit (fused over several queries), before calibration and first-stage scores.
        truncated: the end of the passage was not read (``long_text="truncate"``).
        window: code points of the best window of a passage too long for one pass, else None.
        criteria: probability of each extra criterion, in [0, 1].
        readable: the model's vocabulary covers words of the passage and of all queries and criteria; otherwise the
            score is meaningless.
    """

    index: int
    score: float
    logit: float
    truncated: bool = False
    window: Span | None = None
    criteria: Mapping[str, float] = field(default_factory=dict)
    readable: bool = True


def _as_example(example: object) -> Example:
    if isinstance(example, Example):
        return example
    if isinstance(example, Mapping) and {"text", "labels"} <= example.keys():
        return Example(example["text"], example["labels"])
    raise InputError(f"example: expected Example(text, labels), got {example!r:.80}")
