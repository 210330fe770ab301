"""Small packed batches as CUDA graphs: a few bucketed shapes, captured at load, replayed in service.

Below a few thousand tokens a GPU computes faster than Python can tell it what to compute. Such a batch is filled up to
the next bucket and its encoder replayed in one call; a larger one runs as it is, and hides what its launches take.
On a CPU a "graph" is the encoder itself on the same buffers, so that all but the capture is the same code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliclass_rerank.scorers.packed.arrays import PackedArrays, PackedShape, PackedTokens
from gliclass_rerank.scorers.packed.attention import BLOCK

GRAPHED_TOKENS = 4096  # of a bucket at most: beyond, computing takes longer than launching
LEAST = 2 * BLOCK  # tokens; an axis of a single block would be compiled once more, since ones are taken for constants
TOKENS_PER_SEQUENCE = 8  # a bucket has room for sequences that are as short as this on average
Encode = Callable[[PackedTokens], Tensor]


def bucket(lengths: Sequence[int], max_length: int) -> PackedShape | None:
    """The smallest bucket that sequences fit into, or None where there is none.

    Args:
        lengths: tokens of each pass.
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
    """Every shape that `bucket` may give, the largest first: memory that it takes then serves the smaller ones."""
    tokens = GRAPHED_TOKENS
    while tokens >= LEAST:
        longest = BLOCK
        while longest < min(tokens, max_length):
            yield _shape(tokens, longest)
            longest *= 2
        yield _shape(tokens, min(longest, max_length))
        tokens //= 2


def aligned(lengths: Sequence[int]) -> PackedShape:
    """The sequences themselves and a tail that ends with a block, which kernels like."""
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
    """Recorded encoders by their shape. Safe to use from many threads: one replays at a time.

    Args:
        encode: what is recorded. It must not wait for the device.
        device: where.
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
        hidden = self._encode(tokens)  # also sets up what must not be set up while capturing
        if self._pool is None:
            replay: Callable[[], object] = lambda: hidden.copy_(self._encode(tokens))  # noqa: E731
        else:
            hidden, replay = self._capture(tokens)
        self._recorded[sample.shape] = Recorded(inputs, hidden, replay)

    def _capture(self, tokens: PackedTokens) -> tuple[Tensor, Callable[[], object]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile; all graphs share the memory of what lies between.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            hidden = self._encode(tokens)
        return hidden, graph.replay

    def replay(self, arrays: PackedArrays, buffer: Tensor) -> Tensor:
        """Encode a batch of a recorded shape.

        Args:
            arrays: what ``buffer`` is a copy of.
            buffer: int32, on the device.

        Returns:
            Shape (T, D).
        """
        recorded = self._recorded[arrays.shape]
        with self._lock:
            recorded.inputs.copy_(buffer[: arrays.encoder_size])
            recorded.replay()
            return recorded.hidden.clone()  # the next replay, of whichever graph, writes over it
