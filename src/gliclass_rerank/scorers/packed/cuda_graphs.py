"""Small packed batches as CUDA graphs: a few bucketed shapes, captured at load, replayed for requests.

Below a few thousand tokens a GPU computes faster than Python launches kernels. Such a batch is filled up to the next
bucket and its encoder replayed in one call. A larger batch runs without a graph, since its computation hides the
launches. On a CPU a "graph" is the encoder itself on the same buffers, so that only the capture differs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliclass_rerank.scorers.packed.arrays import PackedArrays, PackedShape, PackedTokens
from gliclass_rerank.scorers.packed.attention import BLOCK

GRAPHED_TOKENS = 4096  # largest bucket; beyond it, computing takes longer than launching
LEAST = 2 * BLOCK  # tokens; a single block would be compiled separately, since sizes of 1 are constants
TOKENS_PER_SEQUENCE = 8  # shortest average sequence that fits a bucket
Encode = Callable[[PackedTokens], Tensor]


def bucket(lengths: Sequence[int], max_length: int) -> PackedShape | None:
    """The smallest bucket that sequences fit into, or None.

    Args:
        lengths: tokens of each sequence.
        max_length: tokens of the longest sequence that the model reads.
    """
    total = sum(lengths)
    tokens, longest = max(LEAST, _power(total)), min(_power(max(lengths)), max_length)
    while tokens <= GRAPHED_TOKENS:
        shape = _shape(tokens, longest)
        if len(lengths) - (-(tokens - total) // shape.longest) <= shape.sequences:
            return shape
        tokens *= 2
    return None


def buckets(max_length: int) -> Iterator[PackedShape]:
    """Every shape that `bucket` may return, the largest first, so that smaller ones reuse its memory."""
    tokens = GRAPHED_TOKENS
    while tokens >= LEAST:
        longest = BLOCK
        while longest < min(tokens, max_length):
            yield _shape(tokens, longest)
            longest *= 2
        yield _shape(tokens, min(longest, max_length))
        tokens //= 2


def aligned(lengths: Sequence[int]) -> PackedShape:
    """Shape of the sequences plus a tail to a whole number of blocks, which suits the kernels."""
    total, longest = sum(lengths), max(lengths)
    tail = max(-total % BLOCK, LEAST - total)
    return PackedShape(total + tail, len(lengths) - (-tail // longest), longest)


def _power(number: int) -> int:
    """The next power of two, `BLOCK` at least."""
    return max(BLOCK, 1 << (number - 1).bit_length())


def _shape(tokens: int, longest: int) -> PackedShape:
    return PackedShape(tokens, tokens // TOKENS_PER_SEQUENCE, min(longest, tokens))


@dataclass(frozen=True, slots=True)
class Recorded:
    """An encoder on fixed buffers: fill ``inputs``, call ``replay``, read ``hidden``, shape (T, D)."""

    inputs: Tensor
    hidden: Tensor
    replay: Callable[[], object]


class EncoderGraphs:
    """Recorded encoders by their shape. Thread-safe: one replays at a time.

    Args:
        encode: the recorded function. It must not synchronise with the device.
        device: device of the graphs.
    """

    def __init__(self, encode: Encode, device: torch.device) -> None:
        self._encode = encode
        self._device = device
        self._recorded: dict[PackedShape, Recorded] = {}
        self._lock = threading.Lock()
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __contains__(self, shape: PackedShape) -> bool:
        return shape in self._recorded

    def record(self, sample: PackedArrays) -> None:
        """Record the encoder for the shape of a sample."""
        inputs = sample.buffer[: sample.encoder_size].to(self._device, copy=True)
        tokens = sample.tokens(inputs)
        hidden = self._encode(tokens)  # also initialises libraries, which is not allowed during capture
        if self._pool is None:
            replay: Callable[[], object] = lambda: hidden.copy_(self._encode(tokens))  # noqa: E731
        else:
            hidden, replay = self._capture(tokens)
        self._recorded[sample.shape] = Recorded(inputs, hidden, replay)

    def _capture(self, tokens: PackedTokens) -> tuple[Tensor, Callable[[], object]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile. All graphs share the memory of intermediate results.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            hidden = self._encode(tokens)
        return hidden, graph.replay

    def replay(self, arrays: PackedArrays, buffer: Tensor) -> Tensor:
        """Encode a batch of a recorded shape.

        Args:
            arrays: the original of ``buffer``.
            buffer: int32, on the device.

        Returns:
            Shape (T, D).
        """
        recorded = self._recorded[arrays.shape]
        with self._lock:
            recorded.inputs.copy_(buffer[: arrays.encoder_size])
            recorded.replay()
            return recorded.hidden.clone()  # the next replay of any graph overwrites it
