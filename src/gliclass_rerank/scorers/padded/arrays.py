"""A batch of sequences as the padded arrays of a model's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.models.encoding import EncodedSequence

Padded = NDArray[np.int64]


def pad(sequences: Sequence[NDArray[np.int32]], value: int) -> Padded:
    """Stack sequences of different lengths to shape (B, longest), filled up with ``value``."""
    out = np.full((len(sequences), max(map(len, sequences))), value, np.int64)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return out


def pad_mask(sequences: Sequence[NDArray[np.int32]]) -> Padded:
    """Attention mask of `pad`: 1 for real tokens, 0 for padding."""
    lengths = np.array([len(sequence) for sequence in sequences])
    return (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)


def text_inputs(batch: Sequence[EncodedSequence], pad_id: int) -> dict[str, Padded]:
    """Ids and mask of the sequences with the texts: ``input_ids`` and ``attention_mask``, shape (B, S)."""
    ids = [item.ids for item in batch]
    return {"input_ids": pad(ids, pad_id), "attention_mask": pad_mask(ids)}


def label_spans(batch: Sequence[EncodedSequence]) -> Padded:
    """Spans that labels are pooled from, shape (B, C, 2). Missing labels get the span of the first token."""
    spans = np.zeros((len(batch), max([len(item.label_spans) for item in batch]), 2), np.int64)
    spans[..., 1] = 1
    for row, item in zip(spans, batch, strict=True):
        row[: len(item.label_spans)] = item.label_spans
    return spans


def uni_encoder_inputs(batch: Sequence[EncodedSequence], pad_id: int, *, segments: bool) -> dict[str, Padded]:
    """All inputs of a uni-encoder, under the names of its ONNX graph.

    Args:
        segments: whether the checkpoint has segment embeddings.
    """
    inputs = text_inputs(batch, pad_id)
    separators = np.array([item.separator for item in batch], np.int64)
    inputs |= {"label_spans": label_spans(batch), "separators": separators}
    if segments:
        positions = np.arange(inputs["input_ids"].shape[1])
        ids = (positions >= separators[:, None]).astype(np.int64)
        # With examples upstream marks every token as example (argmin instead of argmax), also in training, so
        # checkpoints expect it.
        ids[[item.has_examples for item in batch]] = 2
        inputs["segment_ids"] = ids
    return inputs
