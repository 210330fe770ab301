"""Measure how time and memory grow with the number of passages, their length, the labels, and the callers.

    gliclass-rerank bench scale
    gliclass-rerank bench scale --axes labels,callers
    gliclass-rerank bench scale --quick                # the small end of each axis, one round, nothing written

Runs `Reranker.rank`, from strings to hits, along one axis at a time. AXES has the values of the others. Every point is
measured in a separate process (`scale_worker.py`), which reads the passages and then ranks them, so that its peak is
that of the call. The points of an axis alternate over the rounds. Labels are queries of a few tokens, all read in one
pass. Callers are threads that share one scorer. The peak is also reported without the passages' own strings, which
belong to the caller.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from benchmarks.lib.machine import cpu
from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.report import header, table
from benchmarks.lib.results import RESULTS, write
from benchmarks.speed.labels import LABEL_TOKENS, distinct
from benchmarks.speed.scale_worker import Answer, Ask
from benchmarks.speed.throughput import QUERY, SEED, passages_of
from gliclass_rerank import load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.load import locate, usable_cores

WORKER = Path(__file__).with_name("scale_worker.py")
DISTINCT = 1000  # passages cut from the documentation; others are rotations of their words
LONG = 10_000  # passages from which on a call is so long that one round is enough


@dataclass(frozen=True, slots=True)
class Point:
    """One setting: passages of ``tokens`` tokens each, ranked by some labels, by some callers in parallel."""

    passages: int
    tokens: int
    labels: int = 1
    callers: int = 1


AXES = {
    "passages": [Point(count, 16) for count in (10, 100, 1_000, 10_000, 100_000)],
    "tokens": [Point(50, tokens) for tokens in (32, 64, 128, 256, 512)],
    "labels": [Point(8, 256, labels=count) for count in (1, 2, 4, 8, 16, 32, 64, 128)],
    "callers": [Point(20, 128, callers=count) for count in (1, 2, 4, 8, 16, 32)],
}
UNITS = {"tokens": "tokens of a passage", "labels": "labels of a text"}
QUICK = 2  # points per axis


@dataclass(frozen=True, slots=True)
class Result:
    """Cost of a point.

    Attributes:
        seconds: until all callers have their ranking, median of the rounds.
        passages_per_second: of all callers together.
        peak: MiB, the largest of the rounds.
        peak_beyond_strings: the same without the passages' strings.
        rounds: seconds of each.
    """

    point: Point
    seconds: float
    passages_per_second: float
    peak: float
    peak_beyond_strings: float
    rounds: list[float]


def main() -> None:
    options = parse_options()
    tokenizer = Tokenizer.from_file(str(locate(options.model)[0] / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    axes = {name: AXES[name][: QUICK if options.quick else None] for name in options.axes}
    with tempfile.TemporaryDirectory() as work:
        results = {name: along(points, options, tokenizer, Path(work), f"by {name}") for name, points in axes.items()}
    show(results)
    if options.no_write or (options.quick and not options.out):
        return
    scorer = load_scorer(options.model)
    report = header({scorer.info.name: scorer}) | {"threads": options.threads, "seed": SEED}
    report["axes"] = {name: [asdict(result) for result in rows] for name, rows in results.items()}
    file = write(report, "scale", options.out or RESULTS)
    for name, rows in results.items():
        draw(name, rows, f"{scorer.info.name}, {options.threads} threads, {cpu()}", file)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--axes", type=lambda names: names.split(","), default=list(AXES), help="all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="all cores by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, and no files unless --out")
    parser.add_argument("--no-write", action="store_true", help="write no files")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    if unknown := sorted(set(options.axes) - set(AXES)):
        parser.error(f"expected axes of {', '.join(AXES)}, got {', '.join(unknown)}")
    options.rounds = 1 if options.quick else options.rounds
    return options


def along(
    points: Sequence[Point], options: argparse.Namespace, tokenizer: Tokenizer, work: Path, title: str
) -> list[Result]:
    """Measure the points of one axis, alternating."""
    asks = {
        point: Ask(
            model=options.model,
            threads=options.threads,
            passages=str(passage_file(point, tokenizer, work)),
            labels=list(labels_of(point.labels, tokenizer)),
            callers=point.callers,
            rounds=1,
        )
        for point in points
    }
    turns = [
        point
        for turn in range(options.rounds)
        for point in points
        if turn == 0 or point.passages * point.callers < LONG
    ]
    answers: dict[Point, list[Answer]] = {point: [] for point in points}
    for point in track(turns, title, console=Console(stderr=True), transient=True):
        answers[point].append(measured(asks[point]))
    return [summed_up(point, told) for point, told in answers.items()]


def measured(ask: Ask) -> Answer:
    """Run one measurement in a separate process."""
    command = [sys.executable, str(WORKER), json.dumps(ask)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: Answer = json.loads(done.stdout)
    return answer


def summed_up(point: Point, answers: Sequence[Answer]) -> Result:
    rounds = [seconds for answer in answers for seconds in answer["seconds"]]
    return Result(
        point=point,
        seconds=median(rounds),
        passages_per_second=point.passages * point.callers / median(rounds),
        peak=max(answer["peak"] for answer in answers),
        peak_beyond_strings=max(answer["peak"] - answer["strings"] for answer in answers),
        rounds=rounds,
    )


def labels_of(count: int, tokenizer: Tokenizer) -> tuple[str, ...]:
    """One question, or ``count`` short labels."""
    return (QUERY,) if count == 1 else distinct(passages_of([LABEL_TOKENS] * 4 * count, tokenizer), count)


def passage_file(point: Point, tokenizer: Tokenizer, work: Path) -> Path:
    """Write a file of the point's passages, all different."""
    file = work / f"{point.passages}-{point.tokens}.jsonl"
    if not file.is_file():
        originals = passages_of([point.tokens] * min(point.passages, DISTINCT), tokenizer)
        with file.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(text) + "\n" for text in varied(originals, point.passages))
    return file


