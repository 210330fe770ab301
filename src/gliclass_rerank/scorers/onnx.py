"""OnnxScorer: run uni-encoders on a CPU with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import onnxruntime

from gliclass_rerank.errors import CheckpointError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.padded.arrays import uni_encoder_inputs
from gliclass_rerank.types import FloatArray, ModelInfo


class OnnxScorer(LocalScorer):
    """Run an exported checkpoint (`gliclass_rerank.export.onnx`).

    Several batches run at a time, each on one thread. Measured, this beats one batch on all threads, which wait for
    each other at every small operator.

    Args:
        checkpoint, info: as read and resolved by `load_scorer`.
        max_batch_tokens: budget of one forward pass, padding included.
        threads: batches that run at a time.
    """

    def __init__(self, checkpoint: Checkpoint, info: ModelInfo, *, max_batch_tokens: int, threads: int) -> None:
        super().__init__(checkpoint, info, max_batch_tokens=max_batch_tokens)
        self._session = open_graph(checkpoint, info.kernel)
        self._pool = PerProcess(partial(ThreadPoolExecutor, threads, thread_name_prefix="gliclass-onnx"))
        self._pad_id = int(checkpoint.config.get("pad_token_id") or 0)

    def _run(self, batch: Sequence[EncodedSequence]) -> FloatArray:
        segments = self._checkpoint.uses_segments
        feed = uni_encoder_inputs(batch, self._pad_id, segments=segments)
        logits: FloatArray = np.asarray(self._session.run(["logits"], feed)[0], np.float32)
        return logits

    def _map(
        self, run: Callable[[list[EncodedSequence]], FloatArray], batches: Iterable[list[EncodedSequence]]
    ) -> Iterator[FloatArray]:
        return self._pool.get().map(run, batches)


def open_graph(checkpoint: Checkpoint, kernel: str, part: str = "") -> onnxruntime.InferenceSession:
    """Load a graph of a checkpoint to run on one thread.

    Raises:
        CheckpointError: the graph is missing, or onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    file = checkpoint.graph_file(kernel, part)
    if not file.is_file():
        why = "this processor needs for exact int8 products" if kernel == "u8u8" else "scores its independent labels"
        raise CheckpointError(
            f"{checkpoint.folder}: no {file.name}, which {why}; export the checkpoint again, or load it with "
            "backend='torch'"
        )
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base below Exception
        raise CheckpointError(f"{file}: onnxruntime cannot load it: {error}") from error
