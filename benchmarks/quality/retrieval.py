"""Measure the gain of reranking over a first stage, on collections that are not in the model's training data.

    gliclass-rerank bench retrieval --data DATA/eval/retrieval [--sets scifact,cosqa] [--model mini --model FOLDER]
    gliclass-rerank bench retrieval --data DATA/eval/retrieval --cross-encoder FOLDER --cache FOLDER

BM25 finds the candidates of each query, and every contestant orders exactly these. The contestants are BM25 itself,
all-MiniLM-L6-v2 by cosine, the two fused by reciprocal ranks, each model alone, each model with BM25's first-stage
scores (the weight is the model's own), the vectors of each model that embeds, and cross-encoders. If a set has its own
candidates, they replace BM25's, and BM25 only scores them. Seconds are those of the model. Its ranking with BM25 uses
the same logits and has the same time. A model with independent labels reads a passage once for all queries. Intervals
are of 95%, by bootstrap over the queries.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import ir_measures
import numpy as np
import torch
from ir_measures import AP, RR, R, nDCG
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.lib.baselines import BM25, DENSE, STEMMER, SentenceEncoder
from benchmarks.lib.eval_data import SEED, Collection, data_folder, read_collection, set_folders
from benchmarks.lib.machine import cpu
from benchmarks.lib.measures import mean_interval, permutation_p
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from benchmarks.quality.first_stage_weight import RememberingScorer
from gliclass_rerank import MissingExtraError, Reranker, Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scoring import embed

RRF_K = 60  # Cormack, Clarke and Büttcher 2009
BM25_NAME, HYBRID = "BM25", "hybrid"
FIRST_STAGES = (BM25_NAME, DENSE, HYBRID)
CUTOFF = 10
WHOLE = ("scifact",)  # sets of which all queries are taken
PASSAGE_CACHE = "8GB"  # holds the candidates of all queries of a set
MAIN = f"ndcg@{CUTOFF}"
MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Case:
    """A query and its candidates, in BM25's order.

    Attributes:
        candidates: positions in the collection.
        passages: the candidates' texts.
        bm25: float32 scores, shape (candidates,), the best first.
        grades: of the query's judged passages, by position in the collection.
    """

    query: str
    candidates: tuple[int, ...]
    passages: tuple[str, ...]
    bm25: NDArray[np.float32]
    grades: Mapping[int, int]


Order = Sequence[int]
"""Positions among a case's candidates, the best first."""
Contestant = Callable[[Case], Mapping[str, Order]]
"""Function from a case to its orders, by name."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one order on one set.

    Attributes:
        measures: one value per query, in [0, 1], by metric.
        seconds: a reranker's time for all queries, None for a first stage.
        passages: number of ranked passages.
    """

    measures: Mapping[str, list[float]]
    seconds: float | None
    passages: int


Results = Mapping[str, Mapping[str, Outcome]]
"""By contestant, then by set."""
Row = dict[str, float | None]
"""Numbers by metric."""


def main() -> None:
    options = parse_options()
    folders = set_folders(data_folder(options.data), "eval/retrieval", options.sets)
    torch.set_num_threads(options.threads)
    models = load_models(options.model or ["mini"], options.threads, passage_cache=PASSAGE_CACHE)
    rerankers = [by_model(name, scorer) for name, scorer in models.items()]
    rerankers += [by_vectors(name, scorer) for name, scorer in models.items() if scorer.info.embeds]
    rerankers += [by_cross_encoder(folder) for folder in options.cross_encoder]
    encoder = None if options.no_dense else SentenceEncoder(options.cache)
    sets: dict[str, object] = {}
    results: dict[str, dict[str, Outcome]] = {}
    for folder in folders:
        collection = read_collection(folder, sys.maxsize if folder.name in WHOLE else options.queries)
        cases = find_candidates(collection, options.depth)
        sets[collection.name] = described(collection, options.depth)
        first_stage = by_first_stage(cases, encoder, collection.name)
        with progress(collection.name, len(cases) * len(rerankers)) as advance:
            for contestant in (first_stage, *rerankers):
                counted = None if contestant is first_stage else advance
                for name, outcome in compete(contestant, cases, options.depth, counted).items():
                    results.setdefault(name, {})[collection.name] = outcome
    summary = {name: averages(outcomes) for name, outcomes in results.items()}
    compared = comparisons(results)
    show(summary, compared)
    if options.no_write:
        return
    report: dict[str, Any] = header(models) | {"threads": options.threads, "depth": options.depth, "seed": SEED}
    report |= {"bm25": {"k1": 1.5, "b": 0.75, "stopwords": "en", "stemmer": STEMMER}, "sets": sets}
    report |= {"results": summary, "intervals": intervals(results), "compared": compared}
    report[f"{MAIN} of each query"] = {
        name: {of: [round(value, 4) for value in outcome.measures[MAIN]] for of, outcome in outcomes.items()}
        for name, outcomes in results.items()
    }
    file = write(report, "retrieval", options.out)
    title = f"up to {options.queries} queries a set, {options.depth} candidates, {cpu()}"
    bars = {name: column(row) for name, row in summary.items()}
    draw_bars(bars, "nDCG@10", title, file.with_suffix(".png"), report["intervals"])


