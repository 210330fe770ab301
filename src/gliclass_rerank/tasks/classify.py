"""Classifier: choose the labels that apply to a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.calibration.calibrators import Calibrator, calibrated, sigmoid
from gliclass_rerank.errors import InputError, OptionError
from gliclass_rerank.scorers.load import as_scorer
from gliclass_rerank.scoring import Plan, run
from gliclass_rerank.tasks.nested_labels import Labels, LabelSet, ScoreTree, check_count, is_list, label_sets
from gliclass_rerank.types import Example, FloatArray, Logits, LongText, Scorer, ScoreRequest, Span
from gliclass_rerank.unreadable import Places, Unreadable, naming, readable, refuse_unread
from gliclass_rerank.validation import check_choice, check_number, check_text, check_texts

Aggregate = Literal["max", "mean", "first"]
Threshold: TypeAlias = "float | Mapping[str, float]"
AnyExample: TypeAlias = "Example | Mapping[str, Any]"
Examples: TypeAlias = "Sequence[AnyExample] | Sequence[Sequence[AnyExample] | None]"
DEFAULT_THRESHOLD = 0.5  # for labels that a mapping of thresholds leaves out


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label of a classification.

    Attributes:
        label: its name. The levels of a nested label are joined, "sentiment.positive".
        score: in [0, 1].
        index: its position in the caller's labels, nested ones counted from the top down.
        window: code points of the window with its largest logit, in a text read in several windows, else None.
    """

    label: str
    score: float
    index: int
    window: Span | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """The labels that apply to one text.

    Attributes:
        labels: best first, equal ones in the order given. Multi-label: those that reach their threshold, perhaps none.
            Single-label: the best one, or the best ``top_k``.
        scores: of all labels, in [0, 1], in the order given; duplicates keep their places.
        truncated: the end of the text was not read (``long_text="truncate"`` or ``aggregate="first"``).
        tree: all scores in the nesting of the labels (with ``hierarchical=True``), else None.
        readable: the model's vocabulary covers words of the text and of every label; otherwise the scores are
            meaningless.
    """

    labels: tuple[LabelScore, ...]
    scores: tuple[float, ...]
    truncated: bool = False
    tree: ScoreTree | None = field(default=None, hash=False)
    readable: bool = True


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """Options of `Classifier.classify`, where they are described.

    Raises:
        OptionError: an option with an impossible value.
    """

    multi_label: bool = True
    threshold: Threshold = DEFAULT_THRESHOLD
    top_k: int | None = None
    hierarchical: bool = False
    aggregate: Aggregate = "max"
    long_text: LongText = "window"
    unreadable: Unreadable = "flag"

    def __post_init__(self) -> None:
        for name in ("multi_label", "hierarchical"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name}: expected True or False, got {getattr(self, name)!r:.60}")
        top_k = self.top_k
        if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            raise OptionError(f"top_k: expected a positive number or None, got {top_k!r:.60}")
        check_choice(self.aggregate, get_args(Aggregate), "aggregate")
        check_choice(self.long_text, get_args(LongText), "long_text")
        check_choice(self.unreadable, get_args(Unreadable), "unreadable")
        if isinstance(self.threshold, Mapping):
            for name, value in self.threshold.items():
                check_number(value, f"threshold of {name!r:.60}", low=0, high=1)
        else:
            check_number(self.threshold, "threshold", low=0, high=1)

    @property
    def reading(self) -> LongText:
        """How the scorer reads a long text. Only the first window is read if no other one counts."""
        return "truncate" if self.aggregate == "first" and self.long_text == "window" else self.long_text

    def check_labels(self, sets: Sequence[LabelSet]) -> None:
        """Check the options against the labels of all texts.

        Raises:
            OptionError: ``hierarchical`` with flat labels, or a threshold of an unknown label.
            InputError: ``hierarchical`` with a label that occurs twice at one place.
        """
        distinct = {id(labels): labels for labels in sets}.values()  # mostly all texts share one set
        for labels in distinct if self.hierarchical else ():
            if not labels.nested:
                raise OptionError(
                    f"hierarchical: expected nested labels, such as {{'tone': ['calm', 'angry']}}, "
                    f"got flat {labels.where}; nest them, or leave the option out"
                )
            labels.check_unique()
        if isinstance(self.threshold, Mapping):
            known = {name for labels in distinct for name in labels.names}
            for name in self.threshold:
                if name not in known:
                    raise OptionError(
                        f"threshold: {name!r:.60} is none of the labels; a nested one is named by its path, "
                        f"{sets[0].names[0]!r:.60} for instance"
                    )

    def threshold_of(self, name: str) -> float:
        return self.threshold.get(name, DEFAULT_THRESHOLD) if isinstance(self.threshold, Mapping) else self.threshold


