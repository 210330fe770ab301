"""Reranker: a query and passages in, a ranking out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.calibration import Calibrator, calibrated, sigmoid
from gliclass_rerank.errors import InputError, NonFiniteError, OptionError
from gliclass_rerank.scoring.load import load_scorer
from gliclass_rerank.types import (
    Direction,
    FloatArray,
    Logits,
    LongText,
    Ranked,
    Scorer,
    ScoreRequest,
    check_choice,
    check_number,
    check_text,
)

Fuse = Literal["max", "mean", "min"]
AnyDirection = Literal["auto"] | Direction
DEFAULT_PRIOR_WEIGHT = 1.0  # for models whose folder has none fitted


@dataclass(frozen=True, slots=True)
class _Options:
    """What `Reranker.rank` was asked for, checked once for all queries of a call."""

    top_n: int | None
    threshold: float | None
    fuse: Fuse
    criteria: Mapping[str, float]
    long_text: LongText
    as_label: bool
    prior_weight: float
    calibrator: Calibrator | None


class Reranker:
    """Orders passages by how well they answer a query.

    Where the model has a calibrator for the task "relevance", scores are sigmoids of the log-odds that it makes of the
    (fused) logits, else sigmoids of the logits themselves. Alone, it reorders nothing.

    Args:
        scorer: a `Scorer`, or what `load_scorer` takes ("mini", a folder, a hub id).
    """

    def __init__(self, scorer: Scorer | str | Path = "mini") -> None:
        self.scorer: Scorer = load_scorer(scorer) if isinstance(scorer, str | Path) else scorer

    def rank(
        self,
        query: str | Sequence[str],
        passages: Sequence[str],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        fuse: Fuse = "max",
        criteria: Mapping[str, float] | None = None,
        prior: ArrayLike | None = None,
        prior_weight: float | None = None,
        long_text: LongText = "window",
        direction: AnyDirection = "auto",
    ) -> list[Ranked]:
        """Rank passages, best first; equal scores are ordered by logit, and equal logits keep the caller's order.

        Args:
            query: one query, or several (rewordings, sub-questions) that are judged in the same pass.
            passages: what to order; none gives an empty ranking.
            top_n: how many to return; all by default.
            threshold: leave out passages that score below it, in [0, 1].
            fuse: how the logits of several queries become one: "max" (answers any), "min" (answers all), "mean".
            criteria: further labels judged in the same pass, with a weight each: positive where passages that
                fit it should rise, negative where they should sink. With p the relevance and p_c the probability
                (uncalibrated) of criterion c, both in [0, 1], passages are ordered by p + sum of w_c * p_c, and the
                score is that as a weighted mean in [0, 1]:
                (p + sum over w_c > 0 of w_c * p_c + sum over w_c < 0 of |w_c| * (1 - p_c)) / (1 + sum of |w_c|).
            prior: the first stage's own scores, one a passage, higher is better, on any scale. They are
                standardised over the passages, times ``prior_weight`` added to the log-odds of relevance (the
                logits, where the model has no calibration).
            prior_weight: log-odds that one standard deviation of ``prior`` is worth; by default the model's own,
                as fitted on development data, else 1.
            long_text: "window" reads a passage that does not fit in overlapping windows and takes the best,
                "truncate" reads its beginning, "error" raises.
            direction: which of query and passage is read as the text; "auto" is what the model was trained for.
                With "passage-as-label" several passages share a pass and may influence each other's scores.

        Returns:
            `Ranked`, whose ``index`` points into ``passages``.

        Raises:
            InputError: an empty query or passage, characters that no tokenizer reads, a passage or query that
                does not fit; the message names which.
            OptionError: an option with an impossible value.
            NonFiniteError: the model gives NaN.
        """
        options = self._options(top_n, threshold, fuse, criteria, prior_weight, long_text, direction)
        return self._rank_all([(query, passages, prior)], options)[0]

    def rank_many(
        self,
        pairs: Iterable[tuple[str | Sequence[str], Sequence[str]]],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        fuse: Fuse = "max",
        criteria: Mapping[str, float] | None = None,
        priors: Sequence[ArrayLike | None] | None = None,
        prior_weight: float | None = None,
        long_text: LongText = "window",
        direction: AnyDirection = "auto",
    ) -> list[list[Ranked]]:
        """Rank the passages of many queries as one batch; the rankings equal those of `rank` on each.

        Args:
            pairs: (query, passages), as `rank` takes them.
            priors: first-stage scores for each pair, or None for a pair without.

        Other arguments, results and errors are those of `rank`.
        """
        options = self._options(top_n, threshold, fuse, criteria, prior_weight, long_text, direction)
        jobs = list(pairs)
        if priors is None:
            priors = [None] * len(jobs)
        if len(priors) != len(jobs):
            raise InputError(f"priors: expected one for each of the {len(jobs)} queries, got {len(priors)}")
        return self._rank_all([(*_pair(job), prior) for job, prior in zip(jobs, priors, strict=True)], options)

    def _options(
        self,
        top_n: int | None,
        threshold: float | None,
        fuse: Fuse,
        criteria: Mapping[str, float] | None,
        prior_weight: float | None,
        long_text: LongText,
        direction: AnyDirection,
    ) -> _Options:
        check_choice(fuse, get_args(Fuse), "fuse")
        check_choice(long_text, get_args(LongText), "long_text")
        check_choice(direction, ("auto", *get_args(Direction)), "direction")
        if top_n is not None and (not isinstance(top_n, int) or isinstance(top_n, bool) or top_n < 1):
            raise OptionError(f"top_n: expected a positive number or None for all, got {top_n!r}")
        if threshold is not None:
            check_number(threshold, "threshold", low=0, high=1)
        if not isinstance(criteria or {}, Mapping):
            raise OptionError(f"criteria: expected a mapping from name to weight, got {type(criteria).__name__}")
        weights = {
            check_text(name, "criterion"): check_number(weight, f"criterion {name!r}")
            for name, weight in (criteria or {}).items()
        }
        info = self.scorer.info
        if prior_weight is None:
            prior_weight = DEFAULT_PRIOR_WEIGHT if info.prior_weight is None else info.prior_weight
        check_number(prior_weight, "prior_weight", low=0)
        as_label = (info.direction if direction == "auto" else direction) == "passage-as-label"
        calibrator = info.calibration.get("relevance")
        return _Options(top_n, threshold, fuse, weights, long_text, as_label, prior_weight, calibrator)

    def _rank_all(
        self, jobs: Sequence[tuple[str | Sequence[str], Sequence[str], ArrayLike | None]], options: _Options
    ) -> list[list[Ranked]]:
        """Build all requests, score them in one call, order each query's passages."""
        prepared = [(_queries(query), _passages(passages)) for query, passages, _ in jobs]
        priors = [_standardised(prior, len(passages)) for _, passages, prior in jobs]
        build = _label_requests if options.as_label else _text_requests
        requests = [build(queries, passages, options) for queries, passages in prepared]
        scored = iter(self.scorer.score([request for group in requests for request in group]))
        rankings = []
        for (queries, passages), group, prior in zip(prepared, requests, priors, strict=True):
            logits = [next(scored) for _ in group]
            rankings.append(_order(len(queries), len(passages), logits, prior, options))
        return rankings


