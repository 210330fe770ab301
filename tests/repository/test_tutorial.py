"""docs/tutorial.md: its data and its commands. `.ci/newcomer` runs them end to end and checks that tuning helps."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "support_tickets"
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
BASH = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
QUEUES = ["C API", "IDLE editor", "Windows", "build", "documentation", "interpreter", "standard library", "test suite"]


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


def written(folder: Path, before: float, after: float) -> None:
    """Write what `evaluate --json` writes before and after training, with these accuracies and macro F1."""
    (folder / "tickets").mkdir(exist_ok=True)
    for name, value in (("before", before), ("after", after)):
        rows = [{"label": queue, "precision": value, "recall": value, "f1": value, "support": 50} for queue in QUEUES]
        shares = dict.fromkeys(("macro_f1", "micro_f1", "weighted_f1"), value)
        labels = {"top1": value, "ece": 0.1, "texts": 400, "classes": {**shares, "classes": rows}}
        (folder / "tickets" / f"{name}.json").write_text(json.dumps({"labels": labels}), "utf-8")


PRINTED = "GET /health\n{'status': 'ok'}\n\nPOST /classify\nIDLE editor       0.912  Typing in the Shell window.\n"


@pytest.mark.parametrize(
    ("before", "after", "printed", "problem"),
    [
        (0.5, 0.6, PRINTED, None),
        (0.5, 0.52, PRINTED, "accuracy rose by 0.020"),
        (0.5, 0.5, PRINTED, "macro F1 went from 0.500 to 0.500"),
        (0.5, 0.6, PRINTED.replace("status", "state"), "GET /health"),
        (0.5, 0.6, PRINTED.replace("IDLE editor", "IDLE"), "one of the queues"),
        (0.5, 0.6, PRINTED.replace("POST /classify", ""), "one of the queues"),
        (0.5, 0.6, "Unable to fetch remote file\n" + PRINTED, "asked the hub"),
    ],
)
def test_the_walk_of_the_readme_notices_a_model_that_learned_nothing(
    before: float, after: float, printed: str, problem: str | None, tmp_path: Path
) -> None:
    """.ci/newcomer runs tutorial.py and checks its results by this function."""
    newcomer = runpy.run_path(str(ROOT / ".ci" / "newcomer"))
    assert list(newcomer["CHECKS"]) == ["first fine-tuned model"]
    written(tmp_path, before, after)
    found = newcomer["CHECKS"]["first fine-tuned model"](tmp_path, printed)
    assert bool(found) == (problem is not None), found
    assert problem is None or any(problem in one for one in found)


def test_results_are_kept_with_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx")
    monkeypatch.syspath_prepend(str(FOLDER))
    written(tmp_path, 0.5, 0.6)
    save = runpy.run_path(str(FOLDER / "tutorial.py"))["save"]
    save(tmp_path / "tickets", tmp_path / "results", {"gliclass-rerank train": 61.234}, {"health": {"status": "ok"}})
    (file,) = (tmp_path / "results").rglob("tutorial*.json")
    report = json.loads(file.read_text("utf-8"))
    assert (report["before"]["accuracy"], report["after"]["macro F1"], report["texts"]) == (0.5, 0.6, 400)
    assert [row["label"] for row in report["after"]["classes"]] == QUEUES
    assert report["seconds"] == {"gliclass-rerank train": 61.2}
    assert report["service"] == {"health": {"status": "ok"}}
    assert report["cpu"]
