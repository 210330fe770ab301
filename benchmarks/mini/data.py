"""Convert public data sets to the training files of `mini`, in the formats of `gliclass-rerank train`.

    python -m benchmarks.mini.data --data DATA --out FOLDER

DATA holds ``train/`` (pairs, fact, labels) and ``eval/`` (retrieval, fact, labels, routing). Training records
whose query, passage or claim also occurs in an evaluation set, as normalised text, are left out.

- ranking: one or several similar queries over the same passages (answers, and results of BM25 and dense retrieval over
  the passages of all sets), with a teacher's logits (`pool.py`). Claims are queries for their evidence. Titles,
  questions and utterances are queries with only a teacher's scores.
- fact: a claim and its evidence. In sets without "not enough info", evidence of a similar claim gives such records.
- claims: evidence with several claims and their negations, some of them about something else.
- labels: texts with topics, intents and headings, the dense cosine as teacher, sometimes without a true label.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib.baselines import SentenceEncoder
from benchmarks.mini.pool import Pool, PoolQuery
from gliclass_rerank.tasks.fact_check.claims import claim_labels
from gliclass_rerank.types import FloatArray

Record = dict[str, Any]

PAIRS = {  # maximum pairs per set: small and varied sets whole, templated and noisy ones in part
    "covid_faq": 400, "covidqa_deepset": 1400, "docs_sections": 6000, "expertqa": 2200, "medquad": 2500,
    "nq_open_oracle": 2700, "policyqa": 600, "pubmedqa": 1000, "qed_dev": 1000, "scitldr": 3100,
    "squadshifts_amazon_reviews": 1000, "squadshifts_new_wiki": 6000, "squadshifts_reddit": 1000,
}  # fmt: skip
CLAIMS = {"fever_dev_rte": 1500, "feverous_dev": 1200, "fool_me_twice": 900}  # claims as queries for their evidence
UNJUDGED = {"sci_mag": 2000, "stackoverflow20": 1000, "mmlu_subject": 1400, "metatool": 600}  # queries without answers
FACTS = {
    "breaking_nli": 800, "cad_nli": 9000, "conjnli": 5000, "fever_dev_rte": 10000, "feverous_dev": 2900,
    "fool_me_twice": 2600, "med_monotonicity": 600, "snli_devtest": 10000,
}  # fmt: skip
YES_OR_NO = ("fever_dev_rte", "feverous_dev", "fool_me_twice")  # get "nei" records from evidence of similar claims
LABELS = {
    "cooking_tags": 2000, "dstc11_insurance": 913, "hate_offensive": 600, "metatool": 5000, "mmlu_subject": 4000,
    "sci_citation_intent": 600, "sci_mag": 2500, "sci_sci_cite": 1000, "slurp": 5000, "stackoverflow20": 4000,
}  # fmt: skip
PASSAGE_CHARACTERS = 1600  # of a passage; fits 384 tokens
TEXT_CHARACTERS = 400  # of a text with labels
TITLES = 1500  # texts per set with headings as labels
TOKENS = 192  # of a text for the dense model
DEV = 0.03  # share of each set held back: half for early stopping and calibration, half for evaluation
PARTS = ("train", "dev", "held")
CALIBRATION = 60  # requests of each kind for the calibration of an int8 export
SCALE = 20.0  # logits per unit of cosine, as in the training of all-MiniLM-L6-v2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    seen = evaluation_texts(options.data / "eval")
    train = options.data / "train"
    rng = random.Random(0)
    dense = Dense()
    read_sets = {name: read_pairs(train / "pairs" / name, PAIRS[name], seen, rng) for name in PAIRS}
    pairs = {name: rows for name, (rows, _) in read_sets.items()}
    further = [passage for _, passages in read_sets.values() for passage in passages]
    pool = ranking_pool(train, pairs, further, seen, rng, dense)
    print(f"teacher: {pool.teacher}")
    write_ranking(options.out, pool)
    write(options.out, "fact", {name: facts(train / "fact" / name, FACTS[name], seen, rng, dense) for name in FACTS})
    for part in PARTS:
        claims = several_claims(read(options.out / f"fact.{part}.jsonl"), random.Random("claims"))
        save(options.out / f"claims.{part}.jsonl", list(claims))
    rng = random.Random("labels")
    labels = {name: label_set(train / "labels" / name, LABELS[name], seen, rng, dense) for name in LABELS}
    titled = {f"{name} titles": titles(name, rows, rng, dense) for name, rows in pairs.items()}
    write(options.out, "labels", labels | titled)
    save(options.out / "requests.jsonl", list(requests(options.out)))


def read(file: Path) -> list[Record]:
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


class Dense:
    """all-MiniLM-L6-v2 with a cache, so that each text is encoded once."""

    def __init__(self) -> None:
        self._encoder = SentenceEncoder(max_tokens=TOKENS)
        self._known: dict[str, FloatArray] = {}

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of length one, float32, shape (texts, 384)."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known |= zip(new, self._encoder.encode(new, "mini"), strict=True)
        return np.stack([self._known[text] for text in texts])


def read_pairs(folder: Path, count: int, seen: set[str], rng: random.Random) -> tuple[list[Record], list[str]]:
    """Read pairs of a set, and a negative passage from up to half as many records."""
    records = read(folder / "pairs.jsonl.gz")
    rng.shuffle(records)
    pairs: list[Record] = []
    further = []
    for record in records:
        query, positive = record["query"].strip()[:400], record["positive"].strip()[:PASSAGE_CHARACTERS]
        if query and positive and not {normalised(query), normalised(record["positive"])} & seen:
            pairs.append({"query": query, "positive": positive, "title": record.get("title", "")})
        if len(pairs) == count:
            break
    for record in records[: count // 2]:
        for negative in (record.get("negatives") or ())[:1]:
            if negative.strip() and normalised(negative) not in seen:
                further.append(negative.strip()[:PASSAGE_CHARACTERS])
    print(f"{folder.name}: {len(pairs)} pairs")
    return pairs, further


def ranking_pool(
    train: Path,
    pairs: Mapping[str, Sequence[Record]],
    further: Sequence[str],
    seen: set[str],
    rng: random.Random,
    dense: Dense,
) -> Pool:
    """Passages and queries of all sets: questions with answers, claims with evidence, and queries without judgments."""
    answered = {name: [(pair["query"], pair["positive"]) for pair in rows] for name, rows in pairs.items()}
    for name, count in CLAIMS.items():
        found = read_facts(train / "fact" / name, seen, rng)
        told = [fact for fact in found if fact["label"] != "nei" and part_of(fact) == "train"][:count]
        answered[name] = [(fact["hypothesis"], fact["premise"]) for fact in told]
    passages = dict.fromkeys([*(passage for rows in answered.values() for _, passage in rows), *further])
    place = {passage: i for i, passage in enumerate(passages)}
    gold: dict[str, tuple[str, set[int]]] = {}
    for name, rows in answered.items():
        for query, passage in rows:
            gold.setdefault(query, (name, set()))[1].add(place[passage])
    for name, count in UNJUDGED.items():
        for record in read_texts(train / "labels" / name, seen, rng)[:count]:
            gold.setdefault(record["text"].strip()[:TEXT_CHARACTERS], (name, set()))
    print(f"{len(gold)} queries over {len(passages)} passages")
    queries = [PoolQuery(text, name, frozenset(found)) for text, (name, found) in gold.items()]
    return Pool(list(passages), queries, dense)


def write_ranking(folder: Path, pool: Pool) -> None:
    """Write pools of similar queries for training, and one list per query for evaluation."""
    rng = random.Random("ranking")
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for q, query in enumerate(pool.queries):
        parts[part_of({"query": query.text})].append(q)
    save(folder / "ranking.train.jsonl", list(pool.pools(parts["train"], rng)))
    for part in PARTS[1:]:
        save(folder / f"ranking.{part}.jsonl", list(pool.lists(rng.sample(parts[part], len(parts[part])), rng)))


def labelled(text: str, labels: Sequence[str], true: set[str], cosine: Iterable[float]) -> Record:
    """Build a record in upstream's format, with a teacher's logits for its labels."""
    return {
        "text": text,
        "all_labels": list(labels),
        "true_labels": [label for label in labels if label in true],
        "scores": [round(SCALE * float(value), 2) for value in cosine],
    }


def read_facts(folder: Path, seen: set[str], rng: random.Random) -> list[Record]:
    """Read all claims with evidence of a set, in random order."""
    records = read(folder / "nli.jsonl.gz")
    rng.shuffle(records)
    kept = []
    for record in records:
        premise, claim = record["premise"].strip()[:PASSAGE_CHARACTERS], record["hypothesis"].strip()
        if premise and 0 < len(claim) < 600 and not {normalised(premise), normalised(claim)} & seen:
            kept.append({"premise": premise, "hypothesis": claim, "label": record["label"]})
    return kept


def facts(folder: Path, count: int, seen: set[str], rng: random.Random, dense: Dense) -> Iterator[Record]:
    """Claims with evidence. In sets without "nei", some claims also get the evidence of a similar claim as "nei".

    ``count`` limits the training part. All records of the other parts are kept, since rates need many records.
    """
    every = read_facts(folder, seen, rng)
    train = [record for record in every if part_of(record) == "train"][:count]
    kept = train + [record for record in every if part_of(record) != "train"]
    rng.shuffle(kept)
    print(f"{folder.name}: {len(kept)} claims")
    if folder.name in YES_OR_NO:
        vectors = dense([record["hypothesis"] for record in kept])
        for i in rng.sample(range(len(kept)), len(kept) // 3):
            cosine = vectors @ vectors[i]
            near = [j for j in np.argsort(-cosine)[1:12] if cosine[j] < 0.8]
            if others := [premise for j in near if (premise := kept[j]["premise"]) != kept[i]["premise"]]:
                kept.append({"premise": rng.choice(others), "hypothesis": kept[i]["hypothesis"], "label": "nei"})
        rng.shuffle(kept)
    yield from kept


def several_claims(facts: Sequence[Record], rng: random.Random) -> Iterator[Record]:
    """Combine evidence with all its claims and their negations, and with claims about something else."""
    by_premise: dict[str, list[Record]] = {}
    for fact in facts:
        by_premise.setdefault(fact["premise"], []).append(fact)
    for premise, own in by_premise.items():
        strangers = [{**fact, "label": "nei"} for fact in rng.sample(facts, rng.randint(0 if len(own) > 1 else 1, 2))]
        chosen = own[:4] + [fact for fact in strangers if fact["premise"] != premise]
        shown, true = [], []
        for fact in chosen:
            labels = claim_labels(fact["hypothesis"])
            shown += [label for label in labels if label not in shown]
            true += [label for label, of in zip(labels, ("supported", "refuted"), strict=True) if fact["label"] == of]
        yield {"text": premise, "all_labels": shown, "true_labels": true}


def label_set(folder: Path, count: int, seen: set[str], rng: random.Random, dense: Dense) -> Iterator[Record]:
    names = json.loads((folder / "labels.json").read_text("utf-8"))
    spelled = {name: spell(name) for name in names}
    described = folder / "label_descriptions.json"
    descriptions = json.loads(described.read_text("utf-8")) if described.is_file() else {}
    records = read_texts(folder, seen, rng)[:count]
    print(f"{folder.name}: {len(records)} texts, {len(names)} labels")
    dense([record["text"].strip()[:TEXT_CHARACTERS] for record in records])  # encode all at once
    for record in records:
        true = {record["label"]} if "label" in record else set(record["labels"])
        others = rng.sample(
            [name for name in names if name not in true], min(len(names) - len(true), rng.choice((2, 4, 8, 16, 30)))
        )
        shown = others + ([] if rng.random() < 0.15 and others else sorted(true))
        rng.shuffle(shown)
        described_too = bool(descriptions) and rng.random() < 0.5
        text_of = {
            n: f"{spelled[n]}: {descriptions[n]}"[:200] if described_too and n in descriptions else spelled[n]
            for n in shown
        }
        text, labels = record["text"].strip()[:TEXT_CHARACTERS], [text_of[name] for name in shown]
        cosine = dense(labels) @ dense([text])[0]
        yield labelled(text, labels, {text_of[name] for name in shown if name in true}, cosine)


def read_texts(folder: Path, seen: set[str], rng: random.Random) -> list[Record]:
    """Read all texts with labels of a set, in random order."""
    files = [file for part in ("train", "dev", "test") if (file := folder / f"{part}.jsonl.gz").is_file()]
    records = [record for file in files for record in read(file)]
    rng.shuffle(records)
    return [record for record in records if record["text"].strip() and normalised(record["text"]) not in seen]


def spell(name: str) -> str:
    """Spell a label as plain words: split camelCase, snake_case and dashes."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name).strip()
    return words if words.isupper() else words.lower() if " " in words else words


