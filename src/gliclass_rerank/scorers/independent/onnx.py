"""IndependentOnnxScorer: run exported checkpoints with independent labels on a CPU with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.independent.arrays import label_passes, text_arrays
from gliclass_rerank.scorers.independent.cache import PassageCache
from gliclass_rerank.scorers.independent.graphs import (
    IDS,
    LABEL_INPUTS,
    LENGTHS,
    LOGITS,
    POOLED,
    VECTORS,
)
from gliclass_rerank.scorers.onnx import OnnxScorer, open_graph
from gliclass_rerank.types import FloatArray, ModelInfo

WHOLE = (VECTORS, POOLED)  # outputs without an axis of positions; in the others, of one text, it is the second one


@dataclass(frozen=True, slots=True)
class ReadText:
    """Outputs of the text graph for one text, by name, without padding."""

    outputs: Mapping[str, NDArray[Any]]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.outputs.values())

    @property
    def length(self) -> int:
        length: int = next(array.shape[1] for name, array in self.outputs.items() if name not in WHOLE)
        return length


class IndependentOnnxScorer(OnnxScorer):
    """Read texts by one graph, and score their labels by another. Other arguments are those of `OnnxScorer`.

    Args:
        passage_cache: bytes for what is read of texts; 0 keeps nothing.
    """

    def __init__(
        self, checkpoint: Checkpoint, info: ModelInfo, *, max_batch_tokens: int, threads: int, passage_cache: int = 0
    ) -> None:
        super().__init__(checkpoint, info, max_batch_tokens=max_batch_tokens, threads=threads)
        self._labels = open_graph(checkpoint, info.kernel, "labels")
        self._outputs = [item.name for item in self._session.get_outputs()]
        self.passage_cache = PassageCache[ReadText](passage_cache) if passage_cache else None

    def _run(self, batch: Sequence[EncodedSequence]) -> FloatArray:
        if self.passage_cache is None or not batch[0].labels:
            # What was read stays with onnxruntime: as arrays, it would be copied for each pass.
            feed = self._texts(batch)
            read = dict(zip(self._outputs, self._session.run_with_ort_values(self._outputs, feed), strict=True))
            vectors, state = read.pop(VECTORS), read | {LENGTHS: feed[LENGTHS]}
        else:
            kept = stacked(self.passage_cache.states(batch, self._read))
            vectors, state = kept.pop(VECTORS), kept
        logits = np.zeros((len(batch), max(len(item.label_spans) for item in batch)), np.float32)
        for part in label_passes(batch, self._pad_id):
            labels = dict(zip(LABEL_INPUTS, map(_value, (part.ids, part.widths)), strict=True))
            (scores,) = self._labels.run_with_ort_values([LOGITS], labels | state)
            texts, columns = np.nonzero(part.widths)
            logits[texts, part.places[texts, columns]] = scores.numpy()[texts, columns]
        return np.concatenate([logits, vectors.numpy()], axis=1)

    def _texts(self, batch: Sequence[EncodedSequence]) -> dict[str, onnxruntime.OrtValue]:
        return dict(zip((IDS, LENGTHS), map(_value, text_arrays(batch, self._pad_id)), strict=True))

    def _read(self, batch: Sequence[EncodedSequence]) -> list[ReadText]:
        values = self._session.run_with_ort_values(self._outputs, self._texts(batch))
        arrays = {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}
        return [
            ReadText(
                {
                    name: array[i].copy() if name in WHOLE else array[i, :, : len(item.ids)].copy()
                    for name, array in arrays.items()
                }
            )
            for i, item in enumerate(batch)
        ]


def stacked(texts: Sequence[ReadText]) -> dict[str, onnxruntime.OrtValue]:
    """Outputs of the text graph for these texts, padded to the longest, and their lengths."""
    lengths = np.array([text.length for text in texts], np.int64)
    values = {LENGTHS: _value(lengths)}
    for name, first in texts[0].outputs.items():
        if name in WHOLE:
            values[name] = _value(np.stack([text.outputs[name] for text in texts]))
            continue
        heads, _, width = first.shape
        padded = np.zeros((len(texts), heads, int(lengths.max()), width), first.dtype)
        for row, text, length in zip(padded, texts, lengths, strict=True):
            row[:, :length] = text.outputs[name]
        values[name] = _value(padded)
    return values


def _value(array: NDArray[Any]) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