def parse_options() -> argparse.Namespace:
    parser = evaluation_parser(__doc__)
    parser.add_argument("--queries", type=int, default=100, help="maximum per set; 100 by default")
    parser.add_argument("--depth", type=int, default=100, help="candidates per query; 100 by default")
    parser.add_argument("--cross-encoder", action="append", default=[], type=Path, help="folder; may be repeated")
    return parser.parse_args()


def described(collection: Collection, depth: int) -> dict[str, object]:
    return {
        "queries": len(collection.queries),
        "of": collection.total,
        "passages": len(collection.passages),
        "candidates": "the set's own" if collection.reranking else f"BM25's first {depth}",
    }


def find_candidates(collection: Collection, depth: int) -> list[Case]:
    """A case for each query: its judged passages in a reranking set, else the ``depth`` best of BM25."""
    texts = [passage.shown for passage in collection.passages]
    bm25 = BM25(texts)
    cases = []
    for query in collection.queries:
        scores = bm25.scores(query.text)
        pool = np.array(list(query.grades)) if collection.reranking else np.arange(len(texts))
        found = pool[np.argsort(-scores[pool], kind="stable")][: None if collection.reranking else depth]
        passages = tuple(texts[i] for i in found)
        cases.append(Case(query.text, tuple(found.tolist()), passages, scores[found], query.grades))
    return cases


def by_first_stage(cases: Sequence[Case], encoder: SentenceEncoder | None, name: str) -> Contestant:
    """Create a contestant for BM25, with an encoder also cosine and fusion. ``name`` is the set's, for the cache."""
    vectors = {}
    if encoder:
        texts = list(dict.fromkeys(text for case in cases for text in (case.query, *case.passages)))
        vectors = dict(zip(texts, encoder.encode(texts, name), strict=True))

    def orders(case: Case) -> dict[str, Order]:
        by_bm25 = range(len(case.passages))
        if not vectors:
            return {BM25_NAME: by_bm25}
        by_cosine = best_first(np.stack([vectors[text] for text in case.passages]) @ vectors[case.query])
        hybrid = best_first(reciprocal_rank_fusion([by_bm25, by_cosine]))
        return {BM25_NAME: by_bm25, DENSE: by_cosine, HYBRID: hybrid}

    return orders


def by_model(name: str, scorer: Scorer) -> Contestant:
    """Create a contestant for a model alone and with BM25's first-stage scores, from the same logits."""

    def orders(case: Case) -> dict[str, Order]:
        reranker = Reranker(RememberingScorer(scorer))
        alone = reranker.rank(case.query, case.passages)
        together = reranker.rank(case.query, case.passages, first_stage_scores=case.bm25)
        return {name: [hit.index for hit in alone], f"{name} + BM25": [hit.index for hit in together]}

    return orders


def by_vectors(name: str, scorer: Scorer) -> Contestant:
    """Create a contestant for the cosines of a model's vectors."""

    def orders(case: Case) -> dict[str, Order]:
        query, *passages = embed(scorer, (case.query, *case.passages))
        return {f"{name}, vectors": best_first(np.stack(passages) @ query)}

    return orders


def by_cross_encoder(folder: Path) -> Contestant:
    """Create a contestant for a sentence-transformers cross-encoder, in batches of 32 and cut at its own length."""
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise MissingExtraError("bench", "a cross-encoder (sentence-transformers)") from error
    model = CrossEncoder(str(folder))

    def orders(case: Case) -> dict[str, Order]:
        scores = model.predict([(case.query, text) for text in case.passages], show_progress_bar=False)
        return {folder.name: best_first(np.asarray(scores, np.float64).reshape(len(case.passages)))}

    return orders


def reciprocal_rank_fusion(orders: Sequence[Order], k: int = RRF_K) -> NDArray[np.float64]:
    """Scores of positions 0, 1, ...: the sum over the orders of 1 / (k + rank), with ranks from 1."""
    scores = np.zeros(len(orders[0]))
    for order in orders:
        scores[np.asarray(order)] += 1 / (k + np.arange(1, len(order) + 1))
    return scores


def best_first(scores: NDArray[np.floating[Any]]) -> list[int]:
    """Positions by descending score. Equal scores keep their order."""
    positions: list[int] = np.argsort(-scores, kind="stable").tolist()
    return positions


