"""Positions of labels, text, prompt and examples in a model's input: one function per architecture.

An `InputTemplate` is the input around a text: ids before it, ids after it, and the positions of the labels in them.
Upstream joins strings and tokenises the result. Here ids are spliced, so a marker inside a text cannot shift a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gliclass_rerank.errors import CheckpointError, InputError
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.tokenizer import EXAMPLE, LABEL, SEP, TextTokenizer
from gliclass_rerank.types import Example

TO_THE_END = -1  # end of a label span that runs to the end of its sequence


@dataclass(slots=True)
class InputTemplate:
    """The input around one text.

    Attributes:
        before, after: ids around the text's own.
        lead, trail: strings that upstream joins to the text and tokenises with it (a prompt).
        first: the text starts its sequence.
        labels_in: the part that contains the labels: "before", "after", "side" (a separate sequence for the other half
            of an encoder-decoder) or "apart" (each label by itself, for a label encoder).
        spans: (start, end) of each label within that part; `TO_THE_END` as end.
        separator: position of <<SEP>> within that part, or None.
        side: ids of the label sequence, if labels are in "side".
    """

    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    lead: str = ""
    trail: str = ""
    first: bool = False
    labels_in: Literal["before", "after", "side", "apart"] = "before"
    spans: list[tuple[int, int]] = field(default_factory=list)
    separator: int | None = None
    side: list[int] = field(default_factory=list)


class TemplateBuilder:
    """Builds the `InputTemplate` of a checkpoint's architecture.

    Raises:
        CheckpointError: the tokenizer lacks a marker, or has another id for it than the configuration.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: TextTokenizer) -> None:
        self._checkpoint = checkpoint
        self._tokenizer = tokenizer
        self._build = {
            "uni-encoder": self._independent if checkpoint.independent else self._uni_encoder,
            "bi-encoder": self._bi_encoder,
            "bi-encoder-fused": self._fused,
            "encoder-decoder": self._encoder_decoder,
            "encoder-decoder-cls": self._encoder_decoder,
            "decoder-kv": self._decoder_kv,
        }[checkpoint.architecture]
        if checkpoint.architecture != "bi-encoder":
            self._check_markers()

    def template(self, labels: Sequence[str], prompt: str, examples: Sequence[Example]) -> InputTemplate:
        """Build the template of a text to score against ``labels``."""
        return self._build(labels, prompt, examples)

    def label_cost(self, label: str) -> int:
        """Tokens that a label takes from the text's sequence; 0 if labels have a separate sequence."""
        if self._checkpoint.architecture == "bi-encoder-fused":
            return 1
        if self._checkpoint.independent:
            return 0
        if self._checkpoint.architecture in ("uni-encoder", "decoder-kv"):
            return 1 + len(self._tokenizer.ids_of_label(label))
        return 0

    def side_cost(self, label: str) -> int:
        """Tokens that a label takes in the separate label sequence; 0 without one."""
        is_apart = self._checkpoint.architecture in ("encoder-decoder", "encoder-decoder-cls")
        return 1 + len(self._tokenizer.ids_of_label(label)) if is_apart else 0

    def _check_markers(self) -> None:
        decoder = self._checkpoint.architecture == "decoder-kv"
        markers = {"class_token_index": LABEL, "sep_token_index" if decoder else "text_token_index": SEP}
        for flag, marker in markers.items():
            expected, found = self._checkpoint.config.get(flag), self._tokenizer.marker(marker)
            if expected not in (None, -1, found):
                raise CheckpointError(
                    f"{self._checkpoint.folder}: config.json has {flag}={expected}, and tokenizer.json has {marker} "
                    f"as {found}; these files belong to different models"
                )

    def _uni_encoder(self, labels: Sequence[str], prompt: str, examples: Sequence[Example]) -> InputTemplate:
        ids, spans = self._label_section(labels)
        after = [*self._examples(examples), *self._tokenizer.suffix]
        if self._checkpoint.prompt_first:
            return self._text_last([*self._tokenizer.prefix], ids, spans, after, lead=prompt)
        return InputTemplate(
            before=[*self._tokenizer.prefix],
            after=[*ids, *self._ids(prompt), *after],
            first=True,
            labels_in="after",
            spans=spans,
            separator=len(ids) - 1,
        )

    def _independent(self, labels: Sequence[str], prompt: str, examples: Sequence[Example]) -> InputTemplate:
        """A block for the text, and one for each label: positions and attention are those of the block."""
        ids, spans = self._label_section(labels)
        return InputTemplate(
            before=[*self._tokenizer.prefix, self._tokenizer.marker(SEP)],
            after=[*self._examples(examples), *self._tokenizer.suffix],
            lead=prompt,
            labels_in="side",
            spans=spans,
            side=ids[:-1],
        )

    def _text_last(
        self, prefix: list[int], ids: list[int], spans: list[tuple[int, int]], after: list[int], *, lead: str = ""
    ) -> InputTemplate:
        shift = len(prefix)
        moved = [(start + shift, end if end == TO_THE_END else end + shift) for start, end in spans]
        before = prefix + ids
        return InputTemplate(before=before, after=after, lead=lead, spans=moved, separator=len(before) - 1)

    def _fused(self, labels: Sequence[str], prompt: str, examples: Sequence[Example]) -> InputTemplate:
        """Labels are only markers here, which the label encoder's embeddings replace."""
        ids = [self._tokenizer.marker(LABEL)] * len(labels) + [self._tokenizer.marker(SEP)]
        spans = [(i, i + 1) for i in range(len(labels))]
        after = [*self._examples(examples), *self._tokenizer.suffix]
        if self._checkpoint.prompt_first:
            prefix = [*self._tokenizer.prefix, *self._ids(f"{prompt} " if prompt else "", first=True)]
            return self._text_last(prefix, ids, spans, after)
        return InputTemplate(
            before=[*self._tokenizer.prefix],
            after=[*ids, *after],
            trail=f"{prompt} " if prompt else "",
            first=True,
            labels_in="after",
            spans=spans,
            separator=len(ids) - 1,
        )

    def _bi_encoder(self, labels: Sequence[str], prompt: str, examples: Sequence[Example]) -> InputTemplate:
        if examples:
            raise InputError("a bi-encoder reads no examples; pass none, or use another architecture")
        return InputTemplate(
            before=[*self._tokenizer.prefix],
            after=[*self._tokenizer.suffix],
            lead=f"{prompt} " if prompt else "",
            first=True,
            labels_in="apart",
        )

    def _encoder_decoder(self, labels: Sequence[str], prompt: str, examples: Sequence[Example]) -> InputTemplate:
        ids, spans = self._label_section(labels)
        prefix = self._tokenizer.prefix
        template = self._text_last([*prefix], ids, spans, [])
        return InputTemplate(
            before=[*prefix],
            after=[*self._examples(examples), *self._tokenizer.suffix],
            first=True,
            labels_in="side",
            spans=template.spans,
            separator=template.separator,
            side=[*template.before, *self._ids(prompt), *self._tokenizer.suffix],
        )

    def _decoder_kv(self, labels: Sequence[str], prompt: str, examples: Sequence[Example]) -> InputTemplate:
        """Context, then the labels, each followed by its marker, between two separators."""
        label, separator = self._tokenizer.marker(LABEL), self._tokenizer.marker(SEP)
        after = [separator]
        spans = []
        for name in labels:
            after += self._tokenizer.ids_of_label(name)
            spans.append((len(after), len(after) + 1))
            after.append(label)
        after.append(separator)
        if not examples:
            return InputTemplate(after=after, lead=prompt, first=True, labels_in="after", spans=spans)
        before = [*self._ids(prompt, first=True), *self._examples(examples)]
        return InputTemplate(before=before, after=after, labels_in="after", spans=spans)

    def _label_section(self, labels: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of ``<<LABEL>>a<<LABEL>>b<<SEP>>`` and the span that each label's embedding is pooled from."""
        marker = self._tokenizer.marker(LABEL)
        skip = 0 if self._checkpoint.embeds_class_token else 1
        ids: list[int] = []
        spans = []
        for label in labels:
            start = len(ids) + skip
            ids += (marker, *self._tokenizer.ids_of_label(label))
            spans.append((start, len(ids) if self._checkpoint.averages_labels else start + 1))
        if labels and self._checkpoint.averages_labels and not self._checkpoint.extracts_text:
            # In upstream the last label's span has no end: it includes the rest of the sequence.
            spans[-1] = (spans[-1][0], TO_THE_END)
        ids.append(self._tokenizer.marker(SEP))
        return ids, spans

    def _examples(self, examples: Sequence[Example]) -> list[int]:
        if not examples:
            return []
        ids: list[int] = []
        for example in examples:
            ids.append(self._tokenizer.marker(EXAMPLE))
            ids += self._ids(f"{example.text} \nLabels:\n {', '.join(example.labels)}")
        return [*ids, self._tokenizer.marker(SEP)]

    def _ids(self, text: str, *, first: bool = False) -> list[int]:
        return self._tokenizer.ids(text, first=first).tolist() if text else []
