"""Public training sets in plain form, without any text that also occurs in an evaluation set."""

from __future__ import annotations

import gzip
import json
import random
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

Record = dict[str, Any]

PASSAGE_CHARACTERS = 1600  # of a passage; fits 384 tokens
QUERY_CHARACTERS = 400
CLAIM_CHARACTERS = 600
DEV = 0.03  # share of each set held back: half for early stopping and calibration, half for evaluation
PARTS = ("train", "dev", "held")


def read(file: Path) -> list[Record]:
    """Records of a file of JSON lines, compressed or not."""
    raw = file.read_bytes()
    text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def normalised(text: str) -> str:
    """Reduce a text to words in lower case, so that different spellings of the same text are equal."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def evaluation_texts(folder: Path) -> set[str]:
    """All queries, passages, claims and texts of the evaluation sets, normalised."""
    files = [*folder.glob("*/*/*.jsonl"), *folder.glob("*/*/*.jsonl.gz")]
    fields = ("text", "premise", "hypothesis")
    return {normalised(record[key]) for file in files for record in read(file) for key in fields if record.get(key)}


@lru_cache(maxsize=1 << 18)  # evidence of several claims is asked for again and again
def part_of(text: str) -> str:
    """The part of a text, of `PARTS`. It depends on the text alone, so all records of a text are in the same part."""
    place = random.Random(normalised(text)).random()
    return "held" if place < DEV / 2 else "dev" if place < DEV else "train"


def read_pairs(folder: Path, count: int, seen: set[str], rng: random.Random) -> tuple[list[Record], list[str]]:
    """Read pairs of a set, and a negative passage from up to an eighth as many records."""
    records = read(folder / "pairs.jsonl.gz")
    rng.shuffle(records)
    pairs: list[Record] = []
    further = []
    for record in records:
        query, positive = record["query"].strip()[:QUERY_CHARACTERS], record["positive"].strip()[:PASSAGE_CHARACTERS]
        if query and positive and not {normalised(query), normalised(record["positive"])} & seen:
            pairs.append({"query": query, "positive": positive, "title": record.get("title", "")})
        if len(pairs) == count:
            break
    for record in records[: count // 8]:
        for negative in (record.get("negatives") or ())[:1]:
            if negative.strip() and normalised(negative) not in seen:
                further.append(negative.strip()[:PASSAGE_CHARACTERS])
    print(f"{folder.name}: {len(pairs)} pairs")
    return pairs, further


def read_facts(folder: Path, seen: set[str], rng: random.Random) -> list[Record]:
    """Read all claims with evidence of a set, in random order."""
    records = read(folder / "nli.jsonl.gz")
    rng.shuffle(records)
    kept = []
    for record in records:
        premise, claim = record["premise"].strip()[:PASSAGE_CHARACTERS], record["hypothesis"].strip()
        if premise and 0 < len(claim) < CLAIM_CHARACTERS and not {normalised(premise), normalised(claim)} & seen:
            kept.append({"premise": premise, "hypothesis": claim, "label": record["label"]})
    return kept


def read_texts(folder: Path, seen: set[str], rng: random.Random) -> list[Record]:
    """Read all texts of a label set or of yes/no questions, in random order."""
    names = ("train", "dev", "test", "noul")
    records = [record for name in names if (file := folder / f"{name}.jsonl.gz").is_file() for record in read(file)]
    rng.shuffle(records)
    return [record for record in records if record["text"].strip() and normalised(record["text"]) not in seen]


def read_labels(folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """The labels of a set, and the description of those that have one."""
    described = folder / "label_descriptions.json"
    return (
        json.loads((folder / "labels.json").read_text("utf-8")),
        json.loads(described.read_text("utf-8")) if described.is_file() else {},
    )
