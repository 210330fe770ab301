"""Encode requests as token sequences. A long text is divided into windows, or truncated with a flag."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.errors import LabelTooLongError, NoVectorsError, TextTooLongError, UnreadableTextError
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.template import TO_THE_END, InputTemplate, TemplateBuilder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.models.vocabulary import Ids
from gliclass_rerank.types import NO_VECTOR, Example, FloatArray, Logits, ScoreRequest, Span

MIN_TEXT_TOKENS = 16  # least room for the text next to its labels
NOTHING_LEFT = "the model's tokenizer leaves nothing of it"
MAX_OVERLAP = 64  # tokens shared by neighbouring windows, so that statements are seen whole in one of them


@dataclass(frozen=True, slots=True)
class EncodedSequence:
    """One sequence for the model.

    Attributes:
        ids: int32, shape (tokens,).
        label_spans: int32, shape (labels, 2): range that each label's embedding is pooled from, in ``ids`` or ``side``.
        separator: position of <<SEP>> in ``ids``; 0 if the labels are not in ``ids``.
        side: int32, the label sequence of an encoder-decoder, else empty.
        labels: the labels' texts, for architectures with a label encoder.
        has_examples: the sequence contains examples.
        cost: tokens that the model reads, those of ``ids`` and ``side``.
    """

    ids: Ids
    label_spans: NDArray[np.int32]
    separator: int
    side: Ids
    labels: tuple[str, ...]
    has_examples: bool
    cost: int


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """The sequences of one request: every window of the text with every group of labels, windows outermost."""

    sequences: tuple[EncodedSequence, ...]
    spans: tuple[Span, ...]
    tokens: int
    truncated: bool
    unread_text: bool
    unread_labels: tuple[int, ...]
    vector: bool
    similarity: float
    labels: tuple[str, ...]

    def assemble(self, rows: Sequence[FloatArray], vectors: Mapping[str, FloatArray]) -> Logits:
        """Combine the rows of the sequences, float32: the logits of the group's labels, then any vector of the text.

        Args:
            rows: one per sequence.
            vectors: of the labels, float32, shape (D,), if there is a ``similarity``.
        """
        groups = len(self.sequences) // len(self.spans)
        if groups > 1:
            rows = [np.concatenate(rows[start : start + groups]) for start in range(0, len(rows), groups)]
        windows, labels = np.stack(rows), len(self.labels)
        logits, vector = windows[:, :labels], NO_VECTOR
        if self.vector or self.similarity:
            vector = mean_direction(windows[:, labels:])
        if self.similarity and self.labels:
            cosines = np.stack([vectors[label] for label in self.labels]) @ vector
            logits = logits + np.float32(self.similarity) * cosines
        return Logits.over_windows(
            logits,
            self.spans,
            truncated=self.truncated,
            unread_text=self.unread_text,
            unread_labels=self.unread_labels,
            vector=vector if self.vector else NO_VECTOR,
        )


class InputEncoder:
    """Encodes requests for one checkpoint. Thread-safe.

    Args:
        checkpoint: the checkpoint whose input format is used.
        tokenizer: of the texts.
        label_tokenizer: of the label encoder, if there is one.
    """

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: TextTokenizer, label_tokenizer: TextTokenizer | None = None
    ) -> None:
        self._checkpoint = checkpoint
        self._tokenizer = tokenizer
        self._label_tokenizer = label_tokenizer or tokenizer
        self._templates = TemplateBuilder(checkpoint, tokenizer)
        self._independent = checkpoint.independent
        # Labels of one pass, None for as many as fit.
        self._most_labels = None if checkpoint.independent else checkpoint.options.max_labels

    def encode(self, requests: Sequence[ScoreRequest]) -> list[EncodedRequest]:
        """Tokenise and template requests. Texts are tokenised together, on all cores.

        Raises:
            UnreadableTextError: a text or label without any token.
            LabelTooLongError: a label, or prompt and examples, that leave no room for the text.
            NoVectorsError: a vector is asked of a model that has none.
            TextTooLongError: a text that does not fit, with ``long_text="error"``.
        """
        cache: dict[tuple[object, ...], InputTemplate] = {}  # most requests of one call share their labels
        unread: dict[tuple[str, ...], tuple[int, ...]] = {}
        templates = []
        for request in requests:
            if (request.vector or request.similarity) and not self._independent:
                raise NoVectorsError(self._checkpoint.name)
            key = (request.labels, request.prompt, request.examples)
            if key not in cache:
                cache[key] = self._template(request)
                unread[request.labels] = self._unread(request.labels)
            templates.append(cache[key])
        texts: list[Ids] = [np.empty(0, np.int32)] * len(requests)
        for first in (True, False):
            if not (chosen := [i for i, template in enumerate(templates) if template.first == first]):
                continue
            strings = [f"{templates[i].lead}{requests[i].text}{templates[i].trail}" for i in chosen]
            for i, ids in zip(chosen, self._tokenizer.batch(strings, first=first), strict=True):
                texts[i] = ids
        return [
            self._encode(request, template, text, unread[request.labels])
            for request, template, text in zip(requests, templates, texts, strict=True)
        ]

    def _reads_beside_prompt(self, text: str, ids: Ids) -> bool:
        """Whether the vocabulary covers enough of a text. ``ids`` include a prompt, which must not hide it."""
        return self._tokenizer.knows(ids) or self._tokenizer.reads(text, self._tokenizer.ids(text))

    def _unread(self, labels: Sequence[str]) -> tuple[int, ...]:
        """Positions of the labels that the vocabulary does not know."""
        return tuple(i for i, label in enumerate(labels) if not self._label_tokenizer.reads_label(label))

    def _template(self, request: ScoreRequest) -> InputTemplate:
        for label in request.labels:
            if not self._label_tokenizer.ids_of_label(label):
                raise UnreadableTextError("label", label, NOTHING_LEFT)
        if self._independent:
            self._refuse_long_blocks(request.labels)
        return self._templates.template(request.labels, request.prompt, request.examples)

    def _refuse_long_blocks(self, labels: Sequence[str]) -> None:
        """Raise `LabelTooLongError` for a label that has more tokens than the model has positions."""
        limit = self._checkpoint.max_length - 1  # a block's positions start at 1
        for label in labels:
            if (tokens := 1 + len(self._tokenizer.ids_of_label(label))) > limit:
                raise LabelTooLongError(_too_long(f"label {label[:40]!r}", tokens, limit))

    def _encode(
        self, request: ScoreRequest, template: InputTemplate, text: Ids, unread_labels: tuple[int, ...]
    ) -> EncodedRequest:
        prompt = template.lead + template.trail
        if not len(text) or (prompt and len(text) <= len(self._tokenizer.ids(prompt, first=template.first))):
            self._parts(request.text, template, text)  # raises if the tokens are all the prompt's
        limit = self._checkpoint.max_length
        fits = len(template.before) + len(text) + len(template.after) <= limit
        fits = fits and (self._independent or len(template.side) <= limit)
        if fits and len(request.labels) <= (self._most_labels or len(request.labels)):
            whole = self._sequence(request, template, template.before, text, template.after, request.labels)
            sequences, spans, truncated = [whole], [(0, len(request.text))], False
        else:
            sequences, spans, truncated = self._windows(request, template, text)
        reads = self._reads_beside_prompt if prompt else self._tokenizer.reads
        return EncodedRequest(
            sequences=tuple(sequences),
            spans=tuple(spans),
            tokens=sum(map(attrgetter("cost"), sequences)),
            truncated=truncated,
            unread_text=not reads(request.text, text),
            unread_labels=unread_labels,
            vector=request.vector,
            similarity=request.similarity,
            labels=request.labels,
        )

    def _windows(
        self, request: ScoreRequest, template: InputTemplate, text: Ids
    ) -> tuple[list[EncodedSequence], list[Span], bool]:
        """Sequences, spans of the windows, and whether the text is truncated."""
        lead, body, trail, offsets = self._parts(request.text, template, text)
        room, side_room = self._room(request.labels, template)
        groups, size = self._fit_labels(request.labels, room - len(lead) - len(trail), side_room, len(body))
        bounds = window_bounds(len(body), size, min(MAX_OVERLAP, size // 4))
        if request.long_text == "error" and len(bounds) > 1:
            raise TextTooLongError(
                f"text {request.text[:40]!r} has {len(body)} tokens, and {size} fit beside its labels; "
                'shorten it, or ask for long_text="window"'
            )
        truncated = request.long_text == "truncate" and len(bounds) > 1
        if truncated:
            bounds = [(0, size)]
        templates = [self._templates.template(group, request.prompt, request.examples) for group in groups]
        sequences = [
            self._sequence(request, part, [*part.before, *lead], body[start:end], [*trail, *part.after], group)
            for start, end in bounds
            for part, group in zip(templates, groups, strict=True)
        ]
        spans = [(int(offsets[start, 0]), int(offsets[end - 1, 1])) for start, end in bounds]
        return sequences, spans, truncated

    def _parts(
        self, text: str, template: InputTemplate, ids: Ids
    ) -> tuple[list[int], Ids, list[int], NDArray[np.int64]]:
        """Split jointly tokenised lead, text and trail. A token across a border belongs to the text."""
        offsets = self._tokenizer.offsets(f"{template.lead}{text}{template.trail}", first=template.first) - len(
            template.lead
        )
        inside = (offsets[:, 1] > 0) & (offsets[:, 0] < len(text))
        if not inside.any():
            raise UnreadableTextError("text", text, NOTHING_LEFT)
        start, end = int(inside.argmax()), len(ids) - int(inside[::-1].argmax())
        return ids[:start].tolist(), ids[start:end], ids[end:].tolist(), offsets[start:end].clip(0, len(text))

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Whether these labels are read in one pass with a text of any length (without a prompt)."""
        room, side_room = self._room(labels, self._templates.template(labels, "", examples))
        used = sum(map(self._templates.label_cost, labels))
        fit = (len(labels) == 1 or used <= room - room // 2) and room - used >= MIN_TEXT_TOKENS
        return (
            fit and sum(map(self._templates.side_cost, labels)) <= side_room and len(labels) <= self._max_labels(labels)
        )

    def _room(self, labels: Sequence[str], template: InputTemplate) -> tuple[int, int]:
        """Tokens left for text and labels, and for labels in a separate sequence."""
        fixed = len(template.before) + len(template.after) - sum(map(self._templates.label_cost, labels))
        if self._independent:  # a label takes no room from the text, nor from other labels
            return self._checkpoint.max_length - fixed, self._checkpoint.max_length
        fixed_side = len(template.side) - sum(map(self._templates.side_cost, labels))
        return self._checkpoint.max_length - fixed, self._checkpoint.max_length - fixed_side

    def _fit_labels(
        self, labels: Sequence[str], room: int, side_room: int, text_tokens: int
    ) -> tuple[list[tuple[str, ...]], int]:
        """Divide ``room`` tokens between labels and text: groups of labels, and the size of a window.

        Labels may take half of the room, or the rest after a short text, and ``side_room`` of a separate sequence. More
        labels than fit, or than the model was trained with, are divided over several sequences per window.
        """
        costs = [self._templates.label_cost(label) for label in labels]
        side_costs = [self._templates.side_cost(label) for label in labels]
        count = self._max_labels(labels)
        label_room = room - min(text_tokens, room // 2)
        longest = max(costs, default=0)
        if room - longest < MIN_TEXT_TOKENS:
            if not longest:
                raise LabelTooLongError(
                    f"expected room for {MIN_TEXT_TOKENS} tokens of the text, and prompt and examples leave "
                    f"{max(room, 0)} of {self._checkpoint.max_length}; shorten them, or raise max_length"
                )
            culprit = labels[costs.index(longest)]
            raise LabelTooLongError(
                _too_long(f"label {culprit[:40]!r} (with prompt and examples)", longest, room - MIN_TEXT_TOKENS)
            )
        if (longest_side := max(side_costs, default=0)) > side_room:
            culprit = labels[side_costs.index(longest_side)]
            raise LabelTooLongError(_too_long(f"label {culprit[:40]!r} (with the prompt)", longest_side, side_room))
        groups: list[tuple[str, ...]] = []
        group: list[str] = []
        used = used_side = largest = 0
        for label, cost, side_cost in zip(labels, costs, side_costs, strict=True):
            is_full = used + cost > label_room or used_side + side_cost > side_room or len(group) == count
            if group and is_full:
                groups.append(tuple(group))
                group, used, used_side = [], 0, 0
            group.append(label)
            used += cost
            used_side += side_cost
            largest = max(largest, used)
        return [*groups, tuple(group)], room - largest

    def _max_labels(self, labels: Sequence[str]) -> int:
        """Labels of one pass: at most as many as in training, in groups of similar size."""
        most = self._most_labels
        if most is None or len(labels) <= most:
            return len(labels)
        return math.ceil(len(labels) / math.ceil(len(labels) / most))

    def _sequence(
        self,
        request: ScoreRequest,
        template: InputTemplate,
        before: list[int],
        text: Ids,
        after: list[int],
        labels: Sequence[str],
    ) -> EncodedSequence:
        ids = np.concatenate([np.array(before, np.int32), text, np.array(after, np.int32)])
        # A prompt is between the template and the text, so "after" starts later by its length.
        shift = len(ids) - len(template.after) if template.labels_in == "after" else 0
        end = len(template.side) if template.labels_in == "side" else len(ids)
        spans = np.array(template.spans, np.int32).reshape(-1, 2)
        to_the_end = spans[:, 1] == TO_THE_END
        spans += shift
        spans[to_the_end, 1] = end
        separated = template.separator is not None and template.labels_in in ("before", "after")
        return EncodedSequence(
            ids=ids,
            label_spans=spans,
            separator=shift + (template.separator or 0) if separated else 0,
            side=np.array(template.side, np.int32),
            labels=tuple(labels),
            has_examples=bool(request.examples),
            cost=len(ids) + len(template.side),
        )


def mean_direction(vectors: FloatArray) -> FloatArray:
    """Mean of vectors, shape (n, D), scaled to length 1."""
    mean: FloatArray = vectors.mean(axis=0)
    if len(vectors) == 1:  # already of length 1; another division would change its last bits
        return mean
    unit: FloatArray = mean / np.linalg.norm(mean)
    return unit


def window_bounds(tokens: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cover ``tokens`` tokens with the least number of windows of at most ``size`` that overlap by ``overlap`` or more.

    The windows are spread evenly, so that the last one is not a remnant without context.

    Returns:
        Half-open ranges in order. Their union is ``range(tokens)``.
    """
    if tokens <= size:
        return [(0, tokens)]
    count = 1 + -(-(tokens - size) // (size - overlap))
    starts = np.linspace(0, tokens - size, count).round().astype(int).tolist()
    return [(start, start + size) for start in starts]


def chunk_sizes(requests: Sequence[ScoreRequest]) -> Iterator[int]:
    """Characters of each request, all texts included."""
    for request in requests:
        texts = [request.text, request.prompt, *request.labels]
        for example in request.examples:
            texts += [example.text, *example.labels]
        yield sum(map(len, texts))


def _too_long(what: str, tokens: int, limit: int) -> str:
    return f"{what}: {tokens} tokens, and at most {max(limit, 0)} fit this model; labels are never cut, shorten it"
