"""One measurement of `scale.py` in a separate process: seconds of calls and peak memory.

python benchmarks/speed/scale_worker.py '{"model": "mini", "threads": 2, "passages": FILE, "labels": ["a query"], ...}'
"""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from gliclass_rerank import Reranker, load_scorer

MIB = 1024 * 1024


class Ask(TypedDict):
    """A measurement: every caller ranks all passages by all labels, in parallel, for ``rounds`` rounds.

    ``passages`` is a file with one JSON string per line.
    """

    model: str
    threads: int
    passages: str
    labels: list[str]
    callers: int
    rounds: int


class Answer(TypedDict):
    """Seconds of each round, and MiB: the process at its peak and before the calls, and the passages' strings."""

    seconds: list[float]
    peak: float
    before: float
    strings: float


def main() -> None:
    ask: Ask = json.loads(sys.argv[1])
    with Path(ask["passages"]).open(encoding="utf-8") as lines:
        passages = [json.loads(line) for line in lines]
    print(json.dumps(measured(ask, passages)))


def measured(ask: Ask, passages: list[str]) -> Answer:
    reranker = Reranker(load_scorer(ask["model"], threads=ask["threads"]))
    reranker.rank(ask["labels"], passages[:8])
    before = peak()
    seconds = []
    with ThreadPoolExecutor(ask["callers"]) as callers:
        for _ in range(ask["rounds"]):
            start = time.perf_counter()
            for hits in callers.map(lambda _: reranker.rank(ask["labels"], passages), range(ask["callers"])):
                assert len(hits) == len(passages)
            seconds.append(time.perf_counter() - start)
    strings = (sys.getsizeof(passages) + sum(map(sys.getsizeof, passages))) / MIB
    return {"seconds": seconds, "peak": peak(), "before": before, "strings": strings}


def peak() -> float:
    """Peak memory of this process in MiB. Read from /proc on Linux, since getrusage may report a parent's peak."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


if __name__ == "__main__":
    main()
