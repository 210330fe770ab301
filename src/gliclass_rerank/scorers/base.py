"""What scorers that hold a model have in common: encode, batch, run, put back in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from operator import attrgetter

import numpy as np

from gliclass_rerank.copies import Reloadable
from gliclass_rerank.errors import DeviceMemoryError, NonFiniteError
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedRequest, EncodedSequence, InputEncoder, chunk_sizes
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.models.upstream import refuse_breaks
from gliclass_rerank.scorers.batch_plan import batch_cost, chunked, plan_batches
from gliclass_rerank.scorers.prefetch import drain_one_late, prefetch
from gliclass_rerank.types import Example, FloatArray, Logits, ModelInfo, ScoreRequest
from gliclass_rerank.unreadable import naming, request_places

# What is tokenised before it is scored: enough to sort by length, little enough to bound memory.
CHUNK_REQUESTS = 1024
CHUNK_CHARACTERS = 4_000_000
# Where a device works beside us and nothing is padded, sorting gains nothing, and short chunks keep both busy.
PACKED_CHUNK_REQUESTS = 256

Waiting = Callable[[], FloatArray]
"""A batch under way: called once, it waits for its logits, float32 of shape (sequences, labels)."""


class LocalScorer(Reloadable, ABC):
    """A `Scorer` over a checkpoint. Subclasses run batches; safe to call from many threads and in forked processes.

    On a device of its own (``info.device`` other than "cpu") the next requests are tokenised on a thread, and their
    batches started, while it still works on the ones before.

    Args:
        checkpoint: what was read from the model's folder.
        info: what the scorer says of itself.
        max_batch_tokens: budget of one forward pass, padding included.
    """

    _out_of_memory: tuple[type[BaseException], ...] = ()
    """What the backend raises when a batch does not fit into the device; subclasses name it."""
    _pads: bool = True
    """Whether a batch is padded to its longest sequence; packed batches cost only their own tokens."""

    def __init__(self, checkpoint: Checkpoint, info: ModelInfo, *, max_batch_tokens: int) -> None:
        self._checkpoint = checkpoint
        self._info = info
        self._max_batch_tokens = max_batch_tokens
        self._overlaps = info.device != "cpu"  # on a CPU both would compete for the same cores
        self._tokenizer = TextTokenizer(checkpoint.tokenizer_file)
        self._encoder = InputEncoder(checkpoint, self._tokenizer)

    @property
    def info(self) -> ModelInfo:
        """What this model is and where it runs."""
        return self._info

    @property
    def max_batch_tokens(self) -> int:
        """Tokens of one forward pass at most; it shrinks for good where a batch does not fit into the device."""
        return self._max_batch_tokens

    @max_batch_tokens.setter
    def max_batch_tokens(self, tokens: int) -> None:
        self._max_batch_tokens = tokens

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """Return the raw logits of each request, float32 of shape (labels,), in the order of its labels.

        Scores do not depend on what else is scored in the same call, nor on how its batches had to be divided to fit
        into the device's memory.

        Raises:
            InputError: a request that cannot be encoded; no scores are returned then.
            NonFiniteError: the model gives NaN or infinity.
            DeviceMemoryError: one pass by itself does not fit into the device's memory.
        """
        with naming(lambda: request_places(requests)):
            return self._score(requests)

    def encode(self, requests: Sequence[ScoreRequest]) -> list[EncodedRequest]:
        """Tokenise requests for `score_encoded`, which together give what `score` gives.

        Raises:
            InputError: a request that cannot be encoded; it quotes the text, and `score` says which request it is of.
        """
        return self._encoder.encode(requests)

    def score_encoded(self, encoded: Sequence[EncodedRequest]) -> list[Logits]:
        """Return the raw logits of encoded requests; results and other errors are those of `score`."""
        return self._start(encoded)()

    def _score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        most = PACKED_CHUNK_REQUESTS if self._overlaps and not self._pads else CHUNK_REQUESTS
        chunks = list(chunked(requests, chunk_sizes(requests), max_items=most, max_size=CHUNK_CHARACTERS))
        if not self._overlaps or len(chunks) == 1:  # nothing to overlap with, and a thread takes time to start
            return [row for chunk in chunks for row in self._start(self._encoder.encode(chunk))()]
        with closing(prefetch(self._encoder.encode, chunks)) as encoded:
            return [row for finish in drain_one_late(map(self._start, encoded)) for row in finish()]

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Whether these labels are read in one pass beside a text of any length; see `scored.labels_share_pass`."""
        return self._encoder.labels_share_pass(labels, examples)

    def check(self) -> None:
        """Score one pair, so that a broken model is found when it is loaded and not in service.

        Raises:
            NonFiniteError: its weights are NaN or infinite.
            UnsupportedModelError: the installed versions of the backend's packages cannot run it.
        """
        with refuse_breaks(self._checkpoint, self._info.backend):
            self.score([ScoreRequest("What is this passage about?", ("a test of the model",))])

    @abstractmethod
    def _run(self, batch: Sequence[EncodedSequence]) -> FloatArray:
        """Return logits, float32 of shape (sequences, labels); all sequences of a batch have as many labels."""

    def _launch(self, batch: Sequence[EncodedSequence]) -> Waiting:
        """Start a batch; subclasses whose device works beside us need not wait for it here."""
        logits = self._run(batch)
        return lambda: logits

    def _map(
        self, run: Callable[[list[EncodedSequence]], FloatArray], batches: Iterable[list[EncodedSequence]]
    ) -> Iterator[FloatArray]:
        """Run batches; subclasses may run several at a time, results in order."""
        return map(run, batches)

    def _start(self, encoded: Sequence[EncodedRequest]) -> Callable[[], list[Logits]]:
        """Batch a chunk and start it where the device works beside us; the result finishes it."""
        sequences = [item for request in encoded for item in request.sequences]
        plan = plan_batches(
            list(map(attrgetter("cost"), sequences)),
            [len(item.labels) for item in sequences],
            max_tokens=self._max_batch_tokens,
            padded=self._pads,
        )
        batches = [[sequences[i] for i in indices] for indices in plan]
        results: Iterator[FloatArray]
        if self._overlaps:
            launched = [self._launch_to_fit(batch) for batch in batches]
            results = (wait() for wait in launched)
        else:
            results = self._map(lambda batch: self._launch_to_fit(batch)(), batches)
        return partial(self._finish, encoded, plan, results)

    def _finish(
        self, encoded: Sequence[EncodedRequest], plan: Sequence[Sequence[int]], results: Iterator[FloatArray]
    ) -> list[Logits]:
        """Wait for the batches of a plan and put their rows back in order."""
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
        return [request.assemble(list(islice(ordered, len(request.sequences)))) for request in encoded]

    def _launch_to_fit(self, batch: list[EncodedSequence]) -> Waiting:
        """Start a batch, in halves of halves if the device's memory is too small for it."""
        cost = batch_cost([item.cost for item in batch], padded=self._pads)
        if len(batch) == 1 or cost <= self._max_batch_tokens:  # else the budget has shrunk since the plan was made
            launched = self._try_to_launch(batch)
            if not isinstance(launched, str):
                return launched
            # Out of the "except": there the failed pass's tensors would still be held by its traceback.
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
        """Start a batch, or say what the backend says of its memory."""
        try:
            return self._launch(batch)
        except self._out_of_memory as error:
            return str(error).partition("\n")[0]
