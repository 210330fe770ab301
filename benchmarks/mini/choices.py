"""Choice records of `mini`: texts with topics, intents, tools and headings, and questions with yes and no.

The sentence encoders are the teacher, since a plain name is all that is known of most labels.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.mini.encoders import Encoders
from benchmarks.mini.sets import Record, normalised, read_labels, read_texts
from gliclass_rerank.types import FloatArray

LABELS = {  # maximum texts per set
    "cooking_tags": 2000, "dstc11_insurance": 913, "hate_offensive": 600, "hwu64": 6000, "metatool": 6000,
    "mmlu_subject": 4000, "sci_citation_intent": 600, "sci_mag": 2500, "sci_sci_cite": 1000, "seal_tools": 2054,
    "sgd_intents": 6000, "slurp": 5000, "stackoverflow20": 4000,
}  # fmt: skip
YES_OR_NO = ("strategyqa", "condaqa_dev")
OPTIONS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 160, 254)  # other labels beside the true ones
ABSENT = 0.15  # share of texts without their true label
TEXT_CHARACTERS = 400  # of a text with labels
LABEL_CHARACTERS = 200
TITLES = 1500  # texts per set with headings as labels
MINILM, E5 = 12.0, 20.0  # logits per unit of cosine


class Similarity:
    """Teacher's logits of labels for a text, from both sentence encoders."""

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode all texts at once."""
        self._encoders.queries(texts)

    def __call__(self, text: str, labels: Sequence[str]) -> FloatArray:
        """Logits up to a constant, float32, shape (labels,)."""
        minilm, e5 = self._encoders.queries([text, *labels])
        logits: FloatArray = MINILM * (minilm[1:] @ minilm[0]) + E5 * (e5[1:] @ e5[0])
        logits -= logits.mean()
        return logits


def labelled(text: str, labels: Sequence[str], true: set[str], logits: Iterable[float]) -> Record:
    """Build a record in upstream's format, with a teacher's logits for its labels."""
    return {
        "text": text,
        "all_labels": list(labels),
        "true_labels": [label for label in labels if label in true],
        "scores": [round(float(value), 2) for value in logits],
    }


def label_set(folder: Path, seen: set[str], rng: random.Random, similar: Similarity) -> Iterator[Record]:
    """Texts of one set, each with its labels among others: by name, by description, or by both."""
    names, descriptions = read_labels(folder)
    forms: list[dict[str, str]] = [{name: spell(name) for name in names}]
    if descriptions:
        both = {name: f"{forms[0][name]}: {descriptions[name]}"[:LABEL_CHARACTERS] for name in descriptions}
        forms += [both, {name: text[:LABEL_CHARACTERS] for name, text in descriptions.items()}]
    records = read_texts(folder, seen, rng)[: LABELS[folder.name]]
    print(f"{folder.name}: {len(records)} texts, {len(names)} labels")
    texts = [record["text"].strip()[:TEXT_CHARACTERS] for record in records]
    similar.prepare([*texts, *(form[name] for form in forms for name in form)])
    for text, record in zip(texts, records, strict=True):
        true = {record["label"]} if "label" in record else set(record["labels"])
        form = {**forms[0], **rng.choice(forms)}
        most = rng.choice(OPTIONS) if rng.random() < 0.6 else rng.choice(OPTIONS[:7])
        if form is not forms[0] and descriptions:
            most = min(most, 48)
        false = [name for name in names if name not in true]
        shown = rng.sample(false, min(len(false), most))
        shown += [] if rng.random() < ABSENT else sorted(name for name in true if name in form)
        labels = list(dict.fromkeys(form[name] for name in rng.sample(shown, len(shown))))
        yield labelled(text, labels, {form[name] for name in shown if name in true}, similar(text, labels))


def yes_or_no(folder: Path, seen: set[str], rng: random.Random) -> Iterator[Record]:
    """Questions about a text, with each answer as a label."""
    for record in read_texts(folder, seen, rng):
        text, question = record["text"].strip(), record["question"].strip()
        labels = [f"{question} Yes", f"{question} No"]
        yield {"text": text, "all_labels": labels, "true_labels": [labels[0 if record["answer"] else 1]]}


def titles(pool: str, pairs: Sequence[Record], rng: random.Random, similar: Similarity) -> Iterator[Record]:
    """Passages and questions with headings as labels, which gives thousands of topics."""
    title_of: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        title = pair["title"].split(">")[-1].strip() if pair["title"] else ""
        if pool.startswith("nq"):
            title = pair["positive"].partition(". ")[0]
        if 2 < len(title) < 60:
            title_of.setdefault(pair["positive"], (title, pair["query"]))
    names = sorted({title for title, _ in title_of.values()})
    if len(names) < 50:
        return
    texts = []
    for passage, (title, query) in rng.sample(sorted(title_of.items()), min(TITLES, len(title_of))):
        text = query if rng.random() < 0.5 else passage.removeprefix(f"{title}. ")[:TEXT_CHARACTERS]
        if text.strip() and normalised(text) != normalised(title):
            texts.append((text, title))
    similar.prepare([*names, *(text for text, _ in texts)])
    for text, title in texts:
        alike = similar(title, names)
        near = [names[i] for i in np.argsort(-alike)[2:20]]
        shown = list(dict.fromkeys([*rng.sample(near, rng.randint(1, 4)), *rng.sample(names, rng.choice(OPTIONS[:9]))]))
        shown = [name for name in shown if normalised(name) != normalised(title)]
        if rng.random() > ABSENT:
            shown.append(title)
        rng.shuffle(shown)
        yield labelled(text, shown, {title}, similar(text, shown))


def spell(name: str) -> str:
    """Spell a label as plain words: split camelCase, snake_case and dashes."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name).strip()
    return words if words.isupper() else words.lower() if " " in words else words
