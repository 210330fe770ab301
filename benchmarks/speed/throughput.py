"""Measure passages per second, from strings to scores, against upstream's pipeline on the same weights and passages.

    gliclass-rerank bench throughput            # or: python -m benchmarks.speed.throughput
    gliclass-rerank bench throughput --threads 1    # written as throughput-1-thread
    gliclass-rerank bench throughput --quick    # two rounds of 20 passages, no fp32 graph, nothing written

Every contestant scores the same passages once per round. Rounds alternate and each starts with another contestant, so
that other load on the machine affects all alike. A ratio is the median of the ratios within the rounds. Passages are
pieces of Python's documentation, 64 to 192 tokens long, 128 on average. Scores are compared with upstream's on each
passage on its own, without padding. Needs the extra [bench].
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from gliclass import ZeroShotClassificationPipeline
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from benchmarks.lib.machine import cpu, describe
from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.results import RESULTS, write
from gliclass_rerank import Scorer, ScoreRequest, load_scorer
from gliclass_rerank.cli.output import figures, names, new_table, print_table
from gliclass_rerank.demo.collection import load_collection
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.models.checkpoint import Checkpoint, read_checkpoint
from gliclass_rerank.scorers.load import locate, usable_cores
from gliclass_rerank.scorers.torch import load_model

QUERY = "read a file line by line without loading all of it into memory"
SHORTEST, LONGEST = 64, 192  # tokens per passage
SEED = 7
BASELINE = "upstream, batch 8"
REFERENCE = "upstream, batch 1"

Contestant = Callable[[Sequence[str]], list[float]]
"""Function from passages to the probability that each answers QUERY."""


@dataclass(frozen=True)
class Result:
    """Results of a contestant, medians over the rounds.

    ``times_upstream``: speed-up over upstream's default, within the same round.
    ``max_score_difference``: largest difference of a probability to upstream's on the passage on its own.
    ``rounds``: seconds of each.
    """

    seconds: float
    passages_per_second: float
    tokens_per_second: float
    times_upstream: float
    max_score_difference: float
    rounds: list[float]


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    folder, name, _ = locate(options.model)
    checkpoint = read_checkpoint(folder, name=name)
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    passages = make_passages(options.passages, tokenizer)
    tokens = sum(map(len, token_ids(tokenizer, passages)))
    with tempfile.TemporaryDirectory() as work:
        contestants = upstream(checkpoint)
        reference = contestants.pop(REFERENCE)(passages)
        fp32_graph = None if options.quick else Path(work)
        contestants = ours(checkpoint, options.threads, fp32_graph) | contestants
        seconds, scores = race(contestants, passages, options.rounds)
    results = summary(seconds, scores, reference, tokens)
    setting = {"threads": options.threads, "passages": len(passages), "mean_tokens": tokens / len(passages)}
    report = describe(load_scorer(options.model).info) | {"query": QUERY} | setting
    report["results"] = {name: asdict(result) for name, result in results.items()}
    title = f"{len(passages)} passages of {tokens / len(passages):.0f} tokens, {options.threads} threads, {cpu()}"
    show(results, title)
    if options.out or not options.quick:
        name = "throughput" if options.threads == usable_cores() else f"throughput-{options.threads}-thread"
        file = write(report, name, options.out or RESULTS)
        if not options.quick:
            draw(results, title, file.with_suffix(".png"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, help="7 by default")
    parser.add_argument("--passages", type=int, help="100 by default")
    parser.add_argument(
        "--threads", type=int, default=usable_cores(), help="for every contestant; all cores by default"
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds, 20 passages, no files unless --out")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 7)
    options.passages = options.passages or (20 if options.quick else 100)
    return options


def make_passages(count: int, tokenizer: Tokenizer) -> list[str]:
    """Pieces of documentation with lengths in tokens spread evenly from SHORTEST to LONGEST, in random order."""
    lengths = np.linspace(SHORTEST, LONGEST, count).round().astype(int)
    return passages_of(np.random.default_rng(SEED).permutation(lengths).tolist(), tokenizer)


def passages_of(lengths: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Pieces of documentation with these numbers of tokens, the same ones in every run."""
    rng = np.random.default_rng(SEED)
    collection = load_collection()
    texts = iter(collection[i].text for i in rng.permutation(len(collection)))
    passages = []
    for length in lengths:
        text = next(texts)
        while len(offsets := tokenizer.encode(text, add_special_tokens=False).offsets) < length:
            text += "\n" + next(texts)
        passages.append(text[: offsets[length - 1][1]])
    return passages


