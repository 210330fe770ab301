"""Races of alternating contestants: seconds of each by round, and their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from benchmarks.speed.floor import Kind

T = TypeVar("T")
UPSTREAM = "upstream"
PAUSE = 0.2  # seconds between contestants, until the previous one's threads stop spinning

Seconds = Callable[[Sequence[str], "int | None"], float]
"""Function from passages and a batch size or token budget (None: its default) to the seconds of scoring."""
Entry = tuple[str, "int | None"]
"""A contestant's name and its batch size."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A timed function, and the versions of a peer's packages (empty for ours, which every report has)."""

    seconds: Seconds
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """Results of one entry of a race, medians over the rounds.

    Attributes:
        tokens_per_second: of the passages alone.
        times_upstream: speed-up over upstream's default, within the same round.
        share_of_peak: share of the machine's int8 rate if "int8" is in the name, else of its fp32 rate, in [0, 1].
        rounds: seconds of each.
    """

    batch: int | None
    seconds: float
    passages_per_second: float
    tokens_per_second: float
    times_upstream: float
    share_of_peak: float
    rounds: list[float]


@dataclass(frozen=True, slots=True)
class Texts:
    """Passages and their cost.

    Attributes:
        tokens: of the passages alone.
        operations: of a whole encoder for passages and question.
    """

    passages: list[str]
    tokens: int
    operations: int

    def share(self, entry: str, seconds: float, rates: Mapping[Kind, Mapping[str, float]]) -> float:
        """Rate of an entry that took ``seconds``, as a share of the machine's best rate, in [0, 1]."""
        return self.operations / seconds / max(rates["int8" if "int8" in entry else "fp32"].values())


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def shown(items: Collection[T], title: str) -> Iterable[T]:
    """Iterate over the items with a progress bar."""
    return track(items, title, console=Console(stderr=True), transient=True)


def sweep(
    field: Mapping[str, Contestant], passages: Sequence[str], sizes: Mapping[str, Sequence[int]], rounds: int
) -> dict[str, dict[int | None, list[float]]]:
    """Seconds of every contestant with its default and each of its batch sizes, after one warm-up call."""
    tried: dict[str, dict[int | None, list[float]]] = {}
    for name, contestant in shown(field.items(), "batch sizes"):
        contestant.seconds(passages, None)
        row: dict[int | None, list[float]] = {size: [] for size in (None, *sizes[name])}
        for _ in range(rounds):
            for size, seconds in row.items():
                seconds.append(contestant.seconds(passages, size))
        tried[name] = row
    return tried


def quickest(row: Mapping[int | None, Sequence[float]]) -> int | None:
    """The batch size with the shortest median."""
    return min(row, key=lambda size: median(row[size]))


def stringed(tried: Mapping[str, Mapping[int | None, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """The same with strings as keys, for JSON."""
    return {name: {str(size or "default"): rounds for size, rounds in row.items()} for name, row in tried.items()}


def entries(best: Mapping[str, int | None]) -> dict[str, Entry]:
    """Every contestant with its default settings, and at its best batch size if that is another."""
    as_it_comes: dict[str, Entry] = {name: (name, None) for name in best}
    return as_it_comes | {
        f"{name}, {'budget' if name.startswith('ours') else 'batch'} {size}": (name, size)
        for name, size in best.items()
        if size is not None
    }


def at_best(best: Mapping[str, int | None]) -> dict[str, Entry]:
    """Every contestant at its best batch size, under its plain name."""
    return {name: (name, size) for name, size in best.items()}


def race(
    field: Mapping[str, Contestant],
    entered: Mapping[str, Entry],
    texts: Texts,
    rates: Mapping[Kind, Mapping[str, float]],
    rounds: int,
    *,
    title: str,
) -> dict[str, Result]:
    """Race the entries for some rounds, after one warm-up call each, and return their results."""
    seconds: dict[str, list[float]] = {entry: [] for entry in entered}
    names = list(entered)
    for entry in names:
        field[entered[entry][0]].seconds(texts.passages, entered[entry][1])
    for turn in shown(range(rounds), title):
        first = turn % len(names)
        for entry in names[first:] + names[:first]:
            name, size = entered[entry]
            time.sleep(PAUSE)
            seconds[entry].append(field[name].seconds(texts.passages, size))
    return {
        entry: Result(
            batch=entered[entry][1],
            seconds=median(taken),
            passages_per_second=len(texts.passages) / median(taken),
            tokens_per_second=texts.tokens / median(taken),
            times_upstream=median(other / own for other, own in zip(seconds[UPSTREAM], taken, strict=True)),
            share_of_peak=texts.share(entry, median(taken), rates),
            rounds=taken,
        )
        for entry, taken in seconds.items()
    }