def _pair(job: object) -> tuple[str | Sequence[str], Sequence[str]]:
    if isinstance(job, str) or not isinstance(job, Sequence) or len(job) != 2:
        raise InputError(f"pairs: expected (query, passages) each, got {job!r:.60}")
    return job[0], job[1]


def _queries(query: str | Sequence[str]) -> tuple[str, ...]:
    queries = (query,) if isinstance(query, str) else query
    if not isinstance(queries, Sequence):
        raise InputError(f"query: expected a string or a sequence of strings, got {type(query).__name__}")
    if not queries:
        raise InputError("query: expected at least one, got none")
    return tuple(check_text(item, "query") for item in queries)


def _passages(passages: Sequence[str]) -> tuple[str, ...]:
    if isinstance(passages, str) or not isinstance(passages, Sequence):
        raise InputError(f"passages: expected a sequence of strings, got {type(passages).__name__}")
    return tuple(check_text(passage, f"passage {i}") for i, passage in enumerate(passages))


def _standardised(prior: ArrayLike | None, count: int) -> NDArray[np.float64]:
    """First-stage scores with mean 0 and standard deviation 1; zeros where they do not differ."""
    if prior is None:
        return np.zeros(count)
    try:
        scores = np.asarray(prior, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"prior: expected {count} numbers, one a passage, got {prior!r:.60}") from error
    if scores.shape != (count,) or not np.isfinite(scores).all():
        raise InputError(f"prior: expected {count} finite scores, one a passage, got shape {scores.shape}")
    if not count or scores.min() == scores.max():  # whose deviation need not be exactly 0
        return np.zeros(count)
    standardised: NDArray[np.float64] = (scores - scores.mean()) / scores.std()
    return standardised


