"""Simulated client traffic: all dialects, jobs and sizes in a fixed mixture, deterministic for a seed.

Questions are the demo's. Passages and claims are texts of Python's documentation, from a line to several windows. Most
requests are rankings as in retrieval: 20 passages mostly, 100 at most.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from gliclass_rerank.demo.collection import load_collection
from gliclass_rerank.demo.questions import load_questions

COUNTS = {1: 5, 5: 15, 10: 20, 20: 40, 50: 15, 100: 5}  # passages per request, with their weights
JOB_PASSAGES = 200
LABELS = ["files and folders", "networks", "text", "numbers", "dates and times", "concurrency", "data formats", "tests"]
ROUTES = {label: f"questions about {label}" for label in LABELS}

Body = dict[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """A request: POST ``body`` as JSON to ``path``. The answer to a job contains the location of its result."""

    name: str
    path: str
    body: Body
    is_job: bool = False


class Traffic:
    """An endless mixture of calls. The same seed gives the same calls."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._queries, self._passages = _texts()

    def next(self) -> Call:
        """Create a call."""
        (make,) = self._rng.choices(list(MIXTURE), list(MIXTURE.values()))
        return make(self)

    def query(self) -> str:
        """Draw one of the demo's questions."""
        return self._rng.choice(self._queries)

    def passages(self, count: int | None = None) -> list[str]:
        """Draw ``count`` passages, or a random count typical of a request."""
        return self._rng.sample(self._passages, count or self._rng.choices(list(COUNTS), list(COUNTS.values()))[0])


@cache
def _texts() -> tuple[list[str], list[str]]:
    return [question.query for question in load_questions()], [passage.text for passage in load_collection()]


def tei(traffic: Traffic) -> Call:
    return Call("TEI /rerank", "/rerank", {"query": traffic.query(), "texts": traffic.passages()})


def cohere(traffic: Traffic) -> Call:
    body: Body = {"model": "rerank-v4", "query": traffic.query(), "documents": traffic.passages(), "top_n": 5}
    return Call("Cohere /v2/rerank", "/v2/rerank", body)


def cohere_spans(traffic: Traffic) -> Call:
    body: Body = {"query": traffic.query(), "documents": traffic.passages(5), "relevant_spans": {"mode": "enabled"}}
    return Call("Cohere spans", "/v2/rerank", body)


def jina(traffic: Traffic) -> Call:
    body: Body = {"query": traffic.query(), "documents": traffic.passages(), "top_n": 10, "return_documents": True}
    return Call("Jina /v1/rerank", "/v1/rerank", body)


def voyage(traffic: Traffic) -> Call:
    return Call("Voyage /rerank", "/rerank", {"query": traffic.query(), "documents": traffic.passages(), "top_k": 5})


def vllm(traffic: Traffic) -> Call:
    return Call("vLLM /score", "/score", {"queries": traffic.query(), "documents": traffic.passages()})


def classify(traffic: Traffic) -> Call:
    return Call("/classify", "/classify", {"texts": traffic.passages(3), "labels": LABELS})


def route(traffic: Traffic) -> Call:
    return Call("/route", "/route", {"query": traffic.query(), "routes": ROUTES})


def check(traffic: Traffic) -> Call:
    evidence = traffic.passages(4)
    return Call("/check", "/check", {"answer": evidence[0][:400], "evidence": evidence})


def logits(traffic: Traffic) -> Call:
    requests = [{"text": text, "labels": [traffic.query()]} for text in traffic.passages(20)]
    return Call("/logits", "/logits", {"requests": requests})


def predict_job(traffic: Traffic) -> Call:
    return Call("job /predict", "/predict", {"inputs": traffic.passages(10), "labels": LABELS}, is_job=True)


def rerank_job(traffic: Traffic) -> Call:
    body: Body = {"query": traffic.query(), "documents": traffic.passages(JOB_PASSAGES)}
    return Call("job /jobs/rerank", "/jobs/rerank", body, is_job=True)


MIXTURE: dict[Callable[[Traffic], Call], float] = {
    tei: 20, cohere: 25, cohere_spans: 2, jina: 15, voyage: 5, vllm: 5, classify: 5, route: 10, check: 5, logits: 5,
    predict_job: 2, rerank_job: 1,
}  # fmt: skip
