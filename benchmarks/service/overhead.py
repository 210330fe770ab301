"""Measure the cost of HTTP: added latency, throughput relative to the library, and overload at ten times capacity.

    gliclass-rerank bench service [--model mini] [--seconds 60]
    gliclass-rerank bench service --quick    # seconds instead of minutes, nothing written

Three checks of one service, on a free port, against the library in this process with the same number of threads:

- alone: p50 of a request with 20 passages, minus p50 of the same call in this process, alternated.
- busy: passages per second over HTTP by 64 callers that always have a request in flight, divided by those of
  `rank_many` on the same texts. They alternate in rounds, and the ratio is the median over the rounds.
- overload: for ``--seconds`` requests arrive at ten times the rate that was answered for the 64 callers, at even
  intervals and without waiting for answers. All requests should be answered or refused (429). Accepted requests should
  wait little longer than with 64 callers, memory should not grow, and later answers should equal the earlier ones.

Passages are Python's documentation, questions the demo's. Seeds are fixed. Needs the extra [bench].
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import psutil

from benchmarks.lib.machine import cpu, describe
from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.report import table
from benchmarks.lib.results import RESULTS, write
from benchmarks.service.local_service import Client, LocalService, local_service
from benchmarks.service.traffic import Traffic
from gliclass_rerank import Reranker, load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.load import usable_cores

SEED = 7
PASSAGES = 20  # per request
CALLERS = 64
TIMES_CAPACITY = 10
CONNECTIONS = 900  # during overload, below the limit of open files; refused requests free theirs at once
PROBES = 10  # requests whose answers are compared

Ask = tuple[str, list[str]]
"""A query and its passages."""


@dataclass(frozen=True, slots=True)
class Alone:
    """Milliseconds of one caller's requests. ``added`` is the difference of the medians."""

    http: list[float]
    in_process: list[float]
    added: float


@dataclass(frozen=True, slots=True)
class Busy:
    """Passages per second in each round, median of the rounds' ratios, and milliseconds of all requests over HTTP."""

    http: list[float]
    offline: list[float]
    ratio: float
    p99: float
    milliseconds: list[float]


@dataclass(frozen=True, slots=True)
class Overload:
    """Results of the overload.

    Attributes:
        offered: requests per second.
        statuses: number of requests by status, "error" without an answer.
        p99: of accepted requests, milliseconds. ``times_busy`` is its ratio to the p99 of the 64 callers.
        rss_before, rss_after: of the service, megabytes.
        same_answers: whether answers after it equal those before.
        milliseconds: of each accepted request.
    """

    offered: float
    statuses: dict[str, int]
    p99: float
    times_busy: float
    rss_before: float
    rss_after: float
    same_answers: bool
    milliseconds: list[float]