def _text_requests(queries: Sequence[str], passages: Sequence[str], options: _Options) -> list[ScoreRequest]:
    labels = (*queries, *options.criteria)
    return [ScoreRequest(passage, labels, long_text=options.long_text) for passage in passages]


def _label_requests(queries: Sequence[str], passages: Sequence[str], options: _Options) -> list[ScoreRequest]:
    """One request a query, with the passages as its labels; the scorer divides what does not fit in one pass."""
    if options.criteria:
        raise OptionError('criteria: they need direction="passage-as-text", where a passage is read as a text')
    return [ScoreRequest(query, tuple(passages), long_text="error") for query in queries] if passages else []


def _order(
    queries: int, passages: int, logits: Sequence[FloatArray], prior: NDArray[np.float64], options: _Options
) -> list[Ranked]:
    if not passages:
        return []
    stacked = np.stack([np.asarray(row) for row in logits]).astype(np.float64)
    by_passage = stacked.T if options.as_label else stacked  # (passages, queries and criteria)
    if not np.isfinite(by_passage).all():
        raise NonFiniteError("the scorer gave scores that are not finite; its model is broken")
    relevance = getattr(by_passage[:, :queries], options.fuse)(axis=1)
    probabilities = sigmoid(by_passage[:, queries:])
    fused = calibrated(relevance, options.calibrator) + options.prior_weight * prior
    scores = _weighted(sigmoid(fused), probabilities, options.criteria)
    # Stable; where probabilities have run out of digits (log-odds beyond 36), or a calibration is flat, log-odds and
    # logits still tell passages apart.
    order = np.lexsort((-relevance, -fused, -scores))[: options.top_n]
    return [
        Ranked(
            index=int(i),
            score=float(scores[i]),
            logit=float(relevance[i]),
            truncated=not options.as_label and getattr(logits[i], "truncated", False),
            window=None if options.as_label else _best_window(logits[i], queries, options.fuse),
            criteria=dict(zip(options.criteria, probabilities[i].tolist(), strict=True)),
        )
        for i in order
        if options.threshold is None or scores[i] >= options.threshold
    ]


def _weighted(
    relevance: NDArray[np.float64], probabilities: NDArray[np.float64], criteria: Mapping[str, float]
) -> NDArray[np.float64]:
    """Weighted mean of relevance and how well each criterion is met, in [0, 1]; see `Reranker.rank`."""
    weights = np.array(list(criteria.values()), np.float64)
    met = np.where(weights >= 0, probabilities, 1 - probabilities)
    scores: NDArray[np.float64] = (relevance + met @ np.abs(weights)) / (1 + np.abs(weights).sum())
    return scores


def _best_window(logits: FloatArray, queries: int, fuse: Fuse) -> tuple[int, int] | None:
    """Code points of the window that fits the queries best, for a text that was read in several."""
    if not isinstance(logits, Logits) or len(logits.spans) < 2:
        return None
    fused = getattr(logits.per_window[:, :queries], fuse)(axis=1)
    return logits.spans[int(fused.argmax())]
