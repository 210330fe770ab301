"""Reranker: a query and passages in, a ranking out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.calibration.calibrators import Calibrator, calibrated, sigmoid
from gliclass_rerank.errors import InputError, OptionError
from gliclass_rerank.scorers.load import load_scorer
from gliclass_rerank.scoring import score_requests
from gliclass_rerank.types import (
    Direction,
    FloatArray,
    Logits,
    LongText,
    Ranked,
    Scorer,
    ScoreRequest,
    Span,
    check_choice,
    check_number,
    check_text,
)
from gliclass_rerank.unreadable import Places, Unreadable, naming, numbered, readable

Fuse = Literal["max", "mean", "min"]
AnyDirection = Literal["auto"] | Direction
CHUNK = 8192  # requests of one call of the scorer, many times what it needs to sort by length
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
    unreadable: Unreadable


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
        unreadable: Unreadable = "flag",
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
            unreadable: what to do about a query, criterion or passage of which the model's vocabulary knows (almost)
                nothing: "flag" says so in the result, `Ranked.readable`, "error" raises `UnreadableTextError`.

        Returns:
            `Ranked`, whose ``index`` points into ``passages``.

        Raises:
            InputError: an empty query or passage, characters that no tokenizer reads, a passage or query that
                does not fit; the message names which.
            OptionError: an option with an impossible value.
            NonFiniteError: the model gives NaN.
            ModelError: a scorer of your own gives other logits than it was asked for: another number, another shape.
        """
        options = self._options(top_n, threshold, fuse, criteria, prior_weight, long_text, direction, unreadable)
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
        unreadable: Unreadable = "flag",
    ) -> list[list[Ranked]]:
        """Rank the passages of many queries in common batches; the rankings equal those of `rank` on each.

        Args:
            pairs: (query, passages), as `rank` takes them.
            priors: first-stage scores for each pair, or None for a pair without.

        Other arguments, results and errors are those of `rank`.
        """
        options = self._options(top_n, threshold, fuse, criteria, prior_weight, long_text, direction, unreadable)
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
        unreadable: Unreadable,
    ) -> _Options:
        check_choice(fuse, get_args(Fuse), "fuse")
        check_choice(long_text, get_args(LongText), "long_text")
        check_choice(unreadable, get_args(Unreadable), "unreadable")
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
        if as_label and weights:
            raise OptionError('criteria: they need direction="passage-as-text", where a passage is read as a text')
        calibrator = info.calibration.get("relevance")
        return _Options(top_n, threshold, fuse, weights, long_text, as_label, prior_weight, calibrator, unreadable)

    def _rank_all(
        self, jobs: Sequence[tuple[str | Sequence[str], Sequence[str], ArrayLike | None]], options: _Options
    ) -> list[list[Ranked]]:
        """Score the requests of all queries, one after another, and order each query's passages."""
        prepared = [(_queries(query), _passages(passages)) for query, passages, _ in jobs]
        priors = [_standardised(prior, len(passages)) for _, passages, prior in jobs]
        build = _label_requests if options.as_label else _text_requests
        scored = self._scored((request for job in prepared for request in build(*job, options)), options)
        with naming(lambda: _places(prepared, options)):
            return [
                _order(_judged(len(queries), len(passages), scored, options), prior, options)
                for (queries, passages), prior in zip(prepared, priors, strict=True)
            ]

    def _scored(self, requests: Iterator[ScoreRequest], options: _Options) -> Iterator[FloatArray]:
        """Score chunks of requests, each built when its turn comes and gone with its logits before the next one."""
        while chunk := list(islice(requests, CHUNK)):
            # No name here keeps them while the next ones are made.
            yield from score_requests(self.scorer, chunk, unreadable=options.unreadable)


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
    names = ["query"] if len(queries) == 1 else [f"query {i}" for i in range(len(queries))]
    return tuple(check_text(item, name) for item, name in zip(queries, names, strict=True))


def _passages(passages: Sequence[str]) -> tuple[str, ...]:
    if isinstance(passages, str) or not isinstance(passages, Sequence):
        raise InputError(f"passages: expected a sequence of strings, got {type(passages).__name__}")
    return tuple(check_text(passage, f"passage {i}") for i, passage in enumerate(passages))


def _places(jobs: Sequence[tuple[Sequence[str], Sequence[str]]], options: _Options) -> Places:
    for i, (queries, passages) in enumerate(jobs):
        of = f"pair {i}, " if len(jobs) > 1 else ""
        yield from numbered(f"{of}query", queries) if len(queries) > 1 else [(f"{of}query", queries[0])]
        yield from numbered(f"{of}passage", passages)
    yield from ((f"criterion {name!r:.60}", name) for name in options.criteria)