class Classifier:
    """Choose the labels that apply to a text.

    A multi-label score is the sigmoid of the calibrated log-odds (the model's calibrator for the task "labels"), or of
    the raw logit if the model has none. Single-label scores are the softmax of the raw logits.

    Args:
        scorer: a `Scorer`, or an argument of `load_scorer` ("mini", a folder, a hub id).
        separator: joins the levels of a nested label in the model's input: "sentiment.positive".
    """

    def __init__(self, scorer: Scorer | str | Path = "mini", *, separator: str = ".") -> None:
        self.scorer: Scorer = as_scorer(scorer)
        self._separator = check_text(separator, "separator", may_be_empty=True)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a string is a sequence of strings, and means one text
        self,
        text_or_texts: str,
        labels: Labels | Sequence[Labels],
        *,
        multi_label: bool = ...,
        threshold: Threshold = ...,
        prompt: str | Sequence[str | None] | None = ...,
        examples: Examples | None = ...,
        rac: Examples | None = ...,
        top_k: int | None = ...,
        hierarchical: bool = ...,
        aggregate: Aggregate = ...,
        long_text: LongText = ...,
        unreadable: Unreadable = ...,
    ) -> Classification: ...

    @overload
    def classify(
        self,
        text_or_texts: Sequence[str],
        labels: Labels | Sequence[Labels],
        *,
        multi_label: bool = ...,
        threshold: Threshold = ...,
        prompt: str | Sequence[str | None] | None = ...,
        examples: Examples | None = ...,
        rac: Examples | None = ...,
        top_k: int | None = ...,
        hierarchical: bool = ...,
        aggregate: Aggregate = ...,
        long_text: LongText = ...,
        unreadable: Unreadable = ...,
    ) -> list[Classification]: ...

    def classify(
        self,
        text_or_texts: str | Sequence[str],
        labels: Labels | Sequence[Labels],
        *,
        multi_label: bool = True,
        threshold: Threshold = DEFAULT_THRESHOLD,
        prompt: str | Sequence[str | None] | None = None,
        examples: Examples | None = None,
        rac: Examples | None = None,
        top_k: int | None = None,
        hierarchical: bool = False,
        aggregate: Aggregate = "max",
        long_text: LongText = "window",
        unreadable: Unreadable = "flag",
    ) -> Classification | list[Classification]:
        """Score all labels against each text and select those that apply.

        Args:
            text_or_texts: one text, or several, which are scored as one batch and do not influence each other.
            labels: a sequence for all texts, or nested to any depth: ``{"sentiment": ["positive", "negative"]}``. Or a
                sequence of either form, one per text.
            multi_label: any number of labels may apply; if False, exactly one does.
            threshold: lowest score of a label that applies, in [0, 1]. Or a mapping from label to threshold,
                ``{"sentiment.positive": 0.7}`` for nested ones; 0.5 for labels left out. Only multi-label.
            prompt: a task description placed before the text, or one per text (None or "" for a text without).
            examples: solved examples given to the model with each text: `Example`, or a mapping with "text" and
                "labels" (or "true_labels"). Or one sequence of them, or None, per text.
            rac: examples retrieved for each text, one sequence per text (for a single text, the examples themselves).
                They follow ``examples`` in the same form. Upstream's "all_labels" are accepted and ignored.
            top_k: largest number of labels returned. Default: all that apply; the best one if single-label.
            hierarchical: also return all scores in the nesting of the labels, `Classification.tree`.
            aggregate: how the windows of a long text become one logit per label: "max" (somewhere in the text), "mean"
                (throughout), "first" (the beginning; the rest is not read, and ``truncated`` is set).
            long_text: "window" reads a text that does not fit in overlapping windows, "truncate" reads its beginning,
                "error" raises.
            unreadable: treatment of a text or label of which the model's vocabulary covers (almost) nothing: "flag"
                sets `Classification.readable` to False, "error" raises `UnreadableTextError`.

        Returns:
            One `Classification` for one text, a list for a sequence, in its order.

        Raises:
            InputError: no text or label, an empty one, characters that no tokenizer reads, a text or label that does
                not fit, prompts, examples or labels for another number of texts. The message names the input.
            OptionError: an option with an impossible value, or one that does not match the labels.
            NonFiniteError: the model returns NaN.
        """
        options = ClassifyOptions(multi_label, threshold, top_k, hierarchical, aggregate, long_text, unreadable)
        plan = self.plan(text_or_texts, labels, options, prompt=prompt, examples=examples, rac=rac)
        results = run(plan, self.scorer)
        return results[0] if isinstance(text_or_texts, str) else results

    def plan(
        self,
        text_or_texts: str | Sequence[str],
        labels: Labels | Sequence[Labels],
        options: ClassifyOptions | None = None,
        *,
        prompt: str | Sequence[str | None] | None = None,
        examples: Examples | None = None,
        rac: Examples | None = None,
    ) -> Plan[list[Classification]]:
        """`classify` as a plan, for callers that score its requests themselves. The result is always a list.

        Arguments and errors are those of `classify`.
        """
        wanted = options or ClassifyOptions()
        texts = check_texts(text_or_texts, "text", at_least_one=True, or_one=True)
        sets = label_sets(labels, len(texts), self._separator)
        wanted.check_labels(sets)
        prompts = _prompts(prompt, len(texts))
        shown = _examples(examples, len(texts), "examples")
        retrieved = _retrieved(rac, len(texts))
        similarity = self.scorer.info.similarity.get("labels", 0.0)
        requests = [
            ScoreRequest(
                text,
                own.names,
                prompt=before,
                examples=(*always, *found),
                long_text=wanted.reading,
                similarity=similarity,
            )
            for text, own, before, always, found in zip(texts, sets, prompts, shown, retrieved, strict=True)
        ]
        calibrator = self.scorer.info.calibration.get("labels") if wanted.multi_label else None
        with naming(lambda: _places(texts, sets)):
            rows = yield requests
            if wanted.unreadable == "error":
                refuse_unread(requests, rows)
        return [_classification(own, logits, wanted, calibrator) for own, logits in zip(sets, rows, strict=True)]


