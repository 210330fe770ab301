"""Correctness checks of a model on a GPU, each with its numbers and whether it passed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gliclass import GLiClassModel
from gliclass.pipeline import UniEncoderZeroShotClassificationPipeline

from benchmarks.gpu.models import transformers_tokenizer
from gliclass_rerank import ModelInfo, ScoreRequest
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.torch import TorchScorer
from gliclass_rerank.types import FloatArray

NARROW, PACKED = 5e-2, 1e-2  # allowed absolute differences of logits
APART = 2 * NARROW  # logits of a well separated pair differ by more
ABSURD = 10**9  # tokens of a pass
SPARE = 64 * 1024**2  # bytes left free in the memory test: less than a large batch of any model needs

Check = dict[str, Any]
"""Numbers by name, and ``passed``: True, False, or None if it cannot be checked here."""


def upstream_logits(model: GLiClassModel, folder: Path, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
    """Upstream's logits of each request on its own, without padding, float32, shape (labels,)."""
    pipeline = UniEncoderZeroShotClassificationPipeline(
        model, transformers_tokenizer(folder), device=model.device, progress_bar=False
    )
    rows = []
    with torch.inference_mode():
        for request in requests:
            inputs = pipeline.prepare_inputs([request.text], list(request.labels), True)
            logits = model(**inputs, max_num_classes=len(request.labels)).logits
            rows.append(logits[0, : len(request.labels)].float().cpu().numpy())
    return rows


def against_upstream(scores: Sequence[FloatArray], reference: Sequence[FloatArray]) -> Check:
    """Compare our logits in the narrow type with upstream's in fp32, by value and by order."""
    ours, theirs = np.concatenate(scores), np.concatenate(reference)
    apart = theirs[:, None] - theirs[None, :] > APART
    swapped = int((apart & (ours[:, None] <= ours[None, :])).sum())
    largest = float(np.abs(ours - theirs).max())
    return {
        "largest_difference": largest,
        "allowed": NARROW,
        "spread": float(theirs.std()),  # of the logits themselves, as a scale for the difference
        "pairs_apart": int(apart.sum()),
        "pairs_swapped": swapped,
        "passed": largest <= NARROW and not swapped,
    }


def packed_against_padded(
    model: GLiClassModel, folder: Path, scorer: TorchScorer, requests: Sequence[ScoreRequest]
) -> Check:
    """Compare packed and padded passes of the same weights, in fp32 (tests the packing) and bf16 (includes kernels).

    Two bf16 kernels round differently, and more so in deeper models. `against_upstream` bounds that difference.

    Args:
        model: upstream's in fp32, which is copied.
        folder: its checkpoint.
        scorer: of the checkpoint. The copies run on its device.
    """
    checkpoint = read_checkpoint(folder)
    found: Check = {"allowed": PACKED}
    for dtype in ("fp32", "bf16"):
        info = replace(scorer.info, dtype=dtype)

        def copied(packed: bool, info: ModelInfo = info) -> TorchScorer:
            return TorchScorer(checkpoint, info, max_batch_tokens=8192, model=copy.deepcopy(model), packed=packed)

        # Reuse the compiled scorer if it matches.
        packed = scorer if scorer.packed and scorer.info.dtype == dtype else copied(True)
        padded = copied(False)
        found[f"largest_difference_{dtype}"] = difference(packed.score(requests), padded.score(requests))
    return found | {"passed": found["largest_difference_fp32"] <= PACKED}


def out_of_memory(scorer: LocalScorer, requests: Sequence[ScoreRequest]) -> Check:
    """Score with an excessive token budget and almost no free memory, and compare the scores, on CUDA only."""
    budget = scorer.max_batch_tokens
    if not torch.cuda.is_available():
        return {"passed": None}
    expected = scorer.score(requests)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    scorer.max_batch_tokens = ABSURD
    try:
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + SPARE) / total))
        largest = difference(scorer.score(requests), expected)
        shrunk = scorer.max_batch_tokens
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        scorer.max_batch_tokens = budget
    found = {"largest_difference": largest, "allowed": PACKED, "asked_tokens": ABSURD, "budget_after": shrunk}
    return found | {"passed": largest <= PACKED and shrunk < ABSURD}


def difference(ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> float:
    assert [row.shape for row in ours] == [row.shape for row in theirs]
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def all_passed(checks: Mapping[str, Check]) -> bool:
    return all(check["passed"] is not False for check in checks.values())
