"""A batch of sequences as packed arrays: concatenated without padding, in one buffer.

One int32 buffer holds all inputs of the device, so that a batch costs one copy from pinned memory. The encoder's part
comes first, since a CUDA graph takes exactly that part.

Shapes: T tokens, S sequences (the dummy tail included), N sequences of the batch, C labels, K tokens within the labels'
spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.padded.arrays import label_spans

Int32s = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PackedShape:
    """Size that a packed batch is filled up to.

    Attributes:
        tokens: length of the token axis, T.
        sequences: entries of the cumulative lengths less one, S, including dummy and empty sequences.
        longest: upper bound of a sequence's tokens, known on the host.
    """

    tokens: int
    sequences: int
    longest: int


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """Inputs of the encoder.

    Attributes:
        ids, positions, sequence: int32, shape (T,): token ids, positions within their sequence, and its number.
        segments: int32, shape (T,), if the checkpoint has segment embeddings.
        cu_lengths: int32, shape (S + 1,): the start of each sequence, and the end of the last one.
        longest: upper bound of a sequence's tokens, an integer on the host, so that no code synchronises for it.
    """

    ids: Tensor
    positions: Tensor
    sequence: Tensor
    segments: Tensor | None
    cu_lengths: Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class PackedSpans:
    """Inputs of the head.

    Attributes:
        text_bounds: int32, shape (2N + 1,): start of each sequence and of its text in turn, and the end of the last.
        label_bounds: int32, shape (NC + 1,): start of each label's tokens in ``label_tokens``, and the end of the last.
        label_tokens: int32, shape (K,): the tokens that labels are averaged over, as indices into the token axis.
        labels: C.
    """

    text_bounds: Tensor
    label_bounds: Tensor
    label_tokens: Tensor
    labels: int


@dataclass(frozen=True, slots=True)
class PackedArrays:
    """A packed batch on the host: one buffer and its structure.

    Attributes:
        buffer: int32, one axis; in pinned memory for a GPU.
        shape: of its token axis.
        rows, labels: N and C.
        segmented: whether it has segment ids.
    """

    buffer: Tensor
    shape: PackedShape
    rows: int
    labels: int
    segmented: bool

    @property
    def encoder_size(self) -> int:
        """Length of the buffer's first part, the encoder's inputs."""
        return encoder_size(self.shape, self.segmented)

    def tokens(self, buffer: Tensor) -> PackedTokens:
        """The encoder's views of a copy of the buffer."""
        return token_views(buffer[: self.encoder_size], self.shape, self.segmented)

    def spans(self, buffer: Tensor) -> PackedSpans:
        """The head's views of a copy of the buffer."""
        rest = buffer[self.encoder_size :]
        bounds = 2 * self.rows + 1
        spans = self.rows * self.labels + 1
        text, labels, tokens = torch.split(rest, [bounds, spans, len(rest) - bounds - spans])
        return PackedSpans(text, labels, tokens, self.labels)


def encoder_size(shape: PackedShape, segmented: bool) -> int:
    """Length of the encoder's part of a buffer."""
    return (4 if segmented else 3) * shape.tokens + shape.sequences + 1


def token_views(buffer: Tensor, shape: PackedShape, segmented: bool) -> PackedTokens:
    """Views of the encoder's part of a buffer, int32 of shape (encoder_size,), without copying."""
    parts = torch.split(buffer, [*(shape.tokens for _ in range(4 if segmented else 3)), shape.sequences + 1])
    return PackedTokens(parts[0], parts[1], parts[2], parts[3] if segmented else None, parts[-1], shape.longest)


def pack(
    batch: Sequence[EncodedSequence],
    pad_id: int,
    *,
    segments: bool,
    shape: PackedShape | None = None,
    pinned: bool = False,
) -> PackedArrays:
    """Concatenate sequences.

    Args:
        batch: at least one sequence.
        pad_id: the token of dummy sequences.
        segments: whether segment ids are needed.
        shape: size to fill the batch up to. Default: exactly its sequences.
        pinned: put the buffer into pinned memory, for asynchronous copies to a GPU.

    Raises:
        ValueError: the sequences do not fit ``shape``.
    """
    real = [len(item.ids) for item in batch]
    shape = shape or PackedShape(sum(real), len(real), max(real))
    lengths = _filled(real, shape)
    bounds = _bounds(lengths)
    labels, label_bounds, label_tokens = _label_tokens(batch, bounds)
    parts: list[NDArray[np.integer[Any]]] = [
        _ids(batch, shape.tokens, pad_id),
        np.arange(shape.tokens) - np.repeat(bounds[:-1], lengths),
        np.repeat(np.arange(shape.sequences), lengths),
        *([_segments(batch, lengths)] if segments else []),
        bounds,
        _text_bounds(batch, bounds),
        label_bounds,
        label_tokens,
    ]
    buffer = torch.empty(sum(map(len, parts)), dtype=torch.int32, pin_memory=pinned)
    np.concatenate(parts, out=buffer.numpy(), casting="unsafe")
    return PackedArrays(buffer, shape, len(batch), labels, segments)


def _filled(real: Sequence[int], shape: PackedShape) -> Int32s:
    """Lengths of all sequences, shape (S,): real ones, a dummy tail in pieces of at most ``longest``, then zeros."""
    tail = shape.tokens - sum(real)
    pieces = [shape.longest] * (tail // shape.longest) + ([tail % shape.longest] if tail % shape.longest else [])
    lengths = [*real, *pieces]
    if tail < 0 or len(lengths) > shape.sequences or max(real) > shape.longest:
        raise ValueError(f"{len(real)} sequences of {sum(real)} tokens, the longest of {max(real)}, do not fit {shape}")
    return np.array(lengths + [0] * (shape.sequences - len(lengths)), np.int32)


def _bounds(lengths: Int32s) -> Int32s:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _ids(batch: Sequence[EncodedSequence], tokens: int, pad_id: int) -> Int32s:
    real = np.concatenate([item.ids for item in batch])
    return np.concatenate([real, np.full(tokens - len(real), pad_id, np.int32)])


def _segments(batch: Sequence[EncodedSequence], lengths: Int32s) -> Int32s:
    """Segment ids as in `uni_encoder_inputs`: 0 labels, 1 text, or 2 everywhere in a sequence with examples."""
    out = [
        np.full(len(item.ids), 2) if item.has_examples else np.arange(len(item.ids)) >= item.separator for item in batch
    ]
    return np.concatenate([*out, np.zeros(int(lengths[len(batch) :].sum()))]).astype(np.int32)


def _text_bounds(batch: Sequence[EncodedSequence], bounds: Int32s) -> Int32s:
    starts = bounds[: len(batch)]
    pairs = np.stack([starts, starts + [item.separator for item in batch]], axis=1)
    return np.append(pairs.reshape(-1), bounds[len(batch)])


def _label_tokens(batch: Sequence[EncodedSequence], bounds: Int32s) -> tuple[int, Int32s, Int32s]:
    """C, and the flat tokens of all labels with their bounds. See `PackedSpans`."""
    spans = label_spans(batch)
    starts = (spans[..., 0] + bounds[: len(batch), None]).reshape(-1)
    counts = (spans[..., 1] - spans[..., 0]).reshape(-1)
    label_bounds = _bounds(counts.astype(np.int32))
    within = np.arange(label_bounds[-1]) - np.repeat(label_bounds[:-1], counts)
    return spans.shape[1], label_bounds, (np.repeat(starts, counts) + within).astype(np.int32)
