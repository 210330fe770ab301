"""Results lie by machine and benchmark, are named somewhere, and leave a line when newer ones replace them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lib import machine
from benchmarks.lib.history import main_figures
from benchmarks.lib.results import RESULTS, newest_first, read, write
from benchmarks.pages.tables import TABLES, table

ROOT = Path(__file__).parents[2]
CARD = ROOT / "src/gliclass_rerank/bundled/mini/MODEL_CARD.md"
FOLDERS = {folder.name for folder in RESULTS.iterdir() if folder.is_dir()}
OF_MACHINES = [file for folder in sorted(FOLDERS - {"mini"}) for file in sorted(RESULTS.glob(f"{folder}/*.json"))]
NAMED = re.compile(r"results/((?:[\w-]+/)?[\w*-]+\.(?:jsonl?|png|md))")


def of(day: int, speed: float = 2.0) -> dict[str, Any]:
    head = {"date": f"2026-01-0{day}", "cpu": "AMD EPYC", "generation": "Zen 5", "model": {"revision": "abc"}}
    return head | {"results": {"ours, ONNX int8": {"passages_per_second": 144.4, "times_upstream": speed}}}


def texts() -> str:
    """All texts that name results: pages of the repository, and the tables that the documentation inserts."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", CARD, RESULTS / "HISTORY.md"]
    told = "\n".join(page.read_text("utf-8") for page in [*pages, *sorted((ROOT / "docs").rglob("*.md"))])
    inserted = [table(name) for name in TABLES if f"<!-- insert: {name} -->" in told]
    return "\n".join([told, *inserted])


def test_each_result_is_named_somewhere_and_each_named_one_exists() -> None:
    patterns = set(NAMED.findall(texts()))
    assert {pattern for pattern in patterns if not list(RESULTS.glob(pattern))} == set()
    named = {file for pattern in patterns for file in RESULTS.glob(pattern)}
    unnamed = {file for file in RESULTS.rglob("*") if file.is_file()} - named
    assert {file.relative_to(RESULTS).as_posix() for file in unnamed} == set()


@pytest.mark.parametrize("file", OF_MACHINES, ids=lambda file: "/".join(file.parts[-2:]))
def test_a_result_tells_its_date_machine_and_main_figures(file: Path) -> None:
    report = read(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", report["date"])
    assert machine.slug(report) == file.parent.name
    _, figures = main_figures(file.stem, report)
    assert all(isinstance(value, int | float) for value in figures.values())
    assert figures


@pytest.mark.parametrize(
    ("cpu", "generation", "device", "slug"),
    [
        ("AMD EPYC", None, "cpu", "epyc"),
        ("AMD EPYC 7763 64-Core Processor", "Zen 3", "cpu", "epyc-7763-zen3"),
        ("AMD EPYC", "Zen 5", "NVIDIA H200", "epyc-zen5-h200"),
        ("Intel(R) Xeon(R) Processor @ 2.50GHz", "AMX", "cpu", "xeon-amx"),
        ("Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", "AVX-512", "cpu", "core-i7-1165g7-avx512"),
        ("Apple M2", None, "cpu", "apple-m2"),
        ("", None, "cpu", "unknown"),
    ],
)
def test_a_machine_has_a_short_name(cpu: str, generation: str | None, device: str, slug: str) -> None:
    assert machine.slug({"cpu": cpu, "generation": generation, "device": {"name": device}}) == slug


@pytest.mark.parametrize(
    ("told", "generation"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nflags\t\t: avx2", "Zen 3"),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nflags\t\t: avx2 avx512f", "Zen 4"),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nflags\t\t: avx512f\n\nflags\t: other", "Zen 5"),
        ("vendor_id\t: GenuineIntel\nflags\t\t: avx512f amx_tile", "AMX"),
        ("vendor_id\t: GenuineIntel\nflags\t\t: avx512f", "AVX-512"),
        ("vendor_id\t: GenuineIntel\nflags\t\t: avx2", None),
    ],
)
def test_processors_of_one_name_differ_in_their_generation(
    told: str, generation: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(told, "utf-8")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.generation() == generation


def test_a_newer_result_takes_the_place_of_the_older_one_and_leaves_its_figures(tmp_path: Path) -> None:
    write(of(1), "throughput-1-thread", tmp_path)
    write(of(1, speed=3.0), "throughput-1-thread", tmp_path)  # the same day again
    file = write(of(2), "throughput-1-thread", tmp_path)
    assert file == tmp_path / "epyc-zen5/throughput-1-thread.json"
    assert read(file)["date"] == "2026-01-02"
    last = (tmp_path / "HISTORY.md").read_text("utf-8").splitlines()[-2:]
    assert last[0].startswith("| --- |")
    assert last[1] == "| 2026-01-01 | throughput-1-thread | epyc-zen5 | abc | passages/s 144; × upstream 3 |"


def test_results_are_found_by_their_date(tmp_path: Path) -> None:
    older, newer = write(of(1), "x", tmp_path), write(of(2) | {"cpu": "Xeon"}, "x", tmp_path)
    write(of(3), "x-other", tmp_path)
    assert newest_first("x", tmp_path) == [newer, older]


def test_lists_of_numbers_are_written_on_one_line(tmp_path: Path) -> None:
    report = of(1) | {"numbers": [1, 0.5, -1e-05], "names": ["a", "b"], "none": [], "nested": [[1], [2]]}
    file = write(report, "x", tmp_path / "new")
    assert json.loads(file.read_text("utf-8")) == report
    assert '"numbers": [1, 0.5, -1e-05]' in file.read_text("utf-8")
