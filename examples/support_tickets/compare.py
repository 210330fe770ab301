"""Two reports of `gliclass-rerank evaluate --json` side by side: accuracy, F1, and F1 of each label."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

MEASURES = {"macro F1": "macro_f1", "micro F1": "micro_f1", "weighted F1": "weighted_f1"}


def measures(report: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy and F1 of a report, all in [0, 1], by name."""
    labels = report["labels"]
    return {"accuracy": labels["top1"]} | {name: labels["classes"][key] for name, key in MEASURES.items()}


def classes(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Precision, recall, F1 and support of each label."""
    return {one["label"]: one for one in report["labels"]["classes"]["classes"]}


def side_by_side(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """A row for each measure of the whole, then one for the F1 of each label, with its number of texts."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for column in ("texts", "before", "after"):
        table.add_column(column, justify="right")
    old, new = measures(before), measures(after)
    for name in old:
        count = str(before["labels"]["texts"]) if name == "accuracy" else ""
        table.add_row(name, count, f"{old[name]:.3f}", f"{new[name]:.3f}")
    table.add_section()
    after_by_label = classes(after)
    for label, was in classes(before).items():
        table.add_row(f"F1 of {label}", str(was["support"]), f"{was['f1']:.3f}", f"{after_by_label[label]['f1']:.3f}")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    reports = [json.loads(file.read_text("utf-8")) for file in (options.before, options.after)]
    Console().print(side_by_side(*reports))
