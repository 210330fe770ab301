"""Fit the token budget of a pass to a GPU's free memory, measured with a small pass at load.

    tokens = (free - reserve) x SHARE / bytes per token,  between MIN_TOKENS and MAX_TOKENS

The small pass has the longest sequences that the model reads, since padded attention takes more memory per token for
longer sequences. It runs twice, because libraries allocate permanent workspaces in the first run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.types import ScoreRequest

MIN_TOKENS = 1024
MAX_TOKENS = 131072  # far above the saturation of current GPUs; more would only wait for tokenisation
PROBE_TOKENS = 8192
# The rest is for other threads' batches, other processes, and fragmentation.
SHARE = 0.5
LEAST_PER_TOKEN = 16 * 1024  # bytes; memory of captured graphs is allocated earlier and not seen in a pass
RESERVE = 512 * 1024**2  # bytes


class DeviceMemory(Protocol):
    """The memory of a device."""

    def free(self) -> int:
        """Bytes available for allocation."""

    def peak_of(self, run: Callable[[], object]) -> int:
        """Peak of bytes allocated by ``run`` beyond those allocated before."""


class CudaMemory:
    """The memory of a CUDA device, as reported by its driver and torch's allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """Free bytes of the driver plus unused bytes held by torch."""
        held = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return torch.cuda.mem_get_info(self._device)[0] + held

    def peak_of(self, run: Callable[[], object]) -> int:
        """Peak of bytes allocated by ``run`` beyond those allocated before."""
        torch.cuda.synchronize(self._device)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        run()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


def tokens_that_fit(free: int, per_token: float, *, reserve: int = RESERVE, share: float = SHARE) -> int:
    """Tokens of a pass that fit in ``share`` of the memory beyond a reserve, from MIN_TOKENS to MAX_TOKENS.

    Args:
        free: free bytes of the device.
        per_token: peak bytes per token of a pass, > 0.
        reserve: bytes that stay free.
        share: usable share of the bytes beyond the reserve, 0 to 1.
    """
    return min(MAX_TOKENS, max(MIN_TOKENS, int(share * (free - reserve) / per_token)))


def fit_to_memory(scorer: LocalScorer, memory: DeviceMemory) -> None:
    """Set the token budget of a scorer to the size that fits into the free memory, extrapolated from a small pass.

    If even that pass had to be divided, the scorer has reduced its budget by itself, and keeps it.

    Raises:
        DeviceMemoryError: one sequence of the model's longest length does not fit.
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
