"""Convert public data sets to the training files of `mini`, in the formats of `gliclass-rerank train`.

    python -m benchmarks.mini.data --data DATA --out FOLDER

DATA holds ``train/`` (pairs, fact, labels, decisions) and ``eval/`` (retrieval, fact, labels, routing). Training
records whose query, passage or claim also occurs in an evaluation set, as normalised text, are left out.

- ranking (`pool.py`): one or several similar queries over the same passages, with a teacher's logits (`teacher.py`).
- claims (`facts.py`): evidence with several claims and their denials; fact: one claim a record, for evaluation.
- labels (`choices.py`): texts with topics, intents, tools, headings, or the answers to a question.
- texts: queries, which are read as texts to learn their vectors.
- vectors.npz: the teacher's vectors of all texts, by hash.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.mini.choices import LABELS, YES_OR_NO, Similarity, label_set, titles, yes_or_no
from benchmarks.mini.claims.facts import FACTS, facts, from_passages, several_claims
from benchmarks.mini.claims.plain import plain_claims
from benchmarks.mini.encoders import Encoders
from benchmarks.mini.pool import Pool
from benchmarks.mini.sets import (
    PARTS,
    QUERY_CHARACTERS,
    Record,
    evaluation_texts,
    part_of,
    read,
    read_facts,
    read_pairs,
    read_texts,
)
from benchmarks.mini.teacher import PoolQuery, Teacher
from gliclass_rerank.tasks.fact_check.claims import claim_labels
from gliclass_rerank.training.data.vectors import save_vectors

PAIRS = {  # maximum pairs per set: small and varied sets whole, templated and noisy ones in part
    "covid_faq": 400, "covidqa_deepset": 1400, "docs_sections": 4500, "expertqa": 2200, "medquad": 2500,
    "nq_open_oracle": 2700, "policyqa": 600, "pubmedqa": 1000, "qed_dev": 1000, "scitldr": 2400,
    "squadshifts_amazon_reviews": 700, "squadshifts_new_wiki": 4000, "squadshifts_reddit": 700,
}  # fmt: skip
CLAIMS = {"fever_dev_rte": 1500, "feverous_dev": 1200, "fool_me_twice": 900}  # claims as queries for their evidence
UNJUDGED = {"sci_mag": 2000, "stackoverflow20": 1000, "mmlu_subject": 1400, "metatool": 600}  # queries without answers
CALIBRATION = 60  # requests of each kind for the calibration of an int8 export
PLAIN = 16_000  # records of plain statements for training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out, train = options.out, options.data / "train"
    out.mkdir(parents=True, exist_ok=True)
    seen = evaluation_texts(options.data / "eval")
    rng = random.Random(0)
    encoders = Encoders(out.parent / "vectors")
    read_sets = {name: read_pairs(train / "pairs" / name, PAIRS[name], seen, rng) for name in PAIRS}
    pairs = {name: rows for name, (rows, _) in read_sets.items()}
    further = [passage for _, passages in read_sets.values() for passage in passages]
    passages, queries = pool_texts(train, pairs, further, seen, rng)
    teacher = Teacher(passages, queries, encoders)
    print(f"teacher: {teacher}")
    write_ranking(out, Pool(passages, queries, teacher))
    write_facts(out, train, passages, seen, rng, encoders)
    rng, similar = random.Random("labels"), Similarity(encoders)
    labels = {name: label_set(train / "labels" / name, seen, rng, similar) for name in LABELS}
    titled = {f"{name} titles": titles(name, rows, rng, similar) for name, rows in pairs.items()}
    asked = {name: yes_or_no(train / "decisions" / name, seen, rng) for name in YES_OR_NO}
    write(out, "labels", labels | titled | asked)
    write_vectors(out, teacher, passages, queries)
    save(out / "requests.jsonl", list(requests(out)))


def pool_texts(
    train: Path, pairs: Mapping[str, Sequence[Record]], further: Sequence[str], seen: set[str], rng: random.Random
) -> tuple[list[str], list[PoolQuery]]:
    """Passages and queries of all sets: questions with answers, claims with evidence, and queries without judgments."""
    answered = {name: [(pair["query"], pair["positive"]) for pair in rows] for name, rows in pairs.items()}
    for name, count in CLAIMS.items():
        found = read_facts(train / "fact" / name, seen, rng)
        told = [fact for fact in found if fact["label"] != "nei" and part_of(fact["premise"]) == "train"][:count]
        answered[name] = [(fact["hypothesis"], fact["premise"]) for fact in told]
    passages = dict.fromkeys([*(passage for rows in answered.values() for _, passage in rows), *further])
    place = {passage: i for i, passage in enumerate(passages)}
    gold: dict[str, tuple[str, set[int]]] = {}
    for name, rows in answered.items():
        for query, passage in rows:
            gold.setdefault(query, (name, set()))[1].add(place[passage])
    for name, count in UNJUDGED.items():
        for record in read_texts(train / "labels" / name, seen, rng)[:count]:
            gold.setdefault(record["text"].strip()[:QUERY_CHARACTERS], (name, set()))
    print(f"{len(gold)} queries over {len(passages)} passages")
    return list(passages), [PoolQuery(text, name, frozenset(found)) for text, (name, found) in gold.items()]


def write_ranking(folder: Path, pool: Pool) -> None:
    """Write pools of similar queries for training, and one list per query for evaluation."""
    rng = random.Random("ranking")
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for q, query in enumerate(pool.queries):
        parts[part_of(query.text)].append(q)
    save(folder / "ranking.train.jsonl", list(pool.pools(parts["train"], rng)))
    save(folder / "texts.train.jsonl", [{"text": pool.queries[q].text} for q in parts["train"]])
    for part in PARTS[1:]:
        save(folder / f"ranking.{part}.jsonl", list(pool.lists(rng.sample(parts[part], len(parts[part])), rng)))


def write_facts(
    folder: Path, train: Path, passages: Sequence[str], seen: set[str], rng: random.Random, encoders: Encoders
) -> None:
    """Write claims with their evidence, one by one and several together, and claims made from passages."""
    found = [record for name in FACTS for record in facts(train / "fact" / name, seen, rng, encoders.minilm)]
    rng.shuffle(found)
    in_part: dict[str, list[Record]] = {part: [] for part in PARTS}
    for record in found:
        in_part[part_of(record["premise"])].append(record)
    for part, chosen in in_part.items():
        save(folder / f"fact.{part}.jsonl", chosen)
        save(folder / f"claims.{part}.jsonl", shuffled(several_claims(chosen, random.Random("claims"))))
        own = [passage for passage in passages if part_of(passage) == part]
        save(folder / f"changed.{part}.jsonl", shuffled(from_passages(own, random.Random("changed"))))
        count = PLAIN if part == "train" else PLAIN // 50
        save(folder / f"plain.{part}.jsonl", list(plain_claims(count, random.Random(f"plain {part}"))))


def write(folder: Path, kind: str, sets: Mapping[str, Iterator[Record]]) -> None:
    """Write ``kind.PART.jsonl`` for each part, in random order."""
    parts: dict[str, list[Record]] = {part: [] for part in PARTS}
    for records in sets.values():
        for record in records:
            parts[part_of(record["text"])].append(record)
    for part, chosen in parts.items():
        save(folder / f"{kind}.{part}.jsonl", shuffled(chosen))


def write_vectors(folder: Path, teacher: Teacher, passages: Sequence[str], queries: Sequence[PoolQuery]) -> None:
    """Write the target vectors of all passages and queries."""
    of_passages, of_queries = teacher.vectors()
    texts = [*passages, *(query.text for query in queries)]
    save_vectors(folder / "vectors.npz", texts, np.concatenate([of_passages, of_queries]))


def requests(folder: Path) -> Iterator[Record]:
    """Requests of every kind for `gliclass-rerank export --calibration`."""
    for kind in ("ranking", "fact", "claims", "changed", "labels"):
        for record in read(folder / f"{kind}.train.jsonl")[:CALIBRATION]:
            if "queries" in record:
                yield {"text": record["passages"][0], "labels": record["queries"]}
            elif "premise" in record:
                yield {"text": record["premise"], "labels": list(claim_labels(record["hypothesis"]))}
            else:
                yield {"text": record["text"], "labels": record["all_labels"]}


def shuffled(records: Iterable[Record]) -> list[Record]:
    kept = list(records)
    random.Random("order").shuffle(kept)
    return kept


def save(file: Path, records: Sequence[Record]) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    print(f"{file.name}: {len(records)}", flush=True)


if __name__ == "__main__":
    main()
