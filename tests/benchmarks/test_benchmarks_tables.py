"""The tables of the READMEs are what the results tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.lib import tables
from benchmarks.lib.machine import RESULTS

TEXT = "before\n<!-- int8 -->\nold\n<!-- /int8 -->\nafter <!-- other -->\n"


def write_results(folder: Path, name: str, change: float) -> None:
    report = {"commit": "abc", "cpu": "a processor", "cores": 2, "differences": {"torch": {"max |dp|": change}}}
    (folder / f"{name}.json").write_text(json.dumps(report), "utf-8")


@pytest.mark.parametrize("file", tables.FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_tables_are_made_from_the_newest_results(file: Path) -> None:
    text = file.read_text("utf-8")
    made = tables.filled(text, RESULTS, tables.links_of(file))
    assert made == text, "run: python -m benchmarks.lib.tables --write"


def test_each_table_has_a_place_in_the_benchmarks_readme() -> None:
    text = tables.FILES[0].read_text("utf-8")
    assert [name for name in tables.TABLES if f"<!-- {name} -->\n" not in text or f"<!-- /{name} -->" not in text] == []


def test_the_newest_results_take_the_place_between_the_comments(tmp_path: Path) -> None:
    write_results(tmp_path, "int8-2026-01-02", 0.25)
    write_results(tmp_path, "int8-2026-01-10", 0.5)
    write_results(tmp_path, "int8-other-2026-02-01", 0.75)  # another benchmark's, whatever its name begins with
    (tmp_path / "int8-2026-01-10.png").touch()
    made = tables.filled(TEXT, tmp_path, "folder")
    assert made.startswith("before\n<!-- int8 -->\n|  | max \\|dp\\| |\n| --- | ---: |\n| torch | 0.5000 |\n")
    assert "[int8-2026-01-10.json](folder/int8-2026-01-10.json), commit abc, a processor, 2 cores" in made
    assert "[picture](folder/int8-2026-01-10.png)" in made
    assert made.endswith("<!-- /int8 -->\nafter <!-- other -->\n")
    assert tables.filled(made, tmp_path, "folder") == made


def test_without_results_a_table_is_empty(tmp_path: Path) -> None:
    assert tables.filled(TEXT, tmp_path, "folder") == "before\n<!-- int8 -->\n<!-- /int8 -->\nafter <!-- other -->\n"
