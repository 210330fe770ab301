"""Tickets to training records: all that `gliclass-rerank train` and `evaluate` need to know of them."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
SHARES = {"test": 0.35, "dev": 0.10}  # the rest is trained on


def split_of(text: str) -> str:
    """The split of a text, always the same; texts that differ in figures, case and signs only share one."""
    words = " ".join(re.findall(r"[^\W\d_]+", text.lower()))
    place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def prepare(tickets: Path, folder: Path) -> dict[str, Counter[str]]:
    """Write train.jsonl, dev.jsonl and test.jsonl into ``folder``; return how many of each queue are in each.

    Args:
        tickets: JSON lines {"text", "queue"}.
        folder: made where it is missing.
    """
    rows = [json.loads(line) for line in tickets.read_text("utf-8").splitlines()]
    queues = sorted({row["queue"] for row in rows})
    records: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    counts: dict[str, Counter[str]] = {split: Counter() for split in records}
    for row in rows:
        split = split_of(row["text"])
        record = {"text": row["text"], "all_labels": queues, "true_labels": [row["queue"]]}
        records[split].append(json.dumps(record, ensure_ascii=False) + "\n")
        counts[split][row["queue"]] += 1
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in records.items():
        (folder / f"{split}.jsonl").write_text("".join(lines), "utf-8")
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the three files")
    parser.add_argument("--tickets", type=Path, default=HERE / "tickets.jsonl", help='JSON lines {"text", "queue"}')
    options = parser.parse_args()
    for split, counts in prepare(options.tickets, options.out).items():
        each = ", ".join(f"{queue} {count}" for queue, count in sorted(counts.items()))
        print(f"{split}: {counts.total()} tickets ({each})")