def titles(pool: str, pairs: Sequence[Record], rng: random.Random, dense: Dense) -> Iterator[Record]:
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
    vectors = dense(names)
    texts = []
    for passage, (title, query) in rng.sample(sorted(title_of.items()), min(TITLES, len(title_of))):
        text = query if rng.random() < 0.5 else passage.removeprefix(f"{title}. ")[:TEXT_CHARACTERS]
        if text.strip() and normalised(text) != normalised(title):
            texts.append((text, title))
    dense([text for text, _ in texts])  # encode all at once
    for text, title in texts:
        cosine = vectors @ dense([title])[0]
        near = [names[i] for i in np.argsort(-cosine)[1:20] if cosine[i] < 0.9]
        far = rng.sample(names, rng.choice((2, 4, 8, 16)))
        shown = list(dict.fromkeys([*rng.sample(near, rng.randint(1, 3)), *far]))
        shown = [name for name in shown if normalised(name) != normalised(title)]
        if rng.random() > 0.15:
            shown.append(title)
        rng.shuffle(shown)
        yield labelled(text, shown, {title}, dense(shown) @ dense([text])[0])


def write(folder: Path, kind: str, sets: dict[str, Iterator[Record]]) -> None:
    """Write ``kind.PART.jsonl`` for each part, in random order. All records of a query or text are in the same part."""
    rng = random.Random(kind)
    parts: dict[str, list[Record]] = {part: [] for part in PARTS}
    for records in sets.values():
        for record in records:
            parts[part_of(record)].append(record)
    for part, chosen in parts.items():
        rng.shuffle(chosen)
        save(folder / f"{kind}.{part}.jsonl", chosen)


def part_of(record: Record) -> str:
    place = random.Random(normalised(record.get("query") or record.get("premise") or record["text"])).random()
    return "held" if place < DEV / 2 else "dev" if place < DEV else "train"


def requests(folder: Path) -> Iterator[Record]:
    """Requests of every kind for `gliclass-rerank export --calibration`."""
    for kind in ("ranking", "fact", "claims", "labels"):
        for record in read(folder / f"{kind}.train.jsonl")[:CALIBRATION]:
            if "queries" in record:
                yield {"text": record["passages"][0], "labels": record["queries"]}
            elif "premise" in record:
                yield {"text": record["premise"], "labels": list(claim_labels(record["hypothesis"]))}
            else:
                yield {"text": record["text"], "labels": record["all_labels"]}


def save(file: Path, records: Sequence[Record]) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    print(f"{file.name}: {len(records)}")


if __name__ == "__main__":
    main()
