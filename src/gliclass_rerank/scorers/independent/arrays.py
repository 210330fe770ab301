"""Arrays of texts and label blocks: labels of similar width share a pass, so that short ones are hardly padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.models.vocabulary import Ids

# The widest label of a pass is at most so many times as wide as the others, and `SLACK` tokens more.
WIDER = 1.5
SLACK = 3
LABEL_TOKENS = 4096  # of one pass; bounds the memory of its attention


@dataclass(frozen=True, slots=True)
class LabelPass:
    """Labels that are read together.

    Attributes:
        ids: int64, shape (texts, labels, width), padded.
        widths: int64, shape (texts, labels), tokens of each label, 0 where a text has fewer labels.
        places: int64, shape (texts, labels), index of each among the labels of its text.
    """

    ids: NDArray[np.int64]
    widths: NDArray[np.int64]
    places: NDArray[np.int64]


def text_arrays(batch: Sequence[EncodedSequence], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Padded ids of the texts, int64 of shape (texts, positions), and their lengths, int64 of shape (texts,)."""
    lengths = np.array([len(item.ids) for item in batch], np.int64)
    ids = np.full((len(batch), int(lengths.max())), pad_id, np.int64)
    for row, item in zip(ids, batch, strict=True):
        row[: len(item.ids)] = item.ids
    return ids, lengths


def label_passes(
    batch: Sequence[EncodedSequence], pad_id: int, *, max_tokens: int = LABEL_TOKENS
) -> Iterator[LabelPass]:
    """Divide the labels of all texts into passes. Every label is in exactly one.

    The labels of each text are sorted by width, widest first. A pass takes some columns of that order.
    """
    widths = [item.label_spans[:, 1] - item.label_spans[:, 0] for item in batch]
    orders = [np.argsort(-row, kind="stable") for row in widths]
    table = np.zeros((len(batch), max(map(len, orders))), np.int64)
    for row, own, order in zip(table, widths, orders, strict=True):
        row[: len(order)] = own[order]
    widest = table.max(0)
    start = 0
    while start < len(widest):
        most = max(1, max_tokens // (len(batch) * int(widest[start])))
        similar = int(np.count_nonzero(WIDER * widest[start:] + SLACK >= widest[start]))
        end = start + min(most, similar)
        yield _label_pass(batch, orders, table[:, start:end], start, pad_id)
        start = end


def _label_pass(
    batch: Sequence[EncodedSequence],
    orders: Sequence[NDArray[np.intp]],
    widths: NDArray[np.int64],
    start: int,
    pad_id: int,
) -> LabelPass:
    ids = np.full((*widths.shape, int(widths.max())), pad_id, np.int64)
    places = np.zeros(widths.shape, np.int64)
    for t, (item, order) in enumerate(zip(batch, orders, strict=True)):
        chosen = order[start : start + widths.shape[1]]
        places[t, : len(chosen)] = chosen
        for row, place in zip(ids[t], chosen, strict=False):
            block = label_block(item, int(place))
            row[: len(block)] = block
    return LabelPass(ids, widths, places)


def label_block(item: EncodedSequence, place: int) -> Ids:
    """Token ids of one label, its marker included."""
    start, end = item.label_spans[place]
    return item.side[start:end]


@dataclass(frozen=True, slots=True)
class WholeSequences:
    """Texts with all their labels, each in one sequence.

    Attributes:
        ids: int64, shape (texts, tokens), padded.
        blocks: int64, same shape: 0 for the text, i for its label i - 1, -1 for padding.
        positions: int64, same shape: place of each token in its block, from 0.
        spans: int64, shape (texts, most labels, 2): range of each label's tokens.
    """

    ids: NDArray[np.int64]
    blocks: NDArray[np.int64]
    positions: NDArray[np.int64]
    spans: NDArray[np.int64]


def whole_sequences(batch: Sequence[EncodedSequence], pad_id: int) -> WholeSequences:
    """Lay each text and its labels one after the other."""
    shape = len(batch), max(len(item.ids) + len(item.side) for item in batch)
    ids, blocks, positions = np.full(shape, pad_id, np.int64), np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    spans = np.zeros((len(batch), max(len(item.label_spans) for item in batch), 2), np.int64)
    for t, item in enumerate(batch):
        size = len(item.ids)
        ids[t, : size + len(item.side)] = np.concatenate([item.ids, item.side])
        blocks[t, :size], positions[t, :size] = 0, np.arange(size)
        for i, (start, end) in enumerate(item.label_spans):
            blocks[t, size + start : size + end] = i + 1
            positions[t, size + start : size + end] = np.arange(end - start)
        spans[t, : len(item.label_spans)] = item.label_spans + size
    return WholeSequences(ids, blocks, positions, spans)
