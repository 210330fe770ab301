"""Toy data: a few records in every layout of the evaluation data, so that each script runs in seconds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.lib.eval_data import OUT_OF_SCOPE

PASSAGES = [
    ("Bread", "yeast turns sugar into gas and the dough rises"),
    ("", "the court found that the contract was void"),
    ("", "vaccines show the immune system a harmless part of a virus"),
    ("Prices", "prices and wages rose by two percent in march"),
    ("", " "),
]
QUERIES = ["why does dough rise with yeast", "which contract was void", "what do vaccines show"]
LABELS = ["baking bread", "law and contracts", "medicine", "economy"]
ANSWERS = [(0, 0, 2), (1, 1, 1), (2, 2, 1), (2, 4, 1)]


def write_toy_data(root: Path) -> None:
    """Write eval/retrieval, eval/routing, eval/fact, eval/labels, train/fact and train/decisions below ``root``."""
    retrieval, routing = root / "eval/retrieval", root / "eval/routing"
    write_collection(retrieval / "first", "qrels.tsv", ANSWERS)
    write_collection(retrieval / "second", "qrels.dev.tsv", [(0, 1, 1)])
    write_collection(retrieval / "second", "qrels.test.tsv", ANSWERS[:2])
    write_collection(retrieval / "wikiqa", "qrels.test.tsv", [(0, 3, 0), (0, 0, 1), (1, 2, 0), (1, 1, 1)])
    write_collection(routing / "bfcl_live_multiple", "qrels.tsv", [(0, 0, 1), (0, 3, 0), (1, 3, 0), (1, 1, 1)])
    write_facts(root)
    texts = [{"text": text, "label": label} for (_, text), label in zip(PASSAGES, LABELS, strict=False)]
    stray = {"text": "hello there", "label": OUT_OF_SCOPE}
    write_labels(routing / "open", [*LABELS, OUT_OF_SCOPE], [*texts, stray])
    write_labels(routing / "whole", LABELS, texts)
    for name in ("open", "whole"):
        write_lines(routing / name / "train.jsonl.gz", [*texts, *texts, stray])
    for name in ("topics", "ag_news"):
        write_labels(root / "eval/labels" / name, LABELS, texts)
    write_questions(root / "train/decisions/strategyqa")


def write_facts(root: Path) -> None:
    """Write claims of each verdict, for evaluation and for the baselines' thresholds."""
    claims = ["yeast turns sugar into gas", "the judge slept all day", "vaccines show nothing", "prices rose in march"]
    verdicts = ["supported", "nei", "refuted", "supported"]
    facts = [
        {"premise": text, "hypothesis": claim, "label": label, "split": "test"}
        for (_, text), claim, label in zip(PASSAGES, claims, verdicts, strict=False)
    ]
    write_lines(root / "eval/fact/claims/nli.jsonl.gz", facts)
    write_lines(root / "train/fact/other/nli.jsonl.gz", facts[::-1])


def write_questions(folder: Path) -> None:
    """Write questions about enough texts that some are held back from training."""
    texts = [f"{text} in the year {year}" for year in range(1900, 2000) for _, text in PASSAGES[:2]]
    write_lines(
        folder / "noul.jsonl.gz",
        [{"text": text, "question": "Is it about bread?", "answer": "dough" in text} for text in texts],
    )


def write_collection(folder: Path, qrels: str, rows: Sequence[tuple[int, int, int]]) -> None:
    """Write PASSAGES and QUERIES with judgments: query, passage, grade."""
    passages = [{"id": f"d{i}", "title": title, "text": text} for i, (title, text) in enumerate(PASSAGES)]
    write_lines(folder / "corpus.jsonl.gz", passages)
    write_lines(folder / "queries.jsonl", [{"id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)])
    lines = "".join(f"q{query}\td{passage}\t{grade}\n" for query, passage, grade in rows)
    (folder / qrels).write_text("query-id\tcorpus-id\tscore\n" + lines, "utf-8")


def write_labels(folder: Path, labels: Sequence[str], texts: Sequence[Mapping[str, object]]) -> None:
    """Write a test split and the names of its labels."""
    write_lines(folder / "test.jsonl.gz", texts)
    (folder / "labels.json").write_text(json.dumps(labels), "utf-8")


def write_lines(file: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write JSON lines, gzipped if the file name ends in .gz."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
