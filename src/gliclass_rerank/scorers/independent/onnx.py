"""IndependentOnnxScorer: run exported checkpoints with independent labels on a CPU with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.independent.arrays import label_passes, text_arrays
from gliclass_rerank.scorers.independent.graphs import LABEL_INPUTS, LOGITS, TEXT_INPUTS, VECTORS
from gliclass_rerank.scorers.onnx import OnnxScorer, open_graph
from gliclass_rerank.types import FloatArray, ModelInfo

LENGTHS = TEXT_INPUTS[1]


class IndependentOnnxScorer(OnnxScorer):
    """Read texts by one graph, and score their labels by another. Arguments are those of `OnnxScorer`."""

    def __init__(self, checkpoint: Checkpoint, info: ModelInfo, *, max_batch_tokens: int, threads: int) -> None:
        super().__init__(checkpoint, info, max_batch_tokens=max_batch_tokens, threads=threads)
        self._labels = open_graph(checkpoint, info.kernel, "labels")
        self._state = [item.name for item in self._session.get_outputs() if item.name != VECTORS]

    def _run(self, batch: Sequence[EncodedSequence]) -> FloatArray:
        ids, lengths = text_arrays(batch, self._pad_id)
        feed = {TEXT_INPUTS[0]: _value(ids), LENGTHS: _value(lengths)}
        # What was read stays with onnxruntime: as arrays, keys and values would be copied for each pass.
        state = dict(zip(self._state, self._session.run_with_ort_values(self._state, feed), strict=True))
        logits = np.zeros((len(batch), max(len(item.label_spans) for item in batch)), np.float32)
        for part in label_passes(batch, self._pad_id):
            labels = dict(zip(LABEL_INPUTS, (_value(part.ids), _value(part.widths)), strict=True))
            (scores,) = self._labels.run_with_ort_values([LOGITS], labels | state | {LENGTHS: feed[LENGTHS]})
            texts, columns = np.nonzero(part.widths)
            logits[texts, part.places[texts, columns]] = scores.numpy()[texts, columns]
        return logits

    def _embed(self, batch: Sequence[EncodedSequence]) -> FloatArray:
        feed = dict(zip(TEXT_INPUTS, text_arrays(batch, self._pad_id), strict=True))
        return np.asarray(self._session.run([VECTORS], feed)[0], np.float32)


def _value(array: NDArray[np.int64]) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
