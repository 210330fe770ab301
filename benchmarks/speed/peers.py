"""Measure passages per second against peers on a backbone of the same size, and against the machine's peak rate.

    gliclass-rerank bench peers                     # creates build/peers first, which takes minutes
    gliclass-rerank bench peers --peers onnx-int8,flashrank --lengths 128
    gliclass-rerank bench peers --quick             # sentence-transformers from this environment, nothing written

From strings to scores, with one question and the same texts: our scorers, upstream's pipeline on our weights, and
cross-encoders of all-MiniLM-L6-v2 (`peer_worker.py`) in separate processes, one at a time. First every contestant runs
with every batch size (ours with token budgets). Then all race, with their default and their best size. Rounds
alternate, and each starts with another contestant. The same race, at the best sizes, is run by passage length and by
number of threads. The lower bound (`floor.py`) is reported as well: the rate of plain matrix products on those
threads, and each contestant's share of it, by the operations that our model needs for these texts. A cross-encoder
reads two markers less per text.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from benchmarks.lib.machine import cpu
from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.report import header, table
from benchmarks.lib.results import RESULTS, write
from benchmarks.speed.floor import Kind, operations, peaks, sequence_lengths
from benchmarks.speed.peer_processes import PEERS, Peer, environment
from benchmarks.speed.peer_race import (
    UPSTREAM,
    Contestant,
    Result,
    Seconds,
    Texts,
    at_best,
    entries,
    quickest,
    race,
    stringed,
    sweep,
    timed,
)
from benchmarks.speed.throughput import QUERY, SEED, make_passages, passages_of, scoring_with, token_ids, upstream
from gliclass_rerank import ScoreRequest, load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.models.checkpoint import Checkpoint, read_checkpoint
from gliclass_rerank.scorers.load import Backend, locate, usable_cores

LENGTHS = (32, 64, 128, 256, 512)
TEXT_ROOM = 64  # positions of 512 that the longest passages leave for the question
TOKENS = 3200  # of all passages of a length together
SIZES, BUDGETS = (4, 8, 16, 32, 64), (256, 512, 1024, 2048, 4096)
UPSTREAM_DEFAULT = 8
SWEEPS = 1  # rounds per batch size, only for choosing the best one
BUILD = Path(__file__).parents[2] / "build/peers"


@dataclass(frozen=True, slots=True)
class Measured:
    """All results of a run.

    Attributes:
        versions: of the peers' packages.
        batch_sizes: seconds of each round by contestant and batch size, or token budget.
        floors: operations per second of plain products by threads, kind and shape.
        races: results by race and entry: "mixed", "128 tokens", "1 threads".
    """

    versions: dict[str, dict[str, str]]
    batch_sizes: dict[str, dict[str, list[float]]]
    floors: dict[str, dict[Kind, dict[str, float]]]
    races: dict[str, dict[str, Result]]


def main() -> None:
    options = parse_options()
    folder, name, _ = locate(options.model)
    checkpoint = read_checkpoint(folder, name=name)
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def texts(passages: list[str]) -> Texts:
        requests = [ScoreRequest(text, (QUERY,)) for text in passages]
        encoder, lengths = checkpoint.config["encoder_config"], sequence_lengths(checkpoint, requests)
        return Texts(passages, sum(map(len, token_ids(tokenizer, passages))), operations(encoder, lengths))

    mixed = texts(make_passages(options.passages, tokenizer))
    by_length = {length: texts(passages_of(lengths_of(length), tokenizer)) for length in options.lengths}
    measured = measure(checkpoint, mixed, by_length, options)
    show(measured.races, measured.floors)
    if options.no_write or (options.quick and not options.out):
        return
    scorer = load_scorer(options.model)
    report = header({scorer.info.name: scorer}) | {"query": QUERY, "seed": SEED, "threads": options.threads}
    report |= {"passages": options.passages, "tokens": mixed.tokens}
    report |= {"operations": mixed.operations}
    file = write(report | asdict(measured), "peers", options.out or RESULTS)
    draw(measured.races, f"{options.threads} threads, {cpu()}", file.with_suffix(".png"))


def measure(
    checkpoint: Checkpoint, mixed: Texts, by_length: Mapping[int, Texts], options: argparse.Namespace
) -> Measured:
    """Run the sweep and all races with all threads, then the main race with other numbers of threads."""
    measured = Measured({}, {}, {}, {})
    best: dict[str, int | None] = {}
    for threads in options.thread_counts:
        with tempfile.TemporaryDirectory() as work, contestants(checkpoint, options, threads, Path(work)) as field:
            rates = measured.floors[str(threads)] = peaks(checkpoint.config["encoder_config"], threads)
            if best:
                title = f"{threads} threads"
                measured.races[title] = race(field, at_best(best), mixed, rates, options.length_rounds, title=title)
                continue
            measured.versions.update({name: one.versions for name, one in field.items() if one.versions})
            sizes = {name: options.budgets if name.startswith("ours") else options.sizes for name in field}
            tried = sweep(field, mixed.passages, sizes, options.sweeps)
            measured.batch_sizes.update(stringed(tried))
            best = {name: quickest(row) for name, row in tried.items()}
            measured.races["mixed"] = race(field, entries(best), mixed, rates, options.rounds, title="mixed")
            for length, texts in by_length.items():
                title = f"{length} tokens"
                measured.races[title] = race(field, at_best(best), texts, rates, options.length_rounds, title=title)
    return measured


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--peers", type=lambda names: names.split(","), default=list(PEERS), help="all by default")
    parser.add_argument("--lengths", type=numbers, default=list(LENGTHS), help="tokens, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the main race; the others have at most 3")
    parser.add_argument("--passages", type=int, default=100, help="passages of the main race")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="all cores by default")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of the peers' environment and models")
    parser.add_argument("--quick", action="store_true", help="small sizes, no environment, no files unless --out")
    parser.add_argument("--no-write", action="store_true", help="write no files")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    if unknown := sorted(set(options.peers) - set(PEERS)):
        parser.error(f"expected peers of {', '.join(PEERS)}, got {', '.join(unknown)}")
    options.sizes, options.budgets, options.sweeps = SIZES, BUDGETS, SWEEPS
    if options.quick:
        options.peers, options.lengths, options.rounds, options.passages = ["torch"], [32], 1, 4
        options.sizes, options.budgets, options.sweeps = (2,), (1024,), 1
    options.length_rounds = min(3, options.rounds)
    options.thread_counts = list(dict.fromkeys([options.threads] if options.quick else [options.threads, 1]))
    return options


def numbers(text: str) -> list[int]:
    """Parse comma-separated numbers."""
    return [int(number) for number in text.split(",")]


def lengths_of(length: int) -> list[int]:
    """Lengths of as many passages as make TOKENS, but at least 8. The longest leave room for the question."""
    fitting = min(length, 512 - TEXT_ROOM)
    return [fitting] * max(8, TOKENS // length)


@contextmanager
def contestants(
    checkpoint: Checkpoint, options: argparse.Namespace, threads: int, work: Path
) -> Iterator[dict[str, Contestant]]:
    """Yield all contestants, with ``threads`` threads each."""
    torch.set_num_threads(threads)
    export_checkpoint(checkpoint.folder, work / "fp32", dtype="fp32")
    local = {
        f"ours, ONNX {checkpoint.options.dtype}": ours(checkpoint.folder, "onnx", threads),
        "ours, ONNX fp32": ours(work / "fp32", "onnx", threads),
        "ours, torch fp32": ours(checkpoint.folder, "torch", threads),
        UPSTREAM: by_upstream(checkpoint, options.sizes),
    }
    field = {name: Contestant(seconds, {}) for name, seconds in local.items()}
    with ExitStack() as running:
        python = Path(sys.executable) if options.quick else environment(options.build / "env")
        home = work if options.quick else options.build / "models"
        for name in options.peers:
            peer = running.enter_context(Peer(python, name, home, threads))
            field[PEERS[name]] = Contestant(partial(peer.seconds, QUERY), peer.versions)
        yield field


def ours(folder: Path, backend: Backend, threads: int) -> Seconds:
    """Time our scorer, with a separate scorer for each token budget."""
    device = "cpu" if backend == "torch" else "auto"

    @cache
    def scorer(budget: int | None) -> Callable[[Sequence[str]], object]:
        loaded = load_scorer(folder, backend=backend, device=device, threads=threads, max_batch_tokens=budget)
        return scoring_with(loaded)

    def seconds(passages: Sequence[str], batch: int | None) -> float:
        run = scorer(batch)
        return timed(lambda: run(passages))

    return seconds


def by_upstream(checkpoint: Checkpoint, sizes: Sequence[int]) -> Seconds:
    pipelines = upstream(checkpoint, list(dict.fromkeys((UPSTREAM_DEFAULT, *sizes))))

    def seconds(passages: Sequence[str], batch: int | None) -> float:
        return timed(lambda: pipelines[f"{UPSTREAM}, batch {batch or UPSTREAM_DEFAULT}"](passages))

    return seconds


def show(races: Mapping[str, Mapping[str, Result]], floors: Mapping[str, Mapping[Kind, Mapping[str, float]]]) -> None:
    columns = ["ms", "passages/s", "tokens/s", "× upstream", "% of peak"]
    for name, results in races.items():
        rows: dict[str, list[float | None]] = {
            entry: [
                1000 * result.seconds,
                result.passages_per_second,
                result.tokens_per_second,
                result.times_upstream,
                100 * result.share_of_peak,
            ]
            for entry, result in results.items()
        }
        print_table(table(name, columns, rows, digits=1))
    for threads, kinds in floors.items():
        shapes = list(kinds["fp32"])
        rows = {kind: [rate / 1e9 for rate in row.values()] for kind, row in kinds.items()}
        print_table(table(f"Billions of operations a second, {threads} threads", shapes, rows, digits=0))


def draw(races: Mapping[str, Mapping[str, Result]], title: str, file: Path) -> None:
    """Draw the main race as bars, and passages per second by length."""
    main_race = races["mixed"]
    names = list(main_race)[::-1]
    figure = new_figure(13, 0.3 * len(names) + 1.5)
    bars, lines = figure.subplots(1, 2)
    colours = ["tab:blue" if name.startswith("ours") else "tab:gray" for name in names]
    drawn = bars.barh(names, [main_race[name].passages_per_second for name in names], color=colours)
    bars.bar_label(drawn, [f"{main_race[name].times_upstream:.1f}×" for name in names], padding=4)
    bars.set_xlabel("passages a second (×: to upstream's default)")
    bars.margins(x=0.12)
    lengths = [name for name in races if name.endswith(" tokens")]
    for name in races[lengths[0]] if lengths else ():
        places = [int(length.split()[0]) for length in lengths]
        speeds = [races[length][name].passages_per_second for length in lengths]
        lines.plot(places, speeds, marker="o", label=name, linestyle="-" if name.startswith("ours") else ":")
    lines.set(xscale="log", yscale="log", xlabel="tokens of a passage", ylabel="passages a second, best batch size")
    lines.legend(frameon=False, fontsize="x-small")
    save(figure, title, file)


if __name__ == "__main__":
    main()
