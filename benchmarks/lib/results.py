"""Files of results: MACHINE/BENCHMARK.json, the newest of each, and HISTORY.md for the figures of older ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.lib.history import add
from benchmarks.lib.machine import slug

RESULTS = Path(__file__).parents[1] / "results"
NUMBERS = re.compile(r"\[\s+([-+.\deE]+(?:,\s+[-+.\deE]+)*)\s+\]")

Report = Mapping[str, Any]


def write(report: Report, name: str, folder: Path) -> Path:
    """Write a report with lists of numbers on one line, and return its file.

    The main figures of a report of an earlier day go into HISTORY.md.
    """
    machine = slug(report)
    file = folder / machine / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file() and (older := read(file))["date"] != report["date"]:
        add(older, name, machine, folder / "HISTORY.md")
    text = json.dumps(report, indent=2, ensure_ascii=False)
    file.write_text(NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text) + "\n", "utf-8")
    return file


def read(file: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return report


def newest_first(name: str, folder: Path = RESULTS) -> list[Path]:
    """Results of a benchmark on each machine, by date, and by machine within a date."""
    files = sorted(folder.glob(f"*/{name}.json"))
    return sorted(files, key=lambda file: str(read(file)["date"]), reverse=True)
