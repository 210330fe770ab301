"""Tables of the command line fit the terminal: numbers stay whole, names fold, and of each text a piece is shown."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from conftest import Exported
from rich.cells import cell_len
from test_cli import Run, run

from benchmarks.lib.report import table
from gliclass_rerank.cli.output import print_table

__all__ = ["run"]  # the fixture of the other commands' tests

WIDTHS = (40, 80, 120, 160)
LENGTHS = (10, 79, 200, 2000)
CJK = "法院裁定面团在寒冷中发酵"
NAMES = ("invoices_refunds_and_payments_of_every_kind_and_country", "travel", "a-route")
LABELS = (*NAMES, "a label of several words that goes on")


@pytest.fixture
def model(exported: Exported) -> Path:
    return exported("bert-average-text")


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


def texts() -> list[str]:
    """Short and long ones, each with a beginning of its own; Latin, Chinese, and one long word."""
    latin = [f"L{n} " + ("the court ruled on the law " * 80)[:n] for n in LENGTHS]
    wide = [f"C{n}" + (CJK * 200)[:n] for n in LENGTHS]
    return [*latin, *wide, "W0" + "x" * 500]


def lines_of(table: str, width: int) -> list[str]:
    """The lines that hold something; none is wider than the terminal."""
    lines = [line for line in table.splitlines() if line.strip()]
    assert max(map(cell_len, lines)) <= width
    return lines


def column(lines: list[str], heading: str, following: str) -> str:
    """All that stands below a heading, joined; what stands left of it is ASCII."""
    start, end = lines[0].index(heading), lines[0].index(following)
    return "".join("".join(line[start:end].split()) for line in lines[2:])


def test_rerank_shows_rank_score_source_and_passage(run: Run, model: Path, tmp_path: Path, width: int) -> None:
    for i, text in enumerate(texts()):
        (tmp_path / f"a_rather_long_name_{i}.txt").write_text(text, "utf-8")
    ended = run("rerank", "law", tmp_path, "--model", model)
    lines = lines_of(ended.out, width)
    for rank in range(1, len(texts()) + 1):
        assert any(re.match(rf"\s+{rank}\s+[01]\.\d{{3}}\s+\S", line) for line in lines), rank
    for i, text in enumerate(texts()):
        assert any(text[:2] in line for line in lines), text[:2]
        assert f"a_rather_long_name_{i}.txt" in column(lines, "source", "passage"[:4])


def test_route_shows_route_score_others_and_query(run: Run, model: Path, tmp_path: Path, width: int) -> None:
    file = tmp_path / "routes.json"
    file.write_text(json.dumps(dict.fromkeys(NAMES, "")), "utf-8")
    options = ("--routes", file, "--model", model)
    chosen = json.loads(run("route", *texts(), *options, "--json").out)["results"]
    lines = lines_of(run("route", *texts(), *options).out, width)
    assert column(lines, "route", "score") == "".join(one["name"] for one in chosen)
    for query, one in zip(texts(), chosen, strict=True):
        assert any(f" {one['score']:.3f} " in line and query[:2] in line for line in lines)
    others = column(lines, "others", "quer")
    for name in NAMES:
        assert others.count(name) == sum(one["name"] != name for one in chosen)


def test_classify_shows_labels_scores_and_text(run: Run, model: Path, width: int) -> None:
    options = ("--labels", ",".join(LABELS), "--threshold", 0, "--model", model)
    results = json.loads(run("classify", *texts(), *options, "--json").out)["results"]
    lines = lines_of(run("classify", *texts(), *options).out, width)
    told = [f"{one['label']} {one['score']:.3f}" for result in results for one in result["labels"]]
    assert column(lines, "labels", "text").replace(",", "") == "".join(told).replace(" ", "")
    for text in texts():
        assert any(text[:2] in line for line in lines)


def test_check_shows_verdict_scores_evidence_and_claim(run: Run, model: Path, tmp_path: Path, width: int) -> None:
    evidence = tmp_path / "the_evidence_that_decides.txt"
    evidence.write_text("The court ruled on the law. " * 60, "utf-8")
    answer = " ".join(f"K{n} is what the court has found {'and written down ' * 20}." for n in range(3))
    options = ("--evidence", evidence, "--model", model)
    claims = json.loads(run("check", answer, *options, "--json").out)["claims"]
    lines = lines_of(run("check", answer, *options).out, width)
    for claim in claims:
        pair = rf"{claim['support']:.3f}\s+{claim['refute']:.3f}"
        assert any(re.search(pair, line) and claim["text"][:2] in line for line in lines)
    assert "the_evidence_that_decides.txt" in column(lines[:-1], "evid", "clai")


def test_numbers_are_whole_where_they_alone_are_wider_than_the_terminal(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    records = tmp_path / "dev.jsonl"
    labels = ["a_label_with_a_long_name", "b"]
    texts = [{"text": f"text {i}", "all_labels": labels, "true_labels": [labels[i % 2]]} for i in range(4)]
    facts = [{"premise": "Rain falls.", "hypothesis": f"Rain {i}.", "label": "supported"} for i in range(4)]
    records.write_text("".join(json.dumps(record) + "\n" for record in texts + facts), "utf-8")
    shown = run("evaluate", records, "--model", model).out
    report = json.loads(run("evaluate", records, "--model", model, "--json").out)
    assert "…" not in shown
    assert f"{report['labels']['classes']['macro_f1']:.4f}" in shown
    told = run("info", "--model", model).out
    assert "…" not in told


def test_numbers_of_a_benchmark_are_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    columns = [f"sentence-transformers, kind {i}" for i in range(6)]
    print_table(table("Speed", columns, {"a model with a long name": [1234.5 + i for i in range(6)]}, digits=1))
    shown = capsys.readouterr().out
    assert all(f"{1234.5 + i:,.1f}" in shown for i in range(6))


def test_a_terminal_without_the_variable_is_asked_for_its_width(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The court ruled on the law. " * 60, "utf-8")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "gliclass_rerank.cli", "rerank", "law", str(tmp_path), "--model", str(model)]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, check=True, env=environment)
    os.close(theirs)
    printed = os.read(ours, 1 << 16).decode()
    os.close(ours)
    lines = lines_of(re.sub(r"\x1b\[[\d;]*m", "", printed), 100)
    assert re.search(r"1\s+[01]\.\d{3}\s+\S.*The court", " ".join(lines[2:]))