def compete(
    contestant: Contestant, cases: Sequence[Case], depth: int, advance: Callable[[], None] | None = None
) -> dict[str, Outcome]:
    """Outcomes of a contestant's orders. Seconds are set only if ``advance``, called once per query, is given."""
    start = time.perf_counter()
    orders = []
    for case in cases:
        orders.append(contestant(case))
        if advance:
            advance()
    seconds = time.perf_counter() - start if advance else None
    passages = sum(len(case.passages) for case in cases)
    return {
        name: Outcome(measure(cases, [order[name] for order in orders], depth), seconds, passages)
        for name in (orders[0] if orders else ())
    }


def measure(cases: Sequence[Case], orders: Sequence[Order], depth: int) -> dict[str, list[float]]:
    """Metrics of each case's order as defined by ir-measures, in [0, 1]. Grades above 0 are relevant."""
    measures = {nDCG @ CUTOFF: MAIN, RR @ CUTOFF: f"mrr@{CUTOFF}", AP: "map", R @ depth: f"recall@{depth}"}
    qrels = {str(i): {str(at): grade for at, grade in case.grades.items()} for i, case in enumerate(cases)}
    run = {
        str(i): {str(case.candidates[at]): float(-rank) for rank, at in enumerate(order)}
        for i, (case, order) in enumerate(zip(cases, orders, strict=True))
    }
    values = {name: [0.0] * len(cases) for name in measures.values()}
    for metric in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[metric.measure]][int(metric.query_id)] = metric.value
    return values


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress bar on stderr. Yields a function that advances it by one query."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)


def averages(outcomes: Mapping[str, Outcome]) -> dict[str, Row]:
    """Means over each set's queries, and over the sets ("mean"). The seconds of "mean" are totals."""
    rows = {of: {name: fmean(values) for name, values in outcome.measures.items()} for of, outcome in outcomes.items()}
    means = {name: fmean(row[name] for row in rows.values()) for name in next(iter(rows.values()))}
    speeds = {of: speed([outcome]) for of, outcome in outcomes.items()} | {MEAN: speed(list(outcomes.values()))}
    return {of: {**row, **speeds[of]} for of, row in {**rows, MEAN: means}.items()}


def intervals(results: Results) -> dict[str, dict[str, tuple[float, float]]]:
    """Interval of nDCG@10 by contestant and set, and of its mean over the sets ("mean")."""
    values = {name: {of: one.measures[MAIN] for of, one in outcomes.items()} for name, outcomes in results.items()}
    return {
        name: {of: mean_interval([row]) for of, row in rows.items()} | {MEAN: mean_interval(list(rows.values()))}
        for name, rows in values.items()
    }


def speed(outcomes: Sequence[Outcome]) -> Row:
    """Total seconds and passages per second, None for a first stage."""
    seconds = sum(outcome.seconds or 0 for outcome in outcomes)
    passages = sum(outcome.passages for outcome in outcomes)
    return {"seconds": seconds or None, "passages/s": passages / seconds if seconds else None}


def comparisons(results: Results) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean difference of nDCG@10 and its p, by reranker, first stage and set (all queries under "pooled")."""
    return {
        name: {
            other: {of: difference([outcomes[of]], [results[other][of]]) for of in outcomes}
            | {"pooled": difference(list(outcomes.values()), [results[other][of] for of in outcomes])}
            for other in FIRST_STAGES
            if other in results
        }
        for name, outcomes in results.items()
        if name not in FIRST_STAGES
    }


def difference(own: Sequence[Outcome], other: Sequence[Outcome]) -> dict[str, float]:
    values = np.subtract(*(np.concatenate([outcome.measures[MAIN] for outcome in side]) for side in (own, other)))
    return {"difference": float(values.mean()), "p": permutation_p(values)}


def column(rows: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    return {name: row[MAIN] for name, row in rows.items()}


def show(
    summary: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    compared: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
) -> None:
    by_set = {name: [rows[name][MAIN] for rows in summary.values()] for name in next(iter(summary.values()))}
    print_table(table("nDCG@10", list(summary), by_set))
    means = {name: rows[MEAN] for name, rows in summary.items()}
    measures = list(next(iter(means.values())))
    print_table(
        table("Mean over sets", measures, {name: [row[key] for key in measures] for name, row in means.items()})
    )
    pooled = {
        f"{name} against {other}": [of["pooled"]["difference"], of["pooled"]["p"]]
        for name, others in compared.items()
        for other, of in others.items()
    }
    print_table(table("All queries", ["difference of nDCG@10", "p"], pooled, digits=4))


if __name__ == "__main__":
    main()
