"""What scorers that hold a model have in common: encode, batch, run, put back in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from gliclass_rerank.errors import NonFiniteError
from gliclass_rerank.scoring.batching import chunked, plan_batches
from gliclass_rerank.scoring.checkpoint import Checkpoint
from gliclass_rerank.scoring.encoding import InputEncoder, Pass, chunk_sizes
from gliclass_rerank.scoring.tokenizer import TextTokenizer
from gliclass_rerank.types import FloatArray, Logits, ModelInfo, ScoreRequest

# What is tokenised ahead of scoring: enough to sort by length, little enough to bound memory.
CHUNK_REQUESTS = 1024
CHUNK_CHARACTERS = 4_000_000


class LocalScorer(ABC):
    """A `Scorer` over a checkpoint. Subclasses run batches; safe to call from many threads.

    Args:
        checkpoint: what was read from the model's folder.
        info: what the scorer says of itself.
        max_batch_tokens: budget of one forward pass, padding included.
    """

    def __init__(self, checkpoint: Checkpoint, info: ModelInfo, *, max_batch_tokens: int) -> None:
        self._checkpoint = checkpoint
        self._info = info
        self._max_batch_tokens = max_batch_tokens
        self._tokenizer = TextTokenizer(checkpoint.tokenizer_file)
        self._encoder = InputEncoder(checkpoint, self._tokenizer)

    @property
    def info(self) -> ModelInfo:
        """What this model is and where it runs."""
        return self._info

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """Return the raw logits of each request, float32 of shape (labels,), in the order of its labels.

        Scores do not depend on what else is scored in the same call.

        Raises:
            InputError: a request that cannot be encoded; nothing is scored then.
            NonFiniteError: the model gives NaN or infinity.
        """
        scored: list[Logits] = []
        chunks = chunked(requests, chunk_sizes(requests), max_items=CHUNK_REQUESTS, max_size=CHUNK_CHARACTERS)
        for chunk in chunks:
            scored += self._score_chunk(chunk)
        return scored

    def check(self) -> None:
        """Score one pair, so that a broken model is found when it is loaded and not in service.

        Raises:
            NonFiniteError: its weights are NaN or infinite.
        """
        self.score([ScoreRequest("What is this passage about?", ("a test of the model",))])

    @abstractmethod
    def _run(self, batch: Sequence[Pass]) -> FloatArray:
        """Return logits, float32 of shape (passes, labels); all passes of a batch have as many labels."""

    def _map(self, run: Callable[[list[Pass]], FloatArray], batches: Iterable[list[Pass]]) -> Iterator[FloatArray]:
        """Run batches; subclasses may run several at a time, results in order."""
        return map(run, batches)

    def _score_chunk(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        encoded = self._encoder.encode(requests)
        passes = [item for request in encoded for item in request.passes]
        plan = plan_batches(
            [item.cost for item in passes],
            [len(item.labels) for item in passes],
            max_tokens=self._max_batch_tokens,
        )
        rows: list[FloatArray] = [np.empty(0, np.float32)] * len(passes)
        for batch, logits in zip(plan, self._map(self._run, ([passes[i] for i in b] for b in plan)), strict=True):
            if not np.isfinite(logits).all():
                raise NonFiniteError(
                    f"{self._info.name}: the model gives scores that are not finite; its weights are broken, "
                    f"or {self._info.dtype} is too narrow for them (try dtype='fp32')"
                )
            for i, row in zip(batch, logits, strict=True):
                rows[i] = row
        ordered = iter(rows)
        return [request.assemble([next(ordered) for _ in request.passes]) for request in encoded]
