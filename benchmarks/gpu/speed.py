"""Measurements of `gpu.py`: the card's own rate, passages per second, latency, and samples per second by labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from gliclass import GLiClassModel
from gliclass.pipeline import UniEncoderZeroShotClassificationPipeline

from benchmarks.gpu.models import transformers_tokenizer
from benchmarks.speed import floor
from benchmarks.speed.labels import Cell
from gliclass_rerank import Reranker, ScoreRequest
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.models.encoding import InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.batch_plan import plan_batches

OURS = "ours"
DEFAULT_BATCH = 8  # of upstream's pipeline
UPSTREAM_PASSAGES = 512  # passages per call of upstream: one of its largest batches


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the measurements.

    Attributes:
        square: side of the matrices whose product gives the card's rate.
        passages: passages per call for throughput.
        reranked: passages per call for latency.
        upstream_batches: upstream's batch sizes.
        labels, lengths, texts: of the table by labels. ``texts`` are scored at once in its batched half.
        checked: requests whose scores are compared.
        seconds: limit of the longest section of a model.
    """

    square: int
    passages: int
    reranked: int
    upstream_batches: tuple[int, ...]
    labels: tuple[int, ...]
    lengths: tuple[int, ...]
    texts: int
    checked: int
    seconds: float


FULL = Sizes(8192, 4096, 100, (8, 32, 128, 512), (1, 2, 4, 8, 16, 32, 64, 128), (64, 256, 512), 64, 64, 30)
TOY = Sizes(128, 12, 3, (8, 4), (1, 2), (16,), 2, 4, 0.3)


def repeated(run: Callable[[], object], seconds: float, *, least: int = 3) -> list[float]:
    """Seconds of each run, after one warm-up run, for about ``seconds`` and at least ``least`` runs."""
    run()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken


def matrix_rate(device: torch.device, side: int, seconds: float) -> float:
    """Operations per second of a large square product in bf16, the best of several runs of ten products each."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def run() -> None:
        for _ in range(10):
            torch.matmul(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 10 * 2 * side**3 / min(repeated(run, seconds, least=5))


def throughput(
    scorer: LocalScorer, upstream: GLiClassModel, folder: Path, requests: Sequence[ScoreRequest], sizes: Sizes,
    peak: float, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Measure passages per second in large batches, next to upstream's pipeline, and their share of the card's rate.

    Rounds alternate all contestants until the time is over, at least two rounds. Upstream gets fewer passages per
    round.

    Args:
        scorer: ours.
        upstream: its model in a narrow type, on the device.
        folder: of the checkpoint.
        requests: all with the same label.
        sizes: upstream's batch sizes.
        peak: operations per second of the card.
        seconds: no round starts after this time.
    """
    runs = contestants(scorer, upstream, folder, requests, sizes)
    counts = {name: len(requests) if name == OURS else min(UPSTREAM_PASSAGES, len(requests)) for name in runs}
    rounds: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    for run in runs.values():
        run()
    while len(rounds[OURS]) < 2 or time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            rounds[name].append(counts[name] / (time.perf_counter() - start))
    checkpoint = read_checkpoint(folder)
    lengths = floor.sequence_lengths(checkpoint, requests)
    operations = floor.operations(checkpoint.config["encoder_config"], lengths) / len(requests)
    speeds = {name: median(row) for name, row in rounds.items()}
    others = {name: speed for name, speed in speeds.items() if name != OURS}
    on_device = device_rate(scorer, requests)
    return {
        "passages_per_second": speeds,
        "rounds": rounds,
        "mean_tokens": mean(lengths),
        "operations_per_passage": operations,
        "share_of_peak": speeds[OURS] * operations / peak,
        "passages_per_second_on_device": on_device,
        "share_of_peak_on_device": on_device * operations / peak,
        "passages_per_second_encoded": encoding_rate(folder, requests),
        "times_upstream_default": speeds[OURS] / others[f"upstream, batch {DEFAULT_BATCH}"],
        "times_upstream_best": speeds[OURS] / max(others.values()),
    }


def contestants(
    scorer: LocalScorer, upstream: GLiClassModel, folder: Path, requests: Sequence[ScoreRequest], sizes: Sizes
) -> dict[str, Callable[[], object]]:
    pipeline = UniEncoderZeroShotClassificationPipeline(
        upstream, transformers_tokenizer(folder), max_length=scorer.info.max_length, device=upstream.device,
        progress_bar=False,
    )  # fmt: skip
    texts = [request.text for request in requests[:UPSTREAM_PASSAGES]]
    labels = list(requests[0].labels)

    def with_batches_of(size: int) -> Callable[[], object]:
        return lambda: pipeline(texts, labels, threshold=0.0, batch_size=size)

    runs: dict[str, Callable[[], object]] = {OURS: lambda: scorer.score(requests)}
    return runs | {f"upstream, batch {size}": with_batches_of(size) for size in sizes.upstream_batches}


def device_rate(scorer: LocalScorer, requests: Sequence[ScoreRequest]) -> float:
    """Passages per second with tokenized input, in full batches that are launched one after another."""
    encoder = InputEncoder(scorer._checkpoint, scorer._tokenizer)
    passes = [item for request in encoder.encode(requests) for item in request.sequences]
    tokens, kinds = [item.cost for item in passes], [0] * len(passes)
    plan = plan_batches(tokens, kinds, max_tokens=min(scorer.max_batch_tokens, 32768), padded=scorer._pads)
    batches = [[passes[i] for i in indices] for indices in plan]

    def run() -> None:
        for wait in [scorer._launch(batch) for batch in batches]:
            wait()

    return len(passes) / min(repeated(run, 0.5))


def encoding_rate(folder: Path, requests: Sequence[ScoreRequest]) -> float:
    """Passages per second of tokenizing and building input sequences, on all cores, without a model."""
    checkpoint = read_checkpoint(folder)
    encoder = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))
    return len(requests) / min(repeated(lambda: encoder.encode(requests), 0.3))


def latency(scorer: LocalScorer, query: str, passages: Sequence[str], seconds: float) -> dict[str, Any]:
    """Milliseconds of ranking these passages, tokenizing included."""
    reranker = Reranker(scorer)
    taken = 1000 * np.array(repeated(lambda: reranker.rank(query, passages), seconds, least=5))
    p50, p95 = np.percentile(taken, (50, 95)).tolist()
    return {"passages": len(passages), "calls": len(taken), "p50_ms": p50, "p95_ms": p95}


def by_labels(
    scorer: LocalScorer, cells: Mapping[tuple[int, int], Cell], texts: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Samples per second by number of labels, mean of the rates over all lengths, one text at a time and batched.

    Args:
        scorer: ours.
        cells: texts and labels by number of labels and length.
        texts: number of texts scored at once in the batched half.
        seconds: for all measurements together.
    """
    each = seconds / (2 * len(cells))
    rates: dict[str, dict[str, list[float]]] = {"one at a time": {}, "batched": {}}
    for (count, _), cell in cells.items():
        for name, given in (("one at a time", cell.texts[:1]), ("batched", cell.texts[:texts])):
            requests = [ScoreRequest(text, cell.labels) for text in given]
            taken = median(repeated(lambda requests=requests: scorer.score(requests), each))  # type: ignore[misc]
            rates[name].setdefault(str(count), []).append(len(requests) / taken)
    return {name: {count: mean(row) for count, row in rows.items()} for name, rows in rates.items()}
