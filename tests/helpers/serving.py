"""Real servers for the tests of the service: an app in this process on a thread, or the command in its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fakes import OverlapScorer
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gliclass_rerank import ModelInfo, ScoreRequest
from gliclass_rerank.types import FloatArray

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds


def post(client: TestClient, path: str, **body: Any) -> Any:
    """The JSON of a successful answer."""
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


class GatedScorer:
    """An `OverlapScorer` that stops before each batch while its gate is closed.

    Attributes:
        gate: open at first.
        entered: set once a batch has come to the gate.
        texts: all that was scored.
        batches: the texts of each batch.
    """

    def __init__(self, scorer: OverlapScorer | None = None) -> None:
        self._scorer = scorer or OverlapScorer()
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.texts: list[str] = []
        self.batches: list[list[str]] = []

    @property
    def info(self) -> ModelInfo:
        return self._scorer.info

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        self.batches.append([request.text for request in requests])
        self.texts += self.batches[-1]
        return self._scorer.score(requests)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an app on a free port; gives its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def process(
    arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`gliclass-rerank serve` on a free port, ready; gives the process, whose stderr is its log, and its URL."""
    port = free_port()
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("service", "integrations"))
    command = [sys.executable, "-m", "gliclass_rerank.cli", "serve", "--port", str(port), *arguments]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths, **(environment or {})}, stderr=subprocess.PIPE, text=True
    ) as running_process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: running_process.poll() is not None or answers_ready(url))
            yield running_process, url
        finally:
            running_process.kill()


def wait_for(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return when something holds; fail if it never does."""
    ends_by = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends_by, "waited in vain"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False
