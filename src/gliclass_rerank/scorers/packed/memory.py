"""How many tokens one pass may have on a GPU: what its free memory holds, as measured with a small pass at load.

    tokens = (free - reserve) x SHARE / bytes per token,  between MIN_TOKENS and MAX_TOKENS

The small pass has the longest sequences that the model reads, since padded attention takes the more memory a token
the longer a sequence is. It is run twice: the first time libraries take workspaces that they keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.types import ScoreRequest

MIN_TOKENS = 1024
MAX_TOKENS = 131072  # a chip of today is full long before; more would only wait for more to be tokenised
PROBE_TOKENS = 8192
# For what grows beside us: another thread's batch, another process, pieces too small to use.
SHARE = 0.5
LEAST_PER_TOKEN = 16 * 1024  # bytes; what a captured graph takes is taken before, and not seen in a pass
RESERVE = 512 * 1024**2  # bytes


class DeviceMemory(Protocol):
    """The memory of a device."""

    def free(self) -> int:
        """Bytes that can still be taken."""

    def peak_of(self, run: Callable[[], object]) -> int:
        """Bytes that ``run`` took at most beyond what was taken before."""


class CudaMemory:
    """The memory of a CUDA device, as its driver and torch's allocator tell it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """Bytes that the driver has left, and those that torch holds without using them."""
        held = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return torch.cuda.mem_get_info(self._device)[0] + held

    def peak_of(self, run: Callable[[], object]) -> int:
        """Bytes that ``run`` took at most beyond what was taken before."""
        torch.cuda.synchronize(self._device)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        run()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


def tokens_that_fit(free: int, per_token: float, *, reserve: int = RESERVE, share: float = SHARE) -> int:
    """Tokens of a pass for which ``share`` of the memory beyond a reserve suffices, MIN_TOKENS to MAX_TOKENS.

    Args:
        free: bytes, of the device.
        per_token: bytes that a token of a pass takes at its peak, > 0.
        reserve: bytes that stay free.
        share: of what is beyond the reserve, 0 to 1.
    """
    return min(MAX_TOKENS, max(MIN_TOKENS, int(share * (free - reserve) / per_token)))


def fit_to_memory(scorer: LocalScorer, memory: DeviceMemory) -> None:
    """Set the token budget of a scorer to what a small pass shows to fit into the free memory.

    Where even that pass had to be divided, the scorer has shrunk its budget by itself, and keeps it.

    Raises:
        DeviceMemoryError: one pass of the model's longest sequence does not fit.
    """
    length = scorer.info.max_length
    count = max(1, PROBE_TOKENS // length)
    text = "memory " * length  # a token each, or more
    probe = [ScoreRequest(text, ("a label",), long_text="truncate")] * count
    before = scorer.max_batch_tokens = max(scorer.max_batch_tokens, count * length)
    scorer.score(probe)
    peak = memory.peak_of(lambda: scorer.score(probe))
    if scorer.max_batch_tokens == before:
        scorer.max_batch_tokens = tokens_that_fit(memory.free(), max(LEAST_PER_TOKEN, peak / (count * length)))
