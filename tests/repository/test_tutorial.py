"""docs/tutorial.md: its commands run end to end, on its own tickets, and fine-tuning helps on those not trained on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_mini
from serving import free_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "support_tickets"
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
BASH = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
QUEUES = ["C API", "IDLE editor", "Windows", "build", "documentation", "interpreter", "standard library", "test suite"]
STEPS = 10  # enough to learn something of the queues; the tutorial's own are more


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def prepared(folder: Path, *options: str) -> dict[str, list[dict[str, Any]]]:
    command = [sys.executable, str(FOLDER / "prepare.py"), str(folder), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return {split: lines(folder / f"{split}.jsonl") for split in ("train", "dev", "test")}


def words(records: Sequence[dict[str, Any]]) -> set[str]:
    return {" ".join(re.findall(r"[^\W\d_]+", record["text"].lower())) for record in records}


def test_every_ticket_is_in_one_split_and_no_text_in_two(tmp_path: Path) -> None:
    splits, tickets = prepared(tmp_path), lines(FOLDER / "tickets.jsonl")
    assert sum(map(len, splits.values())) == len(tickets)
    assert sum(len(words(records)) for records in splits.values()) == len(words(tickets))
    for records in splits.values():
        assert {tuple(record["true_labels"]) for record in records} == {(queue,) for queue in QUEUES}
        assert all(record["all_labels"] == QUEUES for record in records)


def test_a_ticket_keeps_its_split_when_others_come_and_go(tmp_path: Path) -> None:
    half = (FOLDER / "tickets.jsonl").read_text("utf-8").splitlines(keepends=True)[::-2]
    (tmp_path / "half.jsonl").write_text("".join(half), "utf-8")
    some = prepared(tmp_path / "some", "--tickets", str(tmp_path / "half.jsonl"))
    for split, records in prepared(tmp_path / "whole").items():
        assert some[split]
        assert words(some[split]) < words(records)


def test_a_text_that_differs_in_figures_only_is_in_the_same_split(tmp_path: Path) -> None:
    versions = [{"text": f"Update OpenSSL to 1.1.{i} on WINDOWS.", "queue": "build"} for i in range(40)]
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in versions), "utf-8")
    splits = prepared(tmp_path / "out", "--tickets", str(tmp_path / "tickets.jsonl"))
    assert sorted(map(len, splits.values())) == [0, 0, 40]


def test_the_page_has_the_commands_settings_and_question_of_the_script() -> None:
    script = (FOLDER / "tutorial.py").read_text("utf-8")
    page = [line for block in BASH for line in block.splitlines() if line.startswith(("python", "gliclass", "cp"))]
    told = re.findall(r'^    "((?:python|gliclass-rerank|cp) [^\n]*)",$', script, re.MULTILINE)
    told += re.findall(r'^SERVE = "(.*)"$', script, re.MULTILINE)
    spelled = [line.format(here="examples/support_tickets", folder="tickets", port=8000) for line in told]
    assert page == ["python examples/support_tickets/tutorial.py", *spelled]
    assert (FOLDER / "run.toml").read_text("utf-8") in PAGE
    (asked,) = re.findall(r"-d '(\{.*?\})'", PAGE, re.DOTALL)
    body = json.loads(asked)
    assert body["labels"] == QUEUES
    assert all(text in script for text in body["texts"])


@needs_mini
@pytest.mark.long
@pytest.mark.timeout(1500)  # minutes on a quiet machine
def test_the_whole_way_ends_in_a_service_that_knows_more_than_before(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("peft")
    folder, results = tmp_path / "tickets", tmp_path / "results"
    script = tmp_path / "support_tickets"
    script.mkdir()
    for file in (*FOLDER.glob("*.py"), FOLDER / "tickets.jsonl"):
        (script / file.name).write_bytes(file.read_bytes())
    settings = (FOLDER / "run.toml").read_text("utf-8")
    (script / "run.toml").write_text(re.sub(r"^steps = \d+", f"steps = {STEPS}", settings, flags=re.MULTILINE), "utf-8")
    command = [sys.executable, str(script / "tutorial.py"), str(folder), "--port", str(free_port())]
    ended = subprocess.run(
        [*command, "--results", str(results)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=1400,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "GET /health\n{'status': " in ended.stdout
    assert "Unable to fetch remote file" not in ended.stderr  # saving an adapter asks no hub
    (file,) = results.glob("*/tutorial.json")
    report = json.loads(file.read_text("utf-8"))
    assert report["after"]["accuracy"] > report["before"]["accuracy"] + 0.03
    assert report["after"]["macro F1"] > report["before"]["macro F1"]
    for result in report["service"]["classify"]["results"]:
        assert len(result["labels"]) == 1
        assert result["labels"][0]["label"] in QUEUES