def _standardised(prior: ArrayLike | None, count: int) -> NDArray[np.float64]:
    """First-stage scores with mean 0 and standard deviation 1; zeros where they do not differ."""
    if prior is None:
        return np.zeros(count)
    try:
        scores = np.asarray(prior, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"prior: expected {count} numbers, one a passage, got {prior!r:.60}") from error
    if scores.shape != (count,):
        raise InputError(f"prior: expected {count} finite scores, one a passage, got shape {scores.shape}")
    for i in np.flatnonzero(~np.isfinite(scores)):
        raise InputError(f"prior: expected {count} finite scores, got {scores[i]} at index {i}")
    if not count or scores.min() == scores.max():  # whose deviation need not be exactly 0
        return np.zeros(count)
    # To about 1, by a power of two, which rounds nothing: squares of 1e-170 or 1e200 leave the range of floats.
    scores = np.ldexp(scores, -np.frexp(np.abs(scores).max())[1])
    standardised: NDArray[np.float64] = (scores - scores.mean()) / scores.std()
    return standardised


def _text_requests(queries: Sequence[str], passages: Sequence[str], options: _Options) -> list[ScoreRequest]:
    labels = (*queries, *options.criteria)
    return [ScoreRequest(passage, labels, long_text=options.long_text) for passage in passages]


def _label_requests(queries: Sequence[str], passages: Sequence[str], options: _Options) -> list[ScoreRequest]:
    """One request a query, with the passages as its labels; the scorer divides what does not fit in one pass."""
    return [ScoreRequest(query, tuple(passages), long_text="error") for query in queries] if passages else []


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is kept of the scores of one query's passages: 100,000 arrays take more memory than one.

    Attributes:
        relevance: logits, fused over the queries, float64, shape (passages,).
        criteria: logits, float64, shape (passages, criteria).
        windows: of the passages that were read in several, the code points of the best one.
        truncated: passages whose end was not read.
        unread: passages whose scores say nothing, since something of them, the queries or criteria cannot be read.
    """

    relevance: NDArray[np.float64]
    criteria: NDArray[np.float64]
    windows: Mapping[int, Span]
    truncated: Set[int]
    unread: Set[int]


def _judged(queries: int, passages: int, scored: Iterator[FloatArray], options: _Options) -> _Judged:
    """Draw the scores of one query's passages."""
    shape = (queries if passages else 0, passages) if options.as_label else (passages, queries + len(options.criteria))
    logits = np.empty(shape)
    windows: dict[int, Span] = {}
    truncated: set[int] = set()
    unread: set[int] = set()
    for i in range(len(logits)):
        row = next(scored)
        logits[i] = row
        is_read = readable(row)
        if not is_read.all():
            unread.update(np.flatnonzero(~is_read).tolist() if options.as_label else [i])
        if isinstance(row, Logits) and not options.as_label:
            if row.truncated:
                truncated.add(i)
            if len(row.spans) > 1:
                windows[i] = _best_window(row, queries, options.fuse)
    by_passage = logits.T if options.as_label else logits
    relevance = getattr(by_passage[:, :queries], options.fuse)(axis=1) if passages else np.empty(0)
    return _Judged(relevance, by_passage[:, queries:], windows, truncated, unread)


def _order(judged: _Judged, prior: NDArray[np.float64], options: _Options) -> list[Ranked]:
    relevance = judged.relevance
    probabilities = sigmoid(judged.criteria)
    fused = calibrated(relevance, options.calibrator) + options.prior_weight * prior
    scores = _weighted(sigmoid(fused), probabilities, options.criteria)
    # Stable; where probabilities have run out of digits (log-odds beyond 36), or a calibration is flat, log-odds and
    # logits still tell passages apart.
    order = np.lexsort((-relevance, -fused, -scores))[: options.top_n]
    return [
        Ranked(
            index=i,
            score=float(scores[i]),
            logit=float(relevance[i]),
            truncated=i in judged.truncated,
            window=judged.windows.get(i),
            criteria=dict(zip(options.criteria, probabilities[i].tolist(), strict=True)),
            readable=i not in judged.unread,
        )
        for i in map(int, order)
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


def _best_window(logits: Logits, queries: int, fuse: Fuse) -> Span:
    """Code points of the window that fits the queries best."""
    fused = getattr(logits.per_window[:, :queries], fuse)(axis=1)
    return logits.spans[int(fused.argmax())]
