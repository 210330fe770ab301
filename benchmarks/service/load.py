"""Measure the latency of the service by offered load, in realistic traffic of all dialects and jobs.

    gliclass-rerank bench load [--seconds 30] [--model mini] [--url http://host:8000]
    gliclass-rerank bench load --rates 1,2 --seconds 5 --no-write    # a short run

Starts a service on a free port, or uses a running one. Locust sends it the traffic of `locustfile.py` at several
rates, by default shares of the service's capacity: the rate that it answers while all users always have a request in
flight. Arrivals are random and do not wait for answers, so above its capacity the service has to refuse requests (429).
Times are those of a client. Jobs are counted when they are accepted and, as separate rows, when they end. Seeds are
fixed. Needs [bench].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.lib.machine import cpu, describe
from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.report import table
from benchmarks.lib.results import RESULTS, write
from benchmarks.service.local_service import local_service
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.load import usable_cores

SHARES = (0.25, 0.5, 0.75, 0.9, 1.1, 1.5, 2.0)  # of the capacity
BUSY_USERS = 32  # enough users to keep the service busy
NO_PAUSE = 1e6  # requests per second: no user waits before the next request
JOB_END = ", to its end"  # suffix of the name of a job's last row
HERE = Path(__file__).parent

Row = tuple[str, float, float, int]
"""Name, start (seconds since the epoch), seconds, status: of one request, or of a job until its end (0: no end)."""


@dataclass(frozen=True, slots=True)
class Step:
    """Results of one offered load. Times are milliseconds of answered requests, without the rows for ends of jobs.

    Attributes:
        offered, answered: requests per second. ``offered`` is None if all users always had a request in flight.
        statuses: number of requests by status, 0 without an answer.
        jobs_ended: number of accepted jobs that ended.
        by_name: milliseconds of each answered request.
    """

    offered: float | None
    answered: float
    p50: float
    p90: float
    p99: float
    statuses: dict[str, int]
    jobs_ended: int
    jobs_accepted: int
    by_name: dict[str, list[float]]

    @property
    def refused(self) -> float:
        """Share of the requests that got 429."""
        return self.statuses.get("429", 0) / max(1, sum(self.statuses.values()))

    @property
    def wrong(self) -> int:
        """Number of requests that were neither answered correctly nor refused with 429."""
        return sum(count for status, count in self.statuses.items() if status not in ("200", "202", "429"))


def main() -> None:
    options = parse_options()
    with service(options) as url:
        model = model_of(url)
        steps = measured(url, options)
    show(steps)
    wrong = sum(step.wrong for step in steps)
    lost = sum(step.jobs_accepted - step.jobs_ended for step in steps)
    if not options.no_write:
        setting = {"seconds": options.seconds, "users": options.users, "wrong answers": wrong, "jobs not ended": lost}
        report = describe() | {"model": model} | setting | {"steps": [asdict(step) for step in steps]}
        file = write(report, "load", options.out)
        draw(steps, f"{model['name']} {model['dtype']}, {cpu()}, {usable_cores()} cores", file.with_suffix(".png"))
    if wrong or lost:
        raise SystemExit(f"{wrong} answers were wrong, {lost} jobs did not end")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--url", help="a running service; its key is taken from GLICLASS_RERANK_API_KEY")
    parser.add_argument("--rates", type=numbers, help="requests per second, such as 1,2")
    parser.add_argument("--users", type=int, default=200, help="users that share a rate, one request in flight each")
    parser.add_argument("--seconds", type=int, default=30, help="duration of each step")
    parser.add_argument("--no-write", action="store_true", help="write no files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def numbers(text: str) -> list[float]:
    """Parse comma-separated numbers."""
    return [float(number) for number in text.split(",")]


@contextmanager
def service(options: argparse.Namespace) -> Iterator[str]:
    """Yield the URL of the measured service."""
    if options.url:
        yield options.url
        return
    with local_service(options.model) as started:
        yield started.url


def model_of(url: str) -> dict[str, object]:
    """The service's description of its model."""
    key = os.environ.get("GLICLASS_RERANK_API_KEY")
    answer = httpx.get(f"{url}/info", headers={"Authorization": f"Bearer {key}"} if key else {})
    answer.raise_for_status()
    model: dict[str, object] = answer.json()["gliclass"]
    return model


