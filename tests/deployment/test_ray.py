"""The service on Ray Serve: two replicas of the model on this machine, each a process, behind the ordinary command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'gliclass-rerank[ray]'")
pytest.importorskip("httpx")
pytest.importorskip("psutil")

import httpx
import numpy as np
import psutil
from conftest import MINI, needs_mini
from serving import ROOT, free_port, wait_for

from gliclass_rerank import InputError, OptionError, Reranker, ScoreRequest, load_scorer
from gliclass_rerank.scorers.load import usable_cores

needs_cores = pytest.mark.skipif(usable_cores() < 2, reason="two replicas need two cores")
pytestmark = [pytest.mark.ray, pytest.mark.slow, needs_mini, needs_cores]

QUERY = "how do I copy a file with its permissions?"
PASSAGES = [
    f"Entry {i}: a function of the library that {'copies a file and its mode' if i % 7 == 0 else 'sorts a list'}. "
    * (1 + i % 5)
    for i in range(60)
]
FEW = PASSAGES[:10]  # one part, so that one replica computes what the library does, to the last bit
TOLERANCE = 1e-5
CALLERS, REQUESTS = 8, 32
PATIENCE = 240.0  # seconds; a cluster is started, and three processes load a model

Served = tuple["subprocess.Popen[bytes]", str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundled model, which nobody replaces meanwhile."""
    return Path(shutil.copytree(MINI, tmp_path_factory.mktemp("model") / "mini"))


@contextmanager
def serving(model: Path, log: Path, *options: str) -> Iterator[Served]:
    """`serve --ray` in a cluster of its own, on a free port, ready: its process and its URL."""
    port = free_port()
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("service", "integrations", "src"))
    command = [sys.executable, "-m", "gliclass_rerank.cli", "serve", "--ray", "--model", str(model)]
    command += ["--threads", "1", "--port", str(port), *options]
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_ADDRESS": "local"}
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as sink:
        started = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
    try:
        wait_for(lambda: started.poll() is not None or is_ready(url), PATIENCE)
        assert started.poll() is None, log.read_text("utf-8", "replace")
        yield started, url
        started.send_signal(signal.SIGTERM)
        assert started.wait(PATIENCE) == 0, log.read_text("utf-8", "replace")
    finally:
        started.kill()
        started.wait()


def is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/ready").status_code == 200
    return False


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two replicas of one thread each."""
    log = tmp_path_factory.mktemp("ray") / "log"
    with serving(model, log, "--min-replicas", "2", "--max-replicas", "2") as running:
        yield running


def replicas(started: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of the model's replicas."""
    found = []
    for child in psutil.Process(started.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "ServeReplica" in (title := " ".join(child.cmdline())) and "scorer" in title:
                found.append(child)
    return found


def ranked(url: str, passages: list[str]) -> list[tuple[int, float]]:
    answer = httpx.post(f"{url}/v2/rerank", json={"query": QUERY, "documents": passages}, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return [(one["index"], one["relevance_score"]) for one in answer.json()["results"]]


def same(some: list[tuple[int, float]], others: list[tuple[int, float]]) -> bool:
    """Whether rankings agree; what is computed together may change the last bits of a score."""
    scores = dict(others)
    in_order = all(one >= other for (_, one), (_, other) in pairwise(some))
    return in_order and dict(some) == pytest.approx(scores, abs=TOLERANCE) and len(some) == len(others)


@cache
def library(model: Path) -> Reranker:
    return Reranker(str(model))


def expected(model: Path, passages: list[str]) -> list[tuple[int, float]]:
    return [(one.index, one.score) for one in library(model).rank(QUERY, passages)]


def test_it_ranks_as_the_library_does(served: Served, model: Path) -> None:
    assert ranked(served[1], FEW) == expected(model, FEW)
    assert same(ranked(served[1], PASSAGES), expected(model, PASSAGES))


def test_its_logits_and_windows_are_those_of_the_model(served: Served, model: Path) -> None:
    requests = [ScoreRequest(text, (QUERY, "a list")) for text in ["word " * 900, *PASSAGES[:5]]]
    here, there = load_scorer(model), load_scorer(served[1])
    for ours, theirs in zip(here.score(requests), there.score(requests), strict=True):
        assert np.allclose(ours, theirs, atol=TOLERANCE)
        assert ours.spans == theirs.spans
        assert np.allclose(ours.per_window, theirs.per_window, atol=TOLERANCE)
    assert there.info.revision == here.info.revision


def test_an_error_of_a_replica_is_the_callers_and_nobody_elses(served: Served, model: Path) -> None:
    with pytest.raises(InputError, match="label"):
        load_scorer(served[1]).score([ScoreRequest("a text", ("a label that is far too long " * 200,))])
    assert ranked(served[1], FEW) == expected(model, FEW)


def test_both_replicas_work_on_one_request(served: Served) -> None:
    started, url = served
    before = {one.pid: one.cpu_times().user for one in replicas(started)}
    assert len(before) == 2
    ranked(url, PASSAGES * 4)
    assert all(one.cpu_times().user > before[one.pid] for one in replicas(started))


def test_killing_a_replica_loses_no_request(served: Served, model: Path) -> None:
    started, url = served
    right = expected(model, PASSAGES)
    with ThreadPoolExecutor(CALLERS) as callers:
        answers = [callers.submit(ranked, url, PASSAGES) for _ in range(REQUESTS)]
        wait_for(lambda: sum(answer.done() for answer in answers) >= CALLERS, PATIENCE)
        killed = replicas(started)[0]
        killed.kill()
        assert not all(answer.done() for answer in answers)
        assert all(same(answer.result(PATIENCE), right) for answer in answers)
    wait_for(lambda: len({one.pid for one in replicas(started)} - {killed.pid}) == 2, PATIENCE)


def test_accepted_requests_are_answered_at_the_end(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLICLASS_RERANK_QUEUE_BATCH_TOKENS", "1024")
    many = PASSAGES  # more than a batch, so that something of each request waits
    right = expected(model, many)
    with (
        ThreadPoolExecutor(CALLERS) as callers,
        serving(model, tmp_path / "log", "--max-replicas", "1", "--timeout-seconds", "600") as (started, url),
    ):
        answers = [callers.submit(ranked, url, many) for _ in range(CALLERS)]
        wait_for(lambda: waiting(url) == CALLERS, PATIENCE)
        started.send_signal(signal.SIGTERM)
        assert all(same(answer.result(PATIENCE), right) for answer in answers)


def waiting(url: str) -> int:
    """Requests of which something waits for its batch."""
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    return int(sum(float(line.split()[1]) for line in lines if line.startswith("te_queue_size ")))


def test_more_replicas_at_least_than_at_most_are_refused() -> None:
    from gliclass_rerank_service.ray_app import build

    with pytest.raises(OptionError, match="ray_max_replicas"):
        build({"ray_min_replicas": "3", "ray_max_replicas": "2"})
