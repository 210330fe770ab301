"""The tables of the READMEs are what the results tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.pages import readme
from benchmarks.pages.markdown import markdown
from benchmarks.pages.tables import TABLES

TEXT = "before\n<!-- int8 -->\nold\n<!-- /int8 -->\nafter <!-- other -->\n"
SUMMARIES = {"rerankers", "quality", "label-counts", "sizes", "tutorial"}  # of the main README or the documentation


def write_results(folder: Path, machine: str, day: str, change: float) -> Path:
    head = {"date": f"2026-01-{day}", "cpu": f"a {machine}", "generation": "Zen 9", "cores": 2}
    file = folder / machine / "int8.json"
    file.parent.mkdir()
    file.write_text(json.dumps(head | {"differences": {"torch": {"max |dp|": change}}}), "utf-8")
    return file


@pytest.mark.parametrize("file", readme.FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_tables_are_made_from_the_newest_results(file: Path) -> None:
    text = file.read_text("utf-8")
    assert readme.filled(text, readme.links_of(file)) == text, "run: python -m benchmarks.pages.readme --write"


def test_each_benchmark_has_a_table_in_the_benchmarks_readme() -> None:
    text = readme.FILES[0].read_text("utf-8")
    assert {name for name in TABLES if f"<!-- {name} -->\n" not in text or f"<!-- /{name} -->" not in text} == SUMMARIES


def test_the_newest_results_take_the_place_between_the_comments(tmp_path: Path) -> None:
    write_results(tmp_path, "older", "02", 0.25)
    write_results(tmp_path, "newest", "10", 0.5).with_suffix(".png").touch()
    made = readme.filled(TEXT, "folder", tmp_path)
    assert made.startswith(
        "before\n<!-- int8 -->\n| int8 against | max \\|dp\\| |\n| --- | ---: |\n| torch | 0.5000 |\n"
    )
    assert "Source: [newest/int8.json](folder/newest/int8.json), 2026-01-10, a newest Zen 9, 2 cores. " in made
    assert "Pictures: [newest/int8.png](folder/newest/int8.png). " in made
    assert "Other machines: [older/int8.json](folder/older/int8.json).\n" in made
    assert made.endswith("<!-- /int8 -->\nafter <!-- other -->\n")
    assert readme.filled(made, "folder", tmp_path) == made


def test_without_results_a_table_is_empty(tmp_path: Path) -> None:
    assert readme.filled(TEXT, "folder", tmp_path) == "before\n<!-- int8 -->\n<!-- /int8 -->\nafter <!-- other -->\n"


def test_numbers_have_digits_and_texts_stay() -> None:
    made = markdown(["a|b", "c"], {"x": [1234.5, None], "y": ["1.0", 2]}, digits=1, corner="of")
    assert made == "| of | a\\|b | c |\n| --- | ---: | ---: |\n| x | 1,234.5 |  |\n| y | 1.0 | 2.0 |"
