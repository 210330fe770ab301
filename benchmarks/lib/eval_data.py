"""Read evaluation data: collections with judged queries, claims with evidence, texts with labels.

A folder is one set, named like the folder. Its files determine its layout:

    corpus.jsonl.gz {id, title, text}, queries.jsonl {id, text}, qrels*.tsv (query, passage, grade)
    nli.jsonl.gz {premise, hypothesis, label: supported | refuted | nei | ..., split}
    test.jsonl.gz {text, label}, labels.json

Records without legible text are left out, blank passages together with their judgments. Samples are drawn with SEED
and the set's name, so they are the same in every run.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

VARIABLE = "GLICLASS_RERANK_DATA"
SEED = 7
# Sets whose candidates are a query's rows in qrels, including those of grade 0. No first stage is used for them.
RERANKING = ("trec_dl19_bm25top20", "wikiqa", "bfcl_live_multiple")
# File with a collection's judgments: the first of these that exists.
QRELS = ("qrels.tsv", "qrels.test.tsv", "qrels.dev.tsv")
OUT_OF_SCOPE = "out of scope"

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Passage:
    """One document of a collection. Its title may be empty."""

    title: str
    text: str

    @property
    def shown(self) -> str:
        """Text for the rankers: the title, if there is one, a line break and the text."""
        return f"{self.title}\n{self.text}" if self.title.strip() else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A query and the grades of its judged passages, by position in the collection. Above 0 is relevant."""

    text: str
    grades: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Collection:
    """Passages and a sample of the queries that have a relevant one.

    Attributes:
        reranking: whether the candidates are the judged passages of each query.
        total: number of queries that the sample was drawn from.
    """

    name: str
    passages: tuple[Passage, ...]
    queries: tuple[Query, ...]
    reranking: bool
    total: int


@dataclass(frozen=True, slots=True)
class Fact:
    """A claim and its evidence. The label is "supported", "refuted", "nei" or a set's own."""

    premise: str
    claim: str
    label: str


@dataclass(frozen=True, slots=True)
class FactSet:
    """A sample of claims from all splits. ``total`` is the number of claims it was drawn from."""

    name: str
    facts: tuple[Fact, ...]
    total: int


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A sample of the test split. ``total`` is the number of texts it was drawn from.

    Attributes:
        labels: all names, in the file's order.
        gold: the gold label of each text.
    """

    name: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    gold: tuple[str, ...]
    total: int


def data_folder(option: Path | None) -> Path:
    """Return the folder of the option, else of the environment variable. Exit if there is none."""
    named = option or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None:
        raise SystemExit(f"no evaluation data: name its folder with --data or the environment variable {VARIABLE}")
    if not named.is_dir():
        raise SystemExit(f"no evaluation data: {named} is not a folder")
    return named


def set_folders(data: Path, group: str, names: Sequence[str] | None = None) -> list[Path]:
    """Folders of the sets of a group such as "eval/fact", by name. ``data`` may be that folder itself.

    Args:
        data: folder that contains the group, or the group's folder.
        group: path of the group inside the data.
        names: names of the sets, all by default.
    """
    root = data / group if (data / group).is_dir() else data
    found = sorted(path for path in root.iterdir() if layout(path)) if root.is_dir() else []
    missing = set(names or ()) - {path.name for path in found}
    if missing or not found:
        there = ", ".join(path.name for path in found) or "none"
        raise SystemExit(f"no set {', '.join(sorted(missing)) or 'at all'} in {root}; there are: {there}")
    return [path for path in found if not names or path.name in names]


def layout(folder: Path) -> str | None:
    """Layout of a set's folder: "collection", "facts" or "labels", None for any other folder."""
    marks = {"corpus.jsonl.gz": "collection", "nli.jsonl.gz": "facts", "labels.json": "labels"}
    return next((name for file, name in marks.items() if (folder / file).is_file()), None)


def read_collection(folder: Path, at_most: int) -> Collection:
    """Read a collection and at most ``at_most`` of its queries, from test before dev if there are several splits."""
    records = [record for record in read_lines(folder / "corpus.jsonl.gz") if legible(record["title"] + record["text"])]
    position = {record["id"]: i for i, record in enumerate(records)}
    texts = {record["id"]: record["text"] for record in read_lines(folder / "queries.jsonl")}
    grades: dict[str, dict[int, int]] = {}
    with next(folder / name for name in QRELS if (folder / name).is_file()).open(encoding="utf-8") as lines:
        for query, passage, grade in list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]:
            if passage in position:
                grades.setdefault(query, {})[position[passage]] = int(grade)
    queries = [Query(texts[i], judged) for i, judged in grades.items() if max(judged.values()) > 0]
    return Collection(
        folder.name,
        tuple(Passage(record["title"], record["text"]) for record in records),
        tuple(sample(queries, at_most, folder.name)),
        reranking=folder.name in RERANKING,
        total=len(queries),
    )


def read_facts(folder: Path, at_most: int) -> FactSet:
    """Read at most ``at_most`` claims of a set, from all of its splits."""
    facts = [
        Fact(record["premise"], record["hypothesis"], record["label"])
        for record in read_lines(folder / "nli.jsonl.gz")
        if legible(record["premise"]) and legible(record["hypothesis"])
    ]
    return FactSet(folder.name, tuple(sample(facts, at_most, folder.name)), len(facts))


def read_labels(folder: Path, at_most: int) -> LabelSet:
    """Read at most ``at_most`` texts of a set's test split."""
    records = [record for record in read_lines(folder / "test.jsonl.gz") if legible(record["text"])]
    drawn = sample(records, at_most, folder.name)
    return LabelSet(
        folder.name,
        tuple(json.loads((folder / "labels.json").read_text("utf-8"))),
        tuple(record["text"] for record in drawn),
        tuple(record["label"] for record in drawn),
        len(records),
    )


def read_examples(folder: Path, each: int) -> dict[str, tuple[str, ...]]:
    """Read at most ``each`` texts for each label of a set, from its training split."""
    texts: dict[str, list[str]] = {}
    for record in read_lines(folder / "train.jsonl.gz"):
        if legible(record["text"]):
            texts.setdefault(record["label"], []).append(record["text"])
    return {label: tuple(sample(of, each, f"{folder.name} {label}")) for label, of in texts.items()}


def sample(items: Sequence[Item], at_most: int, name: str) -> list[Item]:
    """Draw at most ``at_most`` items without replacement, in their order, the same ones for the same name."""
    drawn = random.Random(f"{SEED} {name}").sample(range(len(items)), min(at_most, len(items)))
    return [items[i] for i in sorted(drawn)]


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file of JSON lines, gzipped or not."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def legible(text: str) -> bool:
    """Whether a text is not blank and holds no character that tokenizers cannot read."""
    return bool(text.strip()) and "\0" not in text
