"""Description of the machine, versions and model at the head of each result, and the machine's short name."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from gliclass_rerank import ModelInfo, __version__
from gliclass_rerank.scorers.load import usable_cores

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers", "gliclass", "bm25s")
NOISE = re.compile(r"\((R|TM)\)|@.*|\b(AMD|Intel|NVIDIA|CPU|Processor|\d+-Core)\b", re.IGNORECASE)
CPUINFO = Path("/proc/cpuinfo")
ZEN = {"23": "Zen", "25": "Zen 3", "26": "Zen 5"}  # by AMD's numbers of families


def describe(model: ModelInfo | None = None) -> dict[str, object]:
    """Date, commit, machine and versions, and the model if there is one."""
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "cpu": cpu(),
        "generation": generation(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gliclass-rerank": __version__,
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "model": None if model is None else asdict(model),
    }


def slug(report: Mapping[str, Any]) -> str:
    """Short name of a report's machine, such as ``epyc-zen5``, ``xeon-amx`` or ``epyc-zen5-h200`` with a GPU."""
    device = report.get("device", {}).get("name", "cpu")
    generation = str(report.get("generation") or "").replace(" ", "").replace("-", "")
    parts = [NOISE.sub(" ", str(report["cpu"])), generation, "" if device == "cpu" else NOISE.sub(" ", device)]
    return "-".join(re.findall(r"[a-z0-9]+", " ".join(parts).lower())) or "unknown"


def cpu() -> str:
    """Name of the processor."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def generation() -> str | None:
    """The generation, where processors of one name differ in the instructions for products: Zen, AMX or AVX-512."""
    told = cpuinfo()
    flags = told.get("flags", "").split()
    if told.get("vendor_id") == "AuthenticAMD":
        zen = ZEN.get(told.get("cpu family", ""))
        return "Zen 4" if zen == "Zen 3" and "avx512f" in flags else zen
    return "AMX" if "amx_tile" in flags else "AVX-512" if "avx512f" in flags else None


def cpuinfo() -> dict[str, str]:
    """Linux's description of the first processor, empty elsewhere."""
    first = CPUINFO.read_text("utf-8").partition("\n\n")[0] if CPUINFO.is_file() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


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
