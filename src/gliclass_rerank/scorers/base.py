"""Base of scorers that hold a model: encode, batch, run, restore the order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any

import numpy as np

from gliclass_rerank.copies import Reloadable
from gliclass_rerank.errors import DeviceMemoryError, NonFiniteError
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedRequest, EncodedSequence, InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.models.upstream import refuse_breaks
from gliclass_rerank.scorers.batch_plan import batch_cost, plan_batches, request_chunks
from gliclass_rerank.scorers.independent.cache import PassageCache
from gliclass_rerank.scorers.label_cache import LabelCache
from gliclass_rerank.scorers.prefetch import drain_one_late, prefetch
from gliclass_rerank.scoring import embed
from gliclass_rerank.types import Example, FloatArray, Logits, ModelInfo, ScoreRequest
from gliclass_rerank.unreadable import naming, request_places

# Requests tokenised at a time: enough to sort by length, few enough to bound memory.
CHUNK_REQUESTS = 1024
CHUNK_CHARACTERS = 4_000_000
# Packed batches on a GPU gain nothing from sorting, and short chunks keep both the CPU and the GPU busy.
PACKED_CHUNK_REQUESTS = 256

Waiting = Callable[[], FloatArray]
"""A running batch. Called once, it waits for its result, that of `LocalScorer._run`."""


class LocalScorer(Reloadable, ABC):
    """A `Scorer` over a checkpoint. Subclasses run batches. Thread-safe, and usable in forked processes.

    On a device other than "cpu" (``info.device``) the next requests are tokenised on a thread, and their batches
    started, while the device computes the previous ones.

    Args:
        checkpoint: the model's checkpoint.
        info: information about the model.
        max_batch_tokens: budget of one forward pass, padding included.
    """

    _out_of_memory: tuple[type[BaseException], ...] = ()
    """Errors of the backend for a batch that does not fit into the device's memory, set by subclasses."""
    _pads: bool = True
    """Whether a batch is padded to its longest sequence. A packed batch costs only its own tokens."""
    passage_cache: PassageCache[Any] | None = None
    """Set by subclasses for models with independent labels."""

    def __init__(self, checkpoint: Checkpoint, info: ModelInfo, *, max_batch_tokens: int) -> None:
        self._checkpoint = checkpoint
        self._info = info
        self._max_batch_tokens = max_batch_tokens
        self._overlaps = info.device != "cpu"  # on a CPU both would compete for the same cores
        self._tokenizer = TextTokenizer(checkpoint.tokenizer_file)
        self._encoder = InputEncoder(checkpoint, self._tokenizer)
        self._label_vectors = LabelCache[FloatArray](self._read_vectors)

    @property
    def info(self) -> ModelInfo:
        """Information about the model, its backend and device."""
        return self._info

    @property
    def max_batch_tokens(self) -> int:
        """Token budget of a forward pass. Reduced permanently after a batch that does not fit into the device."""
        return self._max_batch_tokens

    @max_batch_tokens.setter
    def max_batch_tokens(self, tokens: int) -> None:
        self._max_batch_tokens = tokens

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """Return the raw logits of each request, float32 of shape (labels,), in the order of its labels.

        Scores are independent of the other requests of the call, and of the division of batches to fit into memory.

        Raises:
            InputError: a request that cannot be encoded. No scores are returned then.
            NonFiniteError: the model returns NaN or infinity.
            DeviceMemoryError: a single sequence does not fit into the device's memory.
        """
        with naming(lambda: request_places(requests)):
            return self._score(requests)

    def encode(self, requests: Sequence[ScoreRequest]) -> list[EncodedRequest]:
        """Tokenise requests for `score_encoded`. Together they equal `score`.

        Raises:
            InputError: a request that cannot be encoded. The message quotes the text; that of `score` also names the
                request.
        """
        return self._encoder.encode(requests)

    def score_encoded(self, encoded: Sequence[EncodedRequest]) -> list[Logits]:
        """Return the raw logits of encoded requests. Results and other errors are those of `score`."""
        return self._start(encoded)()

    def _score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        most = PACKED_CHUNK_REQUESTS if self._overlaps and not self._pads else CHUNK_REQUESTS
        chunks = list(request_chunks(requests, max_requests=most, max_characters=CHUNK_CHARACTERS))
        if not self._overlaps or len(chunks) == 1:  # nothing to overlap; avoids the start of a thread
            return [row for chunk in chunks for row in self._start(self._encoder.encode(chunk))()]
        with closing(prefetch(self._encoder.encode, chunks)) as encoded:
            return [row for finish in drain_one_late(map(self._start, encoded)) for row in finish()]

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return a vector of each text, float32 of shape (texts, D). See `gliclass_rerank.scoring.embed`.

        Raises:
            NoVectorsError, InputError, UnreadableTextError: as `gliclass_rerank.scoring.embed`.
            NonFiniteError, DeviceMemoryError: as `score`.
        """
        return embed(self, texts)

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Whether these labels are read in one pass with a text of any length. See `scoring.labels_share_pass`."""
        return self._encoder.labels_share_pass(labels, examples)

    def check(self) -> None:
        """Score one pair, so that a broken model is detected when it is loaded.

        Raises:
            NonFiniteError: its weights are NaN or infinite.
            UnsupportedModelError: the installed versions of the backend's packages cannot run it.
        """
        with refuse_breaks(self._checkpoint, self._info.backend):
            self.score([ScoreRequest("What is this passage about?", ("a test of the model",))])

    @abstractmethod
    def _run(self, batch: Sequence[EncodedSequence]) -> FloatArray:
        """Return logits, float32 of shape (sequences, labels). All sequences of a batch have equally many labels.

        A model that embeds appends the vectors of the texts, as columns.
        """

    def _launch(self, batch: Sequence[EncodedSequence]) -> Waiting:
        """Start a batch. Subclasses with an asynchronous device return before it has finished."""
        logits = self._run(batch)
        return lambda: logits

    def _map(
        self, run: Callable[[list[EncodedSequence]], FloatArray], batches: Iterable[list[EncodedSequence]]
    ) -> Iterator[FloatArray]:
        """Run batches, with results in order. Subclasses may run several at a time."""
        return map(run, batches)

    def _start(self, encoded: Sequence[EncodedRequest]) -> Callable[[], list[Logits]]:
        """Batch a chunk and, on an asynchronous device, start it. Call the result to finish it."""
        sequences = [item for request in encoded for item in request.sequences]
        costs, kinds = self._loads(sequences)
        plan = plan_batches(costs, kinds, max_tokens=self._max_batch_tokens, padded=self._pads)
        batches = [[sequences[i] for i in indices] for indices in plan]
        results: Iterator[FloatArray]
        if self._overlaps:
            launched = [self._launch_to_fit(batch) for batch in batches]
            results = (wait() for wait in launched)
        else:
            results = self._map(lambda batch: self._launch_to_fit(batch)(), batches)
        return partial(self._finish, encoded, plan, results)

    def _loads(self, sequences: Sequence[EncodedSequence]) -> tuple[list[int], list[Hashable]]:
        """Tokens that a pass computes for each sequence, at least 1, and its kind: kinds never share a batch."""
        counts = list(map(len, map(attrgetter("labels"), sequences)))
        if self.passage_cache is None:
            return list(map(attrgetter("cost"), sequences)), [*counts]
        known = [bool(item.labels) and item in self.passage_cache for item in sequences]
        pairs = zip(sequences, known, strict=True)
        costs = [max(1, len(item.side)) if is_known else item.cost for item, is_known in pairs]
        return costs, list(zip(counts, known, strict=True))

    def _finish(
        self, encoded: Sequence[EncodedRequest], plan: Sequence[Sequence[int]], results: Iterator[FloatArray]
    ) -> list[Logits]:
        """Wait for the batches of a plan and restore the order of their rows."""
        rows: list[FloatArray] = [np.empty(0, np.float32)] * sum(map(len, plan))
        for batch, logits in zip(plan, results, strict=True):
            if not np.isfinite(logits).all():
                raise NonFiniteError(
                    f"{self._info.name}: the model gives scores that are not finite; its weights are broken, "
                    f"or {self._info.dtype} is too narrow for them (try dtype='fp32')"
                )
            for i, row in zip(batch, logits, strict=True):
                rows[i] = row
        ordered = iter(rows)
        wanted = (label for request in encoded if request.similarity for label in request.labels)
        vectors = self._label_vectors.of(wanted) if self._info.embeds else {}
        return [request.assemble(list(islice(ordered, len(request.sequences))), vectors) for request in encoded]

    def _read_vectors(self, labels: Sequence[str]) -> list[FloatArray]:
        requests = [ScoreRequest.of_checked(label, (), vector=True) for label in labels]
        return [row.vector for row in self._score(requests)]

    def _launch_to_fit(self, batch: list[EncodedSequence]) -> Waiting:
        """Start a batch, divided into halves recursively if it does not fit into the device's memory."""
        cost = batch_cost(self._loads(batch)[0], padded=self._pads)
        if len(batch) == 1 or cost <= self._max_batch_tokens:  # else the budget was reduced after planning
            launched = self._try_to_launch(batch)
            if not isinstance(launched, str):
                return launched
            # Outside of "except", whose traceback would keep the tensors of the failed pass alive.
            if len(batch) == 1:
                raise DeviceMemoryError(
                    f"{self._info.name}: a pass of {cost} tokens by itself does not fit into the free memory of "
                    f"{self._info.device!r} ({launched}); free some of it, or load the model with a smaller max_length"
                )
            self._max_batch_tokens = min(self._max_batch_tokens, cost // 2)
        middle = len(batch) // 2
        halves = [self._launch_to_fit(batch[:middle]), self._launch_to_fit(batch[middle:])]
        return lambda: np.concatenate([wait() for wait in halves])

    def _try_to_launch(self, batch: list[EncodedSequence]) -> Waiting | str:
        """Start a batch, or return the backend's message about its memory."""
        try:
            return self._launch(batch)
        except self._out_of_memory as error:
            return str(error).partition("\n")[0]