def varied(originals: Sequence[str], count: int) -> Iterator[str]:
    """Yield ``count`` texts: the originals, then rotations with their first words moved to the end."""
    split = [text.split() for text in originals]
    for i in range(count):
        turn, which = divmod(i, len(originals))
        shift = turn % len(split[which])
        yield " ".join([*split[which][shift:], *split[which][:shift]]) if turn else originals[which]


def show(results: Mapping[str, Sequence[Result]]) -> None:
    columns = ["seconds", "× the first", "passages/s", "peak MiB", "beyond strings"]
    for name, rows in results.items():
        held = replace(rows[0].point, **{name: 0})
        told = ", ".join(f"{value} {key}" for key, value in asdict(held).items() if value)
        shown: dict[str, list[float | None]] = {
            f"{getattr(row.point, name):,}": [
                row.seconds,
                row.seconds / rows[0].seconds,
                row.passages_per_second,
                row.peak,
                row.peak_beyond_strings,
            ]
            for row in rows
        }
        print_table(table(f"By {UNITS.get(name, name)} ({told})", columns, shown, digits=2))


def draw(axis: str, rows: Sequence[Result], title: str, report: Path) -> None:
    """Draw seconds and memory along one axis, side by side."""
    places = [getattr(row.point, axis) for row in rows]
    figure = new_figure(9, 3.5)
    times, memory = figure.subplots(1, 2)
    times.plot(places, [row.seconds for row in rows], marker="o")
    times.set(xscale="log", yscale="log", ylabel="seconds of a call")
    memory.plot(places, [row.peak for row in rows], marker="o", label="process")
    memory.plot(places, [row.peak_beyond_strings for row in rows], marker="o", label="without the passages' strings")
    memory.set(xscale="log", ylabel="peak MiB")
    memory.set_ylim(bottom=0)
    memory.legend(frameon=False, fontsize="small", loc="lower right")
    for axes in (times, memory):
        axes.set_xlabel(UNITS.get(axis, axis))
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
    save(figure, title, report.with_name(f"{report.stem}-{axis}.png"))


if __name__ == "__main__":
    main()
