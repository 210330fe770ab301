"""The real services that clients call: `gliclass-rerank serve` in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds
LOCAL = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@contextmanager
def service(log: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Serve the bundled model on a free port; gives the URL.

    Args:
        log: where the service writes.
        settings: fields of `Settings` by their names.
    """
    port = _free_port()
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("service", "integrations"))
    environment = {f"GLICLASS_RERANK_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "gliclass_rerank.cli", "serve", "--model", "mini", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as written:
        running = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": paths} | environment,
            stdin=subprocess.DEVNULL,
            stderr=written,
        )
        try:
            _wait_until_ready(running, url, log)
            yield url
        finally:
            running.terminate()
            running.wait(PATIENCE)


def _wait_until_ready(running: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends_by = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"{url}/ready"):
                return
        except urllib.error.URLError:
            if running.poll() is not None or time.monotonic() > ends_by:
                raise SystemExit(f"the service does not start; it wrote: {log.read_text()[-2000:]}") from None
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