def token_ids(tokenizer: Tokenizer, passages: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(passages), add_special_tokens=False)]


def ours(checkpoint: Checkpoint, threads: int, fp32_graph: Path | None) -> dict[str, Contestant]:
    """Our scorers: the folder's graph, the same weights as an fp32 graph if there is a folder for it, and torch."""
    model = str(checkpoint.folder)
    scorers = {f"ours, ONNX {checkpoint.options.dtype}": load_scorer(model, backend="onnx", threads=threads)}
    if fp32_graph:
        export_checkpoint(checkpoint.folder, fp32_graph, dtype="fp32")
        scorers["ours, ONNX fp32"] = load_scorer(fp32_graph, backend="onnx", threads=threads)
    scorers["ours, torch fp32"] = load_scorer(model, backend="torch", device="cpu", dtype="fp32", threads=threads)
    return {name: scoring_with(scorer) for name, scorer in scorers.items()}


def scoring_with(scorer: Scorer) -> Contestant:
    def score(passages: Sequence[str]) -> list[float]:
        logits = scorer.score([ScoreRequest(passage, (QUERY,)) for passage in passages])
        return [1 / (1 + float(np.exp(-row[0]))) for row in logits]

    return score


def upstream(checkpoint: Checkpoint, sizes: Sequence[int] = (1, 8, 32)) -> dict[str, Contestant]:
    """Upstream's pipeline with batches of these sizes. Its default is 8."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    tokens = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint.tokenizer_file), **tokens)  # type: ignore[no-untyped-call]
    pipeline = ZeroShotClassificationPipeline(
        load_model(checkpoint), tokenizer, max_length=checkpoint.max_length, device="cpu", progress_bar=False
    )

    def with_batches_of(size: int) -> Contestant:
        def score(passages: Sequence[str]) -> list[float]:
            results = pipeline(list(passages), [QUERY], threshold=0.0, batch_size=size)
            return [float(result[0]["score"]) for result in results]

        return score

    return {f"upstream, batch {size}": with_batches_of(size) for size in sizes}


def race(
    contestants: Mapping[str, Contestant], passages: Sequence[str], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each contestant in each round, and its scores."""
    scores = {name: score(passages) for name, score in contestants.items()}  # this is also the warm-up
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            contestants[name](passages)
            seconds[name].append(time.perf_counter() - start)
    return seconds, scores


def summary(
    seconds: Mapping[str, Sequence[float]],
    scores: Mapping[str, Sequence[float]],
    reference: Sequence[float],
    tokens: int,
) -> dict[str, Result]:
    return {
        name: Result(
            seconds=median(taken),
            passages_per_second=len(reference) / median(taken),
            tokens_per_second=tokens / median(taken),
            times_upstream=median(other / own for other, own in zip(seconds[BASELINE], taken, strict=True)),
            max_score_difference=max(abs(own - true) for own, true in zip(scores[name], reference, strict=True)),
            rounds=list(taken),
        )
        for name, taken in seconds.items()
    }


def show(results: Mapping[str, Result], title: str) -> None:
    columns = ("seconds", "passages/s", "tokens/s", "× upstream", "max |Δ|")
    table = new_table(names(""), *map(figures, columns), title=title)
    for name, result in results.items():
        table.add_row(
            name,
            f"{result.seconds:.2f}",
            f"{result.passages_per_second:,.0f}",
            f"{result.tokens_per_second:,.0f}",
            f"{result.times_upstream:.2f}",
            f"{result.max_score_difference:.1e}",
        )
    print_table(table)


def draw(results: Mapping[str, Result], title: str, file: Path) -> None:
    names = list(results)[::-1]
    speeds = [results[name].passages_per_second for name in names]
    figure = new_figure(8, 0.5 * len(names) + 1.2)
    axes = figure.subplots()
    colours = ["tab:blue" if name.startswith("ours") else "tab:gray" for name in names]
    bars = axes.barh(names, speeds, color=colours)
    axes.bar_label(bars, [f"{results[name].times_upstream:.1f}×" for name in names], padding=4)
    axes.set_xlabel("passages a second, from strings to scores (×: to upstream's default)")
    axes.margins(x=0.1)
    save(figure, title, file)


if __name__ == "__main__":
    main()