def main() -> None:
    options = parse_options()
    scorer = load_scorer(options.model)
    reranker = Reranker(scorer)
    with local_service(options.model) as service:
        alone = check_alone(service, reranker, options.requests)
        busy = check_busy(service, reranker, options.rounds, options.busy_requests)
        overload = check_overload(service, busy, options.seconds)
    show(alone, busy, overload)
    if not options.quick or options.out:
        setting = {"passages of a request": PASSAGES, "callers": CALLERS, "seconds of overload": options.seconds}
        results = {"alone": asdict(alone), "busy": asdict(busy), "overload": asdict(overload)}
        file = write(describe(scorer.info) | setting | results, "service", options.out or RESULTS)
        title = f"{scorer.info.name} {scorer.info.dtype}, {cpu()}, {usable_cores()} cores"
        draw(alone, busy, overload, title, file.with_suffix(".png"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--requests", type=int, help="requests of the single caller; 100 by default")
    parser.add_argument("--rounds", type=int, help="rounds of the throughput check; 5 by default")
    parser.add_argument("--busy-requests", type=int, help="requests of the 64 callers in each round; 128 by default")
    parser.add_argument("--seconds", type=float, help="duration of the overload; 60 by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, and no files unless --out")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    quick = {"requests": 5, "rounds": 1, "busy_requests": 16, "seconds": 0.5}
    full = {"requests": 100, "rounds": 5, "busy_requests": 2 * CALLERS, "seconds": 60.0}
    for name, value in (quick if options.quick else full).items():
        setattr(options, name, getattr(options, name) or value)
    return options


def asks(count: int, seed: int = SEED) -> list[Ask]:
    """Create ``count`` questions, each with its own passages."""
    traffic = Traffic(seed)
    return [(traffic.query(), traffic.passages(PASSAGES)) for _ in range(count)]


def post(client: Client, ask: Ask) -> list[tuple[int, float]]:
    """Request a ranking from the service."""
    status, answer = client.post("/v2/rerank", body_of(ask))
    if status != 200:
        raise SystemExit(f"expected 200, got {status}: {answer}")
    return [(one["index"], one["relevance_score"]) for one in answer["results"]]


def answers(service: LocalService, asked: Sequence[Ask]) -> list[list[tuple[int, float]]]:
    """Request rankings over a new connection, since the service closes connections that were idle for seconds."""
    client = service.client()
    rankings = [post(client, ask) for ask in asked]
    client.close()
    return rankings


def body_of(ask: Ask) -> dict[str, object]:
    return {"query": ask[0], "documents": ask[1]}


def check_alone(service: LocalService, reranker: Reranker, count: int) -> Alone:
    """Check with one caller, in alternating order. Raises SystemExit if service and library give different rankings."""
    client = service.client()
    seconds: dict[str, list[float]] = {"http": [], "in_process": []}
    for i, ask in enumerate(asks(count + 3)):
        found = {}
        for way in ("http", "in_process") if i % 2 else ("in_process", "http"):
            started = time.perf_counter()
            if way == "http":
                found[way] = post(client, ask)
            else:
                found[way] = [(one.index, one.score) for one in reranker.rank(*ask)]
            seconds[way].append(1000 * (time.perf_counter() - started))
        if found["http"] != found["in_process"]:
            raise SystemExit("the service ranks otherwise than the library")
    client.close()
    http, in_process = seconds["http"][3:], seconds["in_process"][3:]  # the first ones are warm-ups
    return Alone(http, in_process, median(http) - median(in_process))


def check_busy(service: LocalService, reranker: Reranker, rounds: int, count: int) -> Busy:
    """Check with many callers, against one batch of the library."""
    asked = asks(count, SEED + 1)
    speeds: dict[str, list[float]] = {"http": [], "offline": []}
    times: list[float] = []
    for i in range(rounds):
        for way in ("http", "offline") if i % 2 else ("offline", "http"):
            started = time.perf_counter()
            if way == "http":
                times += ask_at_once(service, asked)
            else:
                reranker.rank_many(asked)
            speeds[way].append(count * PASSAGES / (time.perf_counter() - started))
    ratio = median(http / offline for http, offline in zip(speeds["http"], speeds["offline"], strict=True))
    return Busy(speeds["http"], speeds["offline"], ratio, percentile(times, 99), times)


def ask_at_once(service: LocalService, asked: Sequence[Ask]) -> list[float]:
    """Milliseconds of requests by CALLERS callers that share them. Each always has one in flight."""
    shares = [list(islice(asked, i, None, CALLERS)) for i in range(CALLERS)]

    def call(share: Sequence[Ask]) -> list[float]:
        client, times = service.client(), []
        for ask in share:
            started = time.perf_counter()
            post(client, ask)
            times.append(1000 * (time.perf_counter() - started))
        client.close()
        return times

    with ThreadPoolExecutor(CALLERS) as callers:
        return [milliseconds for times in callers.map(call, shares) for milliseconds in times]


def check_overload(service: LocalService, busy: Busy, seconds: float) -> Overload:
    """Check with ten times as many requests as can be answered."""
    offered = TIMES_CAPACITY * median(busy.http) / PASSAGES
    probes = asks(PROBES, SEED + 2)
    before, rss_before = answers(service, probes), rss(service)
    outcomes = asyncio.run(flood(service.url, asks(CALLERS, SEED + 3), offered, seconds))
    rss_after = rss(service)
    after = answers(service, probes)
    accepted = [taken for status, taken in outcomes if status == "200"]
    p99 = percentile(accepted, 99)
    return Overload(
        offered=offered,
        statuses=dict(Counter(status for status, _ in outcomes)),
        p99=p99,
        times_busy=p99 / busy.p99,
        rss_before=rss_before,
        rss_after=rss_after,
        same_answers=before == after,
        milliseconds=accepted,
    )


async def flood(url: str, asked: Sequence[Ask], rate: float, seconds: float) -> list[tuple[str, float]]:
    """Send at even intervals without waiting for answers, then await all. Return status and milliseconds of each.

    Each request has its own connection, since a connection pool's work grows with its queue and would take CPU time
    from the service.
    """
    address = httpx.URL(url)
    requests = [raw_request(address, body_of(ask)) for ask in asked]
    room = asyncio.Semaphore(CONNECTIONS)

    async def send(request: bytes) -> tuple[str, float]:
        started = time.perf_counter()
        async with room:
            try:
                status = await asyncio.wait_for(status_of(address, request), timeout=300)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                status = "error"
        return status, round(1000 * (time.perf_counter() - started), 1)

    begun, sent = time.perf_counter(), list[asyncio.Task[tuple[str, float]]]()
    while (passed := time.perf_counter() - begun) < seconds:
        while len(sent) < passed * rate:
            sent.append(asyncio.create_task(send(requests[len(sent) % len(requests)])))
        await asyncio.sleep(1 / rate)
    return await asyncio.gather(*sent)


def raw_request(address: httpx.URL, body: dict[str, object]) -> bytes:
    """Raw bytes of a request. The service closes the connection after its answer."""
    headers = {"Content-Type": "application/json", "Connection": "close"}
    request = httpx.Request("POST", address.join("/v2/rerank"), json=body, headers=headers)
    lines = [f"POST {request.url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + request.content


async def status_of(address: httpx.URL, request: bytes) -> str:
    """Send a request over a new connection, read the whole answer and return its status."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(request)
        await writer.drain()
        status = (await reader.readuntil(b"\r\n")).split()[1].decode()
        await reader.read()
    finally:
        writer.close()
    return status


def rss(service: LocalService) -> float:
    """Resident memory of the service in megabytes."""
    return float(psutil.Process(service.pid).memory_info().rss / 1e6)


def percentile(values: Sequence[float], which: float) -> float:
    return float(np.percentile(values, which)) if values else float("nan")


def show(alone: Alone, busy: Busy, overload: Overload) -> None:
    rows: dict[str, Sequence[float | None]] = {
        "alone: p50 over HTTP, ms": [median(alone.http)],
        "alone: p50 in process, ms": [median(alone.in_process)],
        "alone: what HTTP adds, ms": [alone.added],
        f"{CALLERS} callers: passages/s over HTTP": [median(busy.http)],
        f"{CALLERS} callers: passages/s of rank_many": [median(busy.offline)],
        f"{CALLERS} callers: ratio, median of rounds": [busy.ratio],
        f"{CALLERS} callers: p99, ms": [busy.p99],
        "overload: requests/s offered": [overload.offered],
        **{f"overload: answers with {status}": [count] for status, count in sorted(overload.statuses.items())},
        "overload: p99 of the accepted, ms": [overload.p99],
        f"overload: that by p99 of {CALLERS} callers": [overload.times_busy],
        "overload: MB before": [overload.rss_before],
        "overload: MB after": [overload.rss_after],
        "overload: same answers after it (1: yes)": [overload.same_answers],
    }
    print_table(table(f"The service, {PASSAGES} passages a request", [""], rows, digits=2))


def draw(alone: Alone, busy: Busy, overload: Overload, title: str, file: Path) -> None:
    """Draw the distribution of request times in each check."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    series = {
        "alone, in process": alone.in_process,
        "alone, over HTTP": alone.http,
        f"{CALLERS} callers": busy.milliseconds,
        f"accepted at {TIMES_CAPACITY} times the capacity": overload.milliseconds,
    }
    for name, times in series.items():
        axes.plot(np.sort(times), np.linspace(0, 100, len(times)), label=name)
    axes.set(xscale="log", xlabel="milliseconds", ylabel="% of requests answered by then")
    axes.legend(frameon=False)
    save(figure, title, file)


if __name__ == "__main__":
    main()
