"""The whole way from tickets to a service that routes them: every command of docs/tutorial.md, one after the other.

    python examples/support_tickets/tutorial.py [FOLDER]

From the repository's root; needs the extras [train] and [service]. What it writes goes into FOLDER, "tickets" by
default, which must not exist yet. With --results the figures also go into a file in that folder, with the date and
the machine; this imports benchmarks/lib (PYTHONPATH=.).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from compare import classes, measures

HERE = Path(__file__).parent
TRAIN = (
    "python {here}/prepare.py {folder}",
    "gliclass-rerank evaluate {folder}/test.jsonl --backend torch --json > {folder}/before.json",
    "cp {here}/run.toml {folder}/",
    "gliclass-rerank train {folder}/run.toml",
    "gliclass-rerank merge {folder}/run/model {folder}/model",
    "gliclass-rerank calibrate {folder}/model {folder}/dev.jsonl",
    "gliclass-rerank evaluate {folder}/test.jsonl --model {folder}/model --json > {folder}/after.json",
    "python {here}/compare.py {folder}/before.json {folder}/after.json",
)
SERVE = "gliclass-rerank serve --model {folder}/model --port {port}"
ASKED = [
    "Typing in the Shell window is slow once its output is long.",
    "Explain in the docs what str.split does with an empty string.",
]
PATIENCE = 120.0  # seconds until the service answers


def main() -> None:
    """Run all of it, and say how long each command took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("tickets"))
    parser.add_argument("--port", type=int, default=8000, help="of the service; 8000 by default")
    parser.add_argument("--results", type=Path, help="folder for MACHINE/tutorial.json; none is written by default")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder} exists; name another folder, or remove it")
    here, folder = shlex.quote(os.path.relpath(HERE)), shlex.quote(str(options.folder))
    seconds = {command: run(command.format(here=here, folder=folder)) for command in TRAIN}
    answers = ask(options.folder, options.port)
    if options.results:
        save(options.folder, options.results, seconds, answers)


def run(command: str) -> float:
    """Show a command, run it in the shell with this Python's programs first, and return its seconds."""
    print(f"\n$ {command}", flush=True)
    started = time.perf_counter()
    subprocess.run(command, shell=True, check=True, env=environment())
    seconds = time.perf_counter() - started
    print(f"({seconds:.0f} s)", flush=True)
    return seconds


def environment() -> dict[str, str]:
    """What commands see: all that this process sees, and the programs of its Python found first."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def ask(folder: Path, port: int) -> dict[str, Any]:
    """Serve the merged model, and show and return what `GET /health` and `POST /classify` answer."""
    queues = json.loads((folder / "test.jsonl").open(encoding="utf-8").readline())["all_labels"]
    with (
        serving(SERVE.format(folder=shlex.quote(str(folder)), port=port)),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        wait_until_ready(client)
        health = client.get("/health").raise_for_status().json()
        print(f"\nGET /health\n{health}")
        body = {"texts": ASKED, "labels": queues, "multi_label": False}
        classified = client.post("/classify", json=body, timeout=60).raise_for_status().json()
    print("\nPOST /classify")
    for text, result in zip(ASKED, classified["results"], strict=True):
        print(f"{result['labels'][0]['label']:17} {result['labels'][0]['score']:.3f}  {text}")
    return {"health": health, "classify": classified}


@contextmanager
def serving(command: str) -> Iterator[None]:
    """Run a service beside; it is asked to end at the end."""
    print(f"\n$ {command}", flush=True)
    process = subprocess.Popen(shlex.split(command), env=environment())
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_until_ready(client: httpx.Client) -> None:
    """Return once the service answers that it is ready; raise TimeoutError if it does not."""
    ends_by = time.monotonic() + PATIENCE
    while time.monotonic() < ends_by:
        try:
            if client.get("/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{client.base_url} was not ready within {PATIENCE:.0f} seconds")


def save(folder: Path, results: Path, seconds: dict[str, float], answers: dict[str, Any]) -> None:
    """Write accuracy and F1 before and after, the seconds of each command and the service's answers."""
    from benchmarks.lib.machine import describe
    from benchmarks.lib.results import write

    found = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("before", "after")}
    report = describe() | {
        name: measures(values) | {"ece": values["labels"]["ece"], "classes": list(classes(values).values())}
        for name, values in found.items()
    }
    report["texts"] = found["before"]["labels"]["texts"]
    report["seconds"] = {command: round(value, 1) for command, value in seconds.items()}
    print(f"wrote {write(report | {'service': answers}, 'tutorial', results)}")


if __name__ == "__main__":
    main()
