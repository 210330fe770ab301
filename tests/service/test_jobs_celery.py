"""Jobs on workers: each ends, whatever dies in the middle, and the record in Redis tells what is unknown or expired."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import MINI, needs_mini
from fakes import INFO, OverlapScorer
from gliclass_rerank_service.jobs.base import UnknownJobError
from gliclass_rerank_service.jobs.celery import MAX_STARTS, NAME, CeleryJobs
from gliclass_rerank_service.jobs.open import open_jobs
from gliclass_rerank_service.jobs.redis_store import JobStore
from gliclass_rerank_service.jobs.run import JobStatus, cache_key, checked_payload, run_job
from gliclass_rerank_service.settings import Settings, read_settings

from gliclass_rerank import InputError, ModelInfo, OptionError, ServiceError, load_scorer

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on PATH"),
]

PREDICT: dict[str, Any] = {"inputs": "Bread rises because yeast makes gas.", "labels": ["science", "law"]}
RERANK: dict[str, Any] = {"query": "how does bread rise?", "documents": ["The sea is salt.", PREDICT["inputs"]]}
VISIBILITY = 3.0  # seconds
# Two hundred jobs take minutes: GLICLASS_RERANK_TEST_JOBS=200 pytest tests/service/test_jobs_celery.py
COUNTS = [int(os.environ.get("GLICLASS_RERANK_TEST_JOBS", "20"))]
WORKER = (sys.executable, "-m", "celery", "-A", "gliclass_rerank_service.jobs.celery", "worker", "-E")
OURS = (sys.executable, "-c", "import typer; from gliclass_rerank.cli.worker import worker; typer.run(worker)")
PATHS = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("src", "service"))


class Redis:
    """A redis-server that may be killed and started again on what it has written."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port: int = unused.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "port": self.port,
            "dir": self._folder,
            "appendonly": "yes",
            "appendfsync": "always",
            "bind": "127.0.0.1",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(["redis-server", *arguments, "--save", ""], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            with suppress(redis.ConnectionError):
                self.client.ping()
                return
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(shared: Redis) -> Redis:
    """An empty Redis."""
    shared.client.flushall()
    return shared


def settings_of(server: Redis, **flags: object) -> Settings:
    fields = {"broker_url": server.url, "job_visibility_seconds": VISIBILITY, "threads": 1}
    return read_settings(flags=fields | flags)


@contextmanager
def opened(settings: Settings, model: ModelInfo = INFO) -> Iterator[CeleryJobs]:
    jobs = CeleryJobs(settings, model)
    try:
        yield jobs
    finally:
        jobs.close()


@contextmanager
def working(
    server: Redis, log: Path, command: Sequence[str] = WORKER, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process group of its own, of which nothing is left at the end."""
    ours = {
        "BROKER_URL": server.url,
        "JOB_VISIBILITY_SECONDS": str(VISIBILITY),
        "MODEL": str(MINI),
        "WORKERS": "1",
        **variables,
    }
    environment = (
        os.environ | {f"GLICLASS_RERANK_{name}": value for name, value in ours.items()} | {"PYTHONPATH": PATHS}
    )
    with log.open("ab") as file:
        worker = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        yield worker
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def child_of(worker: subprocess.Popen[bytes]) -> int:
    """The process that runs a worker's jobs."""
    until = time.monotonic() + 60
    while True:
        found = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        if found:
            return int(found[0])
        assert time.monotonic() < until, "the worker has no child"
        time.sleep(0.05)


def all_ended(jobs: CeleryJobs, ids: Sequence[str], seconds: float = 120) -> list[JobStatus]:
    until = time.monotonic() + seconds
    found: dict[str, JobStatus] = {}
    while len(found) < len(ids):
        for job_id in ids:
            if job_id not in found and (status := jobs.status(job_id)).state != "processing":
                found[job_id] = status
        assert time.monotonic() < until, f"{len(ids) - len(found)} of {len(ids)} jobs do not end"
        time.sleep(0.05)
    return [found[job_id] for job_id in ids]


def ended_in(server: Redis) -> int:
    """How many jobs have ended."""
    return sum(server.client.hexists(key, "state") for key in server.client.scan_iter(f"{NAME}:job:*"))


def until_done(server: Redis, count: int, seconds: float = 90) -> None:
    """Wait until so many jobs have ended."""
    until = time.monotonic() + seconds
    while ended_in(server) < count:
        assert time.monotonic() < until, "no job ends"
        time.sleep(0.02)


def different(count: int) -> list[dict[str, Any]]:
    """Payloads of which no two share a cached result, with some work in each, so that there is a middle to die in."""
    texts = max(4, 240 // count)  # so that many jobs cost little more than few
    return [
        PREDICT | {"inputs": [f"{PREDICT['inputs'] * 5} Take {i}, {j}." for j in range(texts)]} for i in range(count)
    ]


# Without a worker.


def test_unknown_jobs_are_told_from_those_that_wait(server: Redis) -> None:
    with opened(settings_of(server)) as jobs:
        assert jobs.executor == "celery"
        with pytest.raises(UnknownJobError, match="nobody"):
            jobs.status("nobody")
        assert jobs.status(jobs.submit("predict", PREDICT)) == JobStatus("processing")


def test_bad_payloads_are_refused_before_they_are_queued(server: Redis) -> None:
    with opened(settings_of(server)) as jobs, pytest.raises(InputError, match="labels"):
        jobs.submit("predict", {"inputs": "a"})
    assert server.client.keys("*") == []


def test_a_message_holds_no_text(server: Redis) -> None:
    with opened(settings_of(server)) as jobs:
        job_id = jobs.submit("predict", PREDICT)
    (message,) = server.client.lrange(NAME, 0, -1)
    assert job_id in message
    assert "yeast" not in message
    assert "yeast" in (server.client.hget(f"{NAME}:job:{job_id}", "payload") or "")


def test_a_lost_message_is_sent_again_by_who_asks(server: Redis) -> None:
    with opened(settings_of(server, job_visibility_seconds=60)) as jobs:
        job_id = jobs.submit("predict", PREDICT)
        server.client.delete(NAME)  # as when a worker dies between receiving and noting that it has received
        assert jobs.status(job_id).state == "processing"
        assert server.client.llen(NAME) == 0
        server.client.hset(f"{NAME}:job:{job_id}", "sent", repr(time.time() - 61))
        for _ in range(3):
            assert jobs.status(job_id).state == "processing"
        assert server.client.llen(NAME) == 1


def test_the_first_end_of_a_job_counts(server: Redis) -> None:
    store = JobStore(server.url, ttl_seconds=60)
    store.create("a", "predict", PREDICT)
    started = store.start("a")
    assert started
    assert (started.kind, started.payload, started.starts) == ("predict", PREDICT, 1)
    again = store.start("a")
    assert again
    assert again.starts == 2
    done = JobStatus("done", [[]])
    store.finish("a", done, "key")
    store.finish("a", JobStatus("failed", error="late"), "")
    store.finish("a", done, "key")
    assert store.status("a") == (done, 0.0)
    assert store.start("a") is None
    assert not server.client.hexists(f"{NAME}:job:a", "payload")  # it is needed no more
    store.close()


def test_everything_expires(server: Redis) -> None:
    store = JobStore(server.url, ttl_seconds=1)
    for name, status in {"a": JobStatus("done", 1), "b": JobStatus("failed", error="no")}.items():
        store.create(name, "predict", PREDICT)
        store.finish(name, status, name)
    store.create("c", "predict", PREDICT)
    left = [server.client.pttl(key) for key in server.client.scan_iter("*")]
    assert -1 not in left  # which means for ever
    time.sleep(1.1)
    assert store.status("a") is None
    assert store.status("b") is None
    waiting = store.status("c")
    assert waiting
    assert waiting[0] == JobStatus("processing")
    assert store.start("a") is None
    store.close()


def test_equal_jobs_on_the_same_model_share_a_result(server: Redis) -> None:
    with opened(settings_of(server)) as jobs:
        first = jobs.submit("predict", PREDICT)
        store = JobStore(server.url, ttl_seconds=60)
        store.finish(
            first, JobStatus("done", "of the first"), cache_key(INFO, "predict", checked_payload("predict", PREDICT))
        )
        waiting = server.client.llen(NAME)
        second = jobs.submit("predict", PREDICT | {"batch_size": 7})
        assert second != first
        assert jobs.status(second) == JobStatus("done", "of the first")
        assert server.client.llen(NAME) == waiting
        assert jobs.status(jobs.submit("predict", PREDICT | {"threshold": 0.9})).state == "processing"
    with opened(settings_of(server), replace(INFO, revision="2")) as jobs:
        assert jobs.status(jobs.submit("predict", PREDICT)).state == "processing"


@pytest.mark.slow
def test_a_redis_that_is_away_is_a_clear_error(tmp_path: Path) -> None:
    url = Redis(tmp_path).url.replace("redis://", "redis://:a-password@")
    with opened(read_settings(flags={"broker_url": url})) as jobs:
        with pytest.raises(ServiceError, match=r"the Redis of jobs does not answer.*check that it runs") as raised:
            jobs.submit("predict", PREDICT)
        assert "a-password" not in str(raised.value)


def test_a_url_of_something_else_is_refused(server: Redis) -> None:
    with pytest.raises(OptionError, match="URL of a Redis") as raised:
        open_jobs(settings_of(server, result_url="postgres://me:secret@host"), OverlapScorer())
    assert "secret" not in str(raised.value)


# With workers.


@needs_mini
@pytest.mark.slow
def test_a_worker_does_what_the_library_does(server: Redis, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    local = load_scorer(MINI, threads=1)
    with working(server, log, OURS), opened(settings_of(server), local.info) as jobs:
        jobs_of_all = [("predict", PREDICT), ("rerank", RERANK), ("predict", PREDICT | {"labels": ["word " * 4000]})]
        ids = [jobs.submit(kind, payload) for kind, payload in jobs_of_all]  # type: ignore[arg-type]
        predicted, ranked, failed = all_ended(jobs, ids)
        assert predicted == JobStatus("done", run_job(local, "predict", PREDICT))
        assert ranked == JobStatus("done", run_job(local, "rerank", RERANK))
        assert failed.state == "failed"
        assert "labels are never cut" in (failed.error or "")
        assert jobs.status(jobs.submit("predict", PREDICT)) == predicted  # of the cache, at once

        # A job that comes twice: passed over when it has ended, else run to the same result.
        jobs._send(ids[0])
        record = f"{NAME}:job:{ids[1]}"
        server.client.hdel(record, "state", "result", "error")
        server.client.hset(record, "payload", json.dumps(RERANK))
        jobs._send(ids[1])
        assert all_ended(jobs, ids) == [predicted, ranked, failed]
        assert server.client.hget(f"{NAME}:job:{ids[0]}", "starts") == "1"
        assert server.client.hget(record, "starts") == "2"

        # One that has been begun too often.
        store = JobStore(server.url, ttl_seconds=60)
        store.create("poison", "predict", PREDICT)
        server.client.hset(f"{NAME}:job:poison", "starts", MAX_STARTS)
        jobs._send("poison")
        assert "divide it" in (all_ended(jobs, ["poison"])[0].error or "")
        store.close()
    assert "yeast" not in log.read_text()


@needs_mini
@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_fails_its_jobs(server: Redis, tmp_path: Path) -> None:
    with working(server, tmp_path / "log", MODEL=str(tmp_path / "none")), opened(settings_of(server)) as jobs:
        (status,) = all_ended(jobs, [jobs.submit("predict", PREDICT)])
    assert status.state == "failed"
    assert "cannot load the model" in (status.error or "")


@needs_mini
@pytest.mark.long
@pytest.mark.parametrize("count", COUNTS)
def test_no_job_is_lost_with_a_worker(count: int, server: Redis, tmp_path: Path) -> None:
    """One worker's child, and another worker whole, are killed in the middle."""
    log = tmp_path / "worker.log"
    expected = [JobStatus("done", run_job(load_scorer(MINI), "predict", payload)) for payload in different(count)]
    with opened(settings_of(server)) as jobs, ExitStack() as stack:
        ids = [jobs.submit("predict", payload) for payload in different(count)]
        first = stack.enter_context(working(server, log))
        until_done(server, 1)
        os.kill(child_of(first), signal.SIGKILL)
        until_done(server, count // 4)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert ended_in(server) < count  # it was the middle
        stack.enter_context(working(server, log))
        assert all_ended(jobs, ids) == expected


@needs_mini
@pytest.mark.long
@pytest.mark.parametrize("count", COUNTS)
def test_no_job_is_lost_with_redis(count: int, tmp_path: Path) -> None:
    """Redis is killed in the middle, and comes back with what it has written."""
    server = Redis(tmp_path)
    server.start()
    try:
        expected = [JobStatus("done", run_job(load_scorer(MINI), "predict", payload)) for payload in different(count)]
        with opened(settings_of(server)) as jobs, working(server, tmp_path / "worker.log"):
            ids = [jobs.submit("predict", payload) for payload in different(count)[: count // 2]]
            until_done(server, 1)
            assert ended_in(server) < count // 2  # it is the middle
            server.kill()
            time.sleep(0.5)
            server.start()
            ids += [jobs.submit("predict", payload) for payload in different(count)[count // 2 :]]
            assert all_ended(jobs, ids) == expected
    finally:
        server.kill()


@needs_mini
@pytest.mark.slow
def test_submitting_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    server.start()
    try:
        with opened(settings_of(server)) as jobs:
            first = jobs.submit("predict", PREDICT)
            server.kill()
            restart = threading.Timer(1.0, server.start)
            restart.start()
            second = jobs.submit("rerank", RERANK)  # waits for it
            restart.join()
            assert [jobs.status(job_id).state for job_id in (first, second)] == ["processing"] * 2
            assert server.client.llen(NAME) == 2
    finally:
        server.kill()


@pytest.mark.slow
def test_flower_shows_the_workers(server: Redis, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    flower = (*WORKER[:-2], "flower", f"--port={port}", "--address=127.0.0.1")
    with working(server, tmp_path / "worker.log"), working(server, tmp_path / "flower.log", flower) as process:
        until, answer = time.monotonic() + 60, b""
        while b"celery@" not in answer:
            assert process.poll() is None, (tmp_path / "flower.log").read_text()
            assert time.monotonic() < until, (tmp_path / "flower.log").read_text()
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/workers?json=1", timeout=5) as page,
            ):
                answer = page.read()
            time.sleep(0.2)
