"""A service of this checkout on a free local port, for the duration of a benchmark."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class LocalService:
    """A running service: its process id and port."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Base URL of the service."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Client:
        """Open a new connection."""
        return Client(self.port)


class Client:
    """One persistent connection with minimal client work, so that measurements reflect the service."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Send a request. Return status and JSON of the answer."""
        self._connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def local_service(model: str, options: Sequence[str] = ()) -> Iterator[LocalService]:
    """Start `gliclass-rerank serve`, wait until it is ready, and stop it. If it does not start, show its log."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gliclass_rerank.cli",
        "serve",
        "--model",
        model,
        "--port",
        str(port),
        *options,
    ]
    environment = os.environ | {"GLICLASS_RERANK_LOG_LEVEL": "warning"}
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        try:
            if not became_ready(process, port):
                log.seek(0)
                raise SystemExit(f"the service did not start:\n{log.read()}")
            yield LocalService(process.pid, port)
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def became_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the service is ready. Return False if it ends or takes too long."""
    ends_by = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < ends_by:
        try:
            with urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                if answer.status == 200:
                    return True
        except (URLError, OSError):
            time.sleep(0.05)
    return False


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