def measured(url: str, options: argparse.Namespace) -> list[Step]:
    """Steps for the given rates, or for the service's capacity and shares of it."""
    steps: list[Step] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("load", total=len(options.rates or SHARES) + (not options.rates))
        if not options.rates:
            steps.append(run_step(url, None, BUSY_USERS, options.seconds))
            progress.advance(task)
        for rate in options.rates or [share * steps[0].answered for share in SHARES]:
            steps.append(run_step(url, rate, options.users, options.seconds))
            progress.advance(task)
    return steps


def run_step(url: str, rate: float | None, users: int, seconds: int) -> Step:
    """Let Locust offer a load, in a separate process since it patches Python's sockets."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--host", url, "--headless"]
        command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
        command += ["--stop-timeout", "120", "--rate", str(rate or NO_PAUSE), "--record", str(record)]
        done = subprocess.run([*command, "--loglevel", "ERROR", "--only-summary"], capture_output=True, text=True)
        if not record.is_file():
            raise SystemExit(f"locust has failed:\n{done.stderr[-2000:]}")
        rows: list[Row] = [tuple(row) for row in json.loads(record.read_text("utf-8"))]
    return summed_up(rows, rate)


def summed_up(rows: Sequence[Row], rate: float | None) -> Step:
    """Aggregate the rows of a step."""
    if not rows:
        raise SystemExit("no request was sent in this step; give it more --seconds or a higher rate")
    jobs = [row for row in rows if row[0].endswith(JOB_END)]
    requests = [row for row in rows if not row[0].endswith(JOB_END)]
    answered = sorted(row for row in requests if row[3] in (200, 202))
    first, last = min(row[1] for row in rows), max(row[1] + row[2] for row in requests)
    times = [1000 * row[2] for row in answered] or [float("nan")]
    return Step(
        offered=rate,
        answered=len(answered) / (last - first),
        p50=float(np.percentile(times, 50)),
        p90=float(np.percentile(times, 90)),
        p99=float(np.percentile(times, 99)),
        statuses={str(status): count for status, count in sorted(Counter(row[3] for row in requests).items())},
        jobs_ended=sum(row[3] == 200 for row in jobs),
        jobs_accepted=sum(row[3] == 202 for row in requests),
        by_name={
            name: [round(1000 * row[2], 1) for row in group] for name, group in groupby(answered, lambda row: row[0])
        },
    )


def show(steps: Sequence[Step]) -> None:
    columns = ["answered/s", "p50 ms", "p90 ms", "p99 ms", "refused %", "jobs", "ended"]
    rows: dict[str, Sequence[float | None]] = {}
    for step in steps:
        name = "always busy" if step.offered is None else f"{step.offered:.2f}/s offered"
        times = [step.answered, step.p50, step.p90, step.p99]
        rows[name] = [*times, 100 * step.refused, step.jobs_accepted, step.jobs_ended]
    print_table(table("Latency against offered load", columns, rows, digits=1))


def draw(steps: Sequence[Step], title: str, file: Path) -> None:
    """Draw percentiles of the latency by offered load, and the share of refused requests."""
    offered = [step for step in steps if step.offered is not None]
    loads = [step.offered or 0.0 for step in offered]
    figure = new_figure(7, 5.5)
    times, shares = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for name in ("p50", "p90", "p99"):
        times.plot(loads, [getattr(step, name) for step in offered], marker="o", label=name)
    times.set(yscale="log", ylabel="milliseconds")
    times.legend(frameon=False)
    shares.plot(loads, [100 * step.refused for step in offered], marker="o", color="tab:gray")
    shares.set(ylabel="refused %", xlabel="requests a second that are offered", ylim=(-5, 105))
    for axes in (times, shares):
        for step in steps[:1]:
            if step.offered is None:
                axes.axvline(step.answered, color="tab:gray", linestyle=":", linewidth=1)
    save(figure, title, file)


if __name__ == "__main__":
    main()
