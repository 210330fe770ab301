"""Description of the machine, versions and model, stored in each dated result."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path

from gliclass_rerank import ModelInfo, __version__
from gliclass_rerank.scorers.load import usable_cores

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers", "gliclass", "bm25s")
RESULTS = Path(__file__).parents[1] / "results"


def describe(model: ModelInfo | None = None) -> dict[str, object]:
    """Date, commit, machine and versions, and the model if there is one."""
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "cpu": cpu(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gliclass-rerank": __version__,
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "model": None if model is None else asdict(model),
    }


def cpu() -> str:
    """Name of the processor."""
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The repository's commit, with "+" if files differ from it. None outside a repository."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "")


def installed(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
