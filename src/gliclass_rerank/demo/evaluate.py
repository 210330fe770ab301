"""The demo: a first stage over Python's documentation and its reranking, both measured against judged answers."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from gliclass_rerank.demo.collection import Passage, load_collection
from gliclass_rerank.demo.first_stage import Candidates, FirstStage
from gliclass_rerank.demo.questions import Judged, Question, judge, load_questions
from gliclass_rerank.metrics.ranking import ndcg_at, reciprocal_rank_at
from gliclass_rerank.tasks.rerank import DEFAULT_WEIGHT, Reranker
from gliclass_rerank.types import ModelInfo, Ranked, Scorer

CUTOFF = 10
CANDIDATES = 30  # per question; all questions take about half a minute on two cores


@dataclass(frozen=True, slots=True)
class Task:
    """The collection, the questions it can answer, and the first stage's results for each of them."""

    passages: tuple[Passage, ...]
    judged: Judged
    found: tuple[Candidates, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question's candidates in three orders, as positions in the collection.

    Attributes:
        before: order of the first stage.
        after: by the model's logits fused with the first stage's scores.
        alone: by the model's logits alone.
    """

    question: Question
    before: tuple[int, ...]
    after: tuple[int, ...]
    alone: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over questions, each in [0, 1]."""

    ndcg: float
    mrr: float

    def as_dict(self) -> dict[str, float]:
        """Return the metrics under their names in the command line's JSON."""
        return {f"ndcg@{CUTOFF}": self.ndcg, f"mrr@{CUTOFF}": self.mrr}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Quality of the three orders over some questions."""

    queries: int
    before: Quality
    after: Quality
    alone: Quality

    def as_dict(self) -> dict[str, object]:
        """Return the comparison as in the command line's JSON."""
        orders = {"before": self.before, "after": self.after, "alone": self.alone}
        return {"queries": self.queries} | {name: quality.as_dict() for name, quality in orders.items()}


@dataclass(slots=True)
class Stopwatch:
    """Wall time of named stages, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a ``with`` block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Results of the demo.

    Attributes:
        candidates: passages reranked for each question.
        first_stage_weight: logits per standard deviation of the first stage's scores.
        seconds: wall time of "collection", "first_stage", "rerank", and "rerank_per_query".
    """

    collection: str
    task: Task
    outcomes: tuple[Outcome, ...]
    overall: Comparison
    held_out: Comparison
    model: ModelInfo
    candidates: int
    first_stage_weight: float
    seconds: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """Return the report as in the command line's JSON."""
        judged = self.task.judged
        return {
            "collection": self.collection,
            "passages": len(self.task.passages),
            **self.overall.as_dict(),
            "held_out": self.held_out.as_dict(),
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "model": self.model.name,
            "model_info": asdict(self.model),
            "candidates": self.candidates,
            "first_stage_weight": self.first_stage_weight,
            "missing_names": list(judged.missing_names),
            "dropped_questions": list(judged.dropped_questions),
        }


def run_demo(
    scorer: Scorer,
    *,
    candidates: int = CANDIDATES,
    first_stage_weight: float | None = None,
    cache_dir: Path | None = None,
) -> DemoReport:
    """Search, rerank and measure, without any download.

    Args:
        scorer: the model.
        candidates: how many passages the first stage returns for each question, > 0.
        first_stage_weight: weight of the first stage's scores. The model's own by default.
        cache_dir: folder that caches the collection between runs. The user's cache by default.
    """
    if first_stage_weight is None:
        fitted = scorer.info.first_stage_weight
        first_stage_weight = DEFAULT_WEIGHT if fitted is None else fitted
    watch = Stopwatch()
    task = prepare(candidates, cache_dir=cache_dir, watch=watch)
    with watch.stage("rerank"):
        outcomes = rerank(task, scorer, first_stage_weight)
    watch.seconds["rerank_per_query"] = watch.seconds["rerank"] / max(1, len(outcomes))
    return DemoReport(
        collection=f"documentation of Python {platform.python_version()}",
        task=task,
        outcomes=outcomes,
        overall=compare(task, outcomes),
        held_out=compare(task, [outcome for outcome in outcomes if outcome.question.split == "held_out"]),
        model=scorer.info,
        candidates=candidates,
        first_stage_weight=first_stage_weight,
        seconds=watch.seconds,
    )


def prepare(candidates: int, *, cache_dir: Path | None = None, watch: Stopwatch | None = None) -> Task:
    """Load the collection and the questions, and retrieve each question's candidates."""
    watch = watch or Stopwatch()
    with watch.stage("collection"):
        passages = tuple(load_collection(cache_dir))
    judged = judge(load_questions(), {passage.name for passage in passages})
    with watch.stage("first_stage"):
        first_stage = FirstStage([passage.text for passage in passages])
        found = tuple(first_stage.candidates(question.query, candidates) for question in judged.questions)
    return Task(passages, judged, found)


def rerank(task: Task, scorer: Scorer, first_stage_weight: float) -> tuple[Outcome, ...]:
    """Order each question's candidates, all questions in one batch."""
    pairs = [
        (question.query, [shown_to_model(task.passages[i]) for i in hits.indices])
        for question, hits in zip(task.judged.questions, task.found, strict=True)
    ]
    priors = [hits.scores for hits in task.found]
    rankings = Reranker(scorer).rank_many(pairs, first_stage_scores=priors, first_stage_weight=first_stage_weight)
    return tuple(
        Outcome(
            question=question,
            before=hits.indices,
            after=tuple(hits.indices[ranked.index] for ranked in ranking),
            alone=tuple(hits.indices[ranked.index] for ranked in sorted(ranking, key=_by_logit)),
        )
        for question, hits, ranking in zip(task.judged.questions, task.found, rankings, strict=True)
    )


def shown_to_model(passage: Passage) -> str:
    """Text of a passage for the reranker: its name and the first paragraph of its docstring.

    The summary states the purpose of an object. Signatures and details dilute it. Chosen on the questions of the split
    "tune".
    """
    docstring = passage.text.partition("\n")[2] or passage.text
    return f"{passage.name}: {docstring.split(chr(10) * 2)[0]}"


def compare(task: Task, outcomes: Sequence[Outcome]) -> Comparison:
    """Mean quality of the three orders over some questions."""

    def quality(order: Callable[[Outcome], tuple[int, ...]]) -> Quality:
        ndcgs = [ndcg_of(task, outcome, order(outcome)) for outcome in outcomes]
        mrrs = [reciprocal_rank_at(CUTOFF, grades(task, outcome, order(outcome))) for outcome in outcomes]
        return Quality(fmean(ndcgs or [0.0]), fmean(mrrs or [0.0]))

    return Comparison(
        queries=len(outcomes),
        before=quality(lambda outcome: outcome.before),
        after=quality(lambda outcome: outcome.after),
        alone=quality(lambda outcome: outcome.alone),
    )


def ndcg_of(task: Task, outcome: Outcome, order: Sequence[int]) -> float:
    """Return the nDCG of one order of a question's candidates, in [0, 1]."""
    return ndcg_at(CUTOFF, grades(task, outcome, order), list(outcome.question.relevant.values()))


def grades(task: Task, outcome: Outcome, order: Sequence[int]) -> list[int]:
    """Grades of the passages of an order, best first, 0 for passages without a judgment."""
    return [outcome.question.relevant.get(task.passages[i].name, 0) for i in order]


def _by_logit(ranked: Ranked) -> tuple[float, int]:
    return -ranked.logit, ranked.index