def _places(texts: Sequence[str], sets: Sequence[LabelSet]) -> Places:
    yield from ((f"text {i}" if len(texts) > 1 else "text", text) for i, text in enumerate(texts))
    yield from ((f"label {i}", name) for labels in sets for i, name in enumerate(labels.names))


def _prompts(prompt: object, count: int) -> list[str]:
    if prompt is None:
        return [""] * count
    if is_list(prompt):
        check_count(prompt, count, "prompts")
        return [
            "" if item is None else check_text(item, f"prompt {i}", may_be_empty=True) for i, item in enumerate(prompt)
        ]
    return [check_text(prompt, "prompt", may_be_empty=True)] * count


def _examples(examples: object, count: int, what: str) -> list[tuple[Example, ...]]:
    """The examples of each text, from one sequence for all texts or one sequence per text."""
    if examples is None:
        return [()] * count
    if not is_list(examples):
        raise InputError(f"{what}: expected a sequence of examples, or one per text, got {type(examples).__name__}")
    if not examples or not all(item is None or is_list(item) for item in examples):
        return [tuple(_example(item, f"{what}, {i}") for i, item in enumerate(examples))] * count
    check_count(examples, count, what)
    return [
        tuple(_example(item, f"{what} of text {i}, {j}") for j, item in enumerate(own or ()))
        for i, own in enumerate(examples)
    ]


def _retrieved(rac: object, count: int) -> list[tuple[Example, ...]]:
    if is_list(rac) and count > 1 and any(isinstance(item, Example | Mapping) for item in rac):
        raise InputError(
            f"rac: expected a sequence of examples for each of the {count} texts, got one for all; "
            "pass those as examples="
        )
    return _examples(rac, count, "rac")


def _example(example: object, where: str) -> Example:
    if isinstance(example, Example):
        return example
    if isinstance(example, Mapping) and "text" in example:
        for key in ("labels", "true_labels"):
            if key in example:
                return Example(example["text"], example[key])
    raise InputError(
        f'{where}: expected Example(text, labels) or a mapping with "text" and "labels", got {example!r:.80}'
    )


def _classification(
    labels: LabelSet, logits: FloatArray, options: ClassifyOptions, calibrator: Calibrator | None
) -> Classification:
    values, windows = _aggregated(logits, options.aggregate)
    scores = _probabilities(values, options, calibrator)
    # Stable sort. Logits order labels whose probabilities are equal by rounding or by a flat calibration.
    order = np.lexsort((-values, -scores)).tolist()
    if options.multi_label:
        kept = [i for i in order if scores[i] >= options.threshold_of(labels.names[i])][: options.top_k]
    else:
        kept = order[: options.top_k or 1]
    every = tuple(scores.tolist())
    return Classification(
        labels=tuple(LabelScore(labels.names[i], every[i], i, windows[i]) for i in kept),
        scores=every,
        truncated=getattr(logits, "truncated", False),
        tree=labels.tree(every) if options.hierarchical else None,
        readable=bool(readable(logits).all()),
    )


def _aggregated(logits: FloatArray, aggregate: Aggregate) -> tuple[NDArray[np.float64], Sequence[Span | None]]:
    """One logit per label, shape (labels,), and the window with each label's largest logit, if there are several."""
    if not isinstance(logits, Logits) or len(logits.spans) < 2:
        return np.asarray(logits, np.float64), [None] * len(logits)
    rows = logits.per_window.astype(np.float64)
    values = rows.mean(axis=0) if aggregate == "mean" else rows.max(axis=0)
    return values, [logits.spans[i] for i in rows.argmax(axis=0).tolist()]


def _probabilities(
    logits: NDArray[np.float64], options: ClassifyOptions, calibrator: Calibrator | None
) -> NDArray[np.float64]:
    if options.multi_label:
        return sigmoid(calibrated(logits, calibrator))
    softmax: NDArray[np.float64] = np.exp(logits - np.logaddexp.reduce(logits))
    return softmax
