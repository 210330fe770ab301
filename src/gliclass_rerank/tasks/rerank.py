"""Reranker: rank passages by how well they answer a query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.calibration.calibrators import Calibrator, calibrated, sigmoid
from gliclass_rerank.errors import InputError, NoPromptsError, OptionError
from gliclass_rerank.scorers.load import as_scorer
from gliclass_rerank.scoring import Plan, run
from gliclass_rerank.types import Direction, FloatArray, Logits, LongText, Ranked, Scorer, ScoreRequest, Span
from gliclass_rerank.unreadable import Places, Unreadable, naming, numbered, readable, refuse_unread
from gliclass_rerank.validation import check_choice, check_number, check_text, check_texts

Fuse = Literal["max", "mean", "min"]
AnyDirection = Literal["auto"] | Direction
CHUNK = 8192  # requests of one call of the scorer, enough to sort by length
DEFAULT_WEIGHT = 1.0  # for models without a fitted weight in their folder


@dataclass(frozen=True, slots=True)
class RankOptions:
    """Options of `Reranker.rank`, where they are described.

    Raises:
        OptionError: an option with an impossible value.
    """

    top_n: int | None = None
    threshold: float | None = None
    fuse: Fuse = "max"
    criteria: Mapping[str, float] | None = None
    first_stage_weight: float | None = None
    long_text: LongText = "window"
    direction: AnyDirection = "auto"
    unreadable: Unreadable = "flag"
    instruction: str | None = None

    def __post_init__(self) -> None:
        check_choice(self.fuse, get_args(Fuse), "fuse")
        check_choice(self.long_text, get_args(LongText), "long_text")
        check_choice(self.unreadable, get_args(Unreadable), "unreadable")
        check_choice(self.direction, ("auto", *get_args(Direction)), "direction")
        if self.top_n is not None and (
            not isinstance(self.top_n, int) or isinstance(self.top_n, bool) or self.top_n < 1
        ):
            raise OptionError(f"top_n: expected a positive number or None for all, got {self.top_n!r}")
        if self.threshold is not None:
            check_number(self.threshold, "threshold", low=0, high=1)
        if not isinstance(self.criteria or {}, Mapping):
            raise OptionError(f"criteria: expected a mapping from name to weight, got {type(self.criteria).__name__}")
        for name, weight in (self.criteria or {}).items():
            check_text(name, "criterion")
            check_number(weight, f"criterion {name!r}")
        if self.first_stage_weight is not None:
            check_number(self.first_stage_weight, "first_stage_weight", low=0)
        if self.instruction is not None:
            check_text(self.instruction, "instruction")


@dataclass(frozen=True, slots=True)
class _Options:
    """Options resolved for one model."""

    top_n: int | None
    threshold: float | None
    fuse: Fuse
    criteria: Mapping[str, float]
    long_text: LongText
    as_label: bool
    first_stage_weight: float
    calibrator: Calibrator | None
    instruction: str
    similarity: float


class Reranker:
    """Rank passages by how well they answer a query.

    Scores are sigmoids of the (fused) logits, calibrated first if the model has a calibrator for the task "relevance".
    Calibration alone does not change the order.

    Args:
        scorer: a `Scorer`, or an argument of `load_scorer` ("mini", a folder, a hub id).
    """

    def __init__(self, scorer: Scorer | str | Path = "mini") -> None:
        self.scorer: Scorer = as_scorer(scorer)

    def rank(
        self,
        query: str | Sequence[str],
        passages: Sequence[str],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        fuse: Fuse = "max",
        criteria: Mapping[str, float] | None = None,
        first_stage_scores: ArrayLike | None = None,
        first_stage_weight: float | None = None,
        long_text: LongText = "window",
        direction: AnyDirection = "auto",
        unreadable: Unreadable = "flag",
        instruction: str | None = None,
    ) -> list[Ranked]:
        """Rank passages, best first. Equal scores are ordered by logit, and equal logits keep the caller's order.

        Args:
            query: one query, or several (rewordings, sub-questions) that are judged in the same pass.
            passages: texts to rank; none gives an empty ranking.
            top_n: number of passages returned; all by default.
            threshold: leave out passages that score below it, in [0, 1].
            fuse: how the logits of several queries become one: "max" (answers any), "min" (answers all), "mean".
            criteria: further labels judged in the same pass, each with a weight. A positive weight ranks passages that
                fit the criterion higher, a negative one lower. With p the relevance and p_c the probability
                (uncalibrated) of criterion c, both in [0, 1], passages are ordered by p + sum of w_c * p_c, and the
                score is that as a weighted mean in [0, 1]:
                (p + sum over w_c > 0 of w_c * p_c + sum over w_c < 0 of |w_c| * (1 - p_c)) / (1 + sum of |w_c|).
            first_stage_scores: the retriever's own scores, one per passage, higher is better, on any scale. They are
                standardised over the passages, multiplied by ``first_stage_weight`` and added to the log-odds of
                relevance (the logits, if the model has no calibration).
            first_stage_weight: log-odds that one standard deviation of ``first_stage_scores`` is worth. Default: the
                model's own weight, fitted on development data, else 1.
            long_text: "window" reads a passage that does not fit in overlapping windows and takes the best,
                "truncate" reads its beginning, "error" raises.
            direction: which of query and passage is read as the text; "auto" is the direction the model was trained
                with. With "passage-as-label" several passages share a pass and may influence each other's scores.
            unreadable: treatment of a query, criterion or passage of which the model's vocabulary covers (almost)
                nothing: "flag" sets `Ranked.readable` to False, "error" raises `UnreadableTextError`.
            instruction: what makes a passage relevant, in words. It is the prompt before each text that is read, and
                takes room of it. Only for models trained with prompts (``info.prompts``).

        Returns:
            `Ranked`, whose ``index`` points into ``passages``.

        Raises:
            InputError: an empty query or passage, characters that no tokenizer reads, a passage or query that
                does not fit. The message names the input.
            OptionError: an option with an impossible value.
            NoPromptsError: an instruction for a model that was not trained with prompts.
            NonFiniteError: the model returns NaN.
            ModelError: a custom scorer returns logits of another number or shape than requested.
        """
        options = RankOptions(
            top_n, threshold, fuse, criteria, first_stage_weight, long_text, direction, unreadable, instruction
        )
        return run(self.plan([(query, passages)], options, first_stage_scores=[first_stage_scores]), self.scorer)[0]

    def rank_many(
        self,
        pairs: Iterable[tuple[str | Sequence[str], Sequence[str]]],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        fuse: Fuse = "max",
        criteria: Mapping[str, float] | None = None,
        first_stage_scores: Sequence[ArrayLike | None] | None = None,
        first_stage_weight: float | None = None,
        long_text: LongText = "window",
        direction: AnyDirection = "auto",
        unreadable: Unreadable = "flag",
        instruction: str | None = None,
    ) -> list[list[Ranked]]:
        """Rank the passages of many queries in common batches. The rankings equal those of `rank` on each.

        Args:
            pairs: (query, passages), as `rank` takes them.
            first_stage_scores: one array per pair, or None for a pair without.

        Other arguments, results and errors are those of `rank`.
        """
        options = RankOptions(
            top_n, threshold, fuse, criteria, first_stage_weight, long_text, direction, unreadable, instruction
        )
        return run(self.plan(pairs, options, first_stage_scores=first_stage_scores), self.scorer)

    def plan(
        self,
        pairs: Iterable[tuple[str | Sequence[str], Sequence[str]]],
        options: RankOptions | None = None,
        *,
        first_stage_scores: Sequence[ArrayLike | None] | None = None,
    ) -> Plan[list[list[Ranked]]]:
        """`rank_many` as a plan, for callers that score its requests themselves.

        Args:
            pairs, first_stage_scores: as for `rank_many`, whose errors are raised here too.
            options: those of `rank`.
        """
        wanted = options or RankOptions()
        jobs = list(map(_pair, pairs))
        given = [None] * len(jobs) if first_stage_scores is None else first_stage_scores
        if len(given) != len(jobs):
            raise InputError(f"first_stage_scores: expected one for each of the {len(jobs)} queries, got {len(given)}")
        resolved = self._resolved(wanted)
        rankings = [
            _Ranking(_queries(query), check_texts(passages, "passage"), _standardised(scores, len(passages)), resolved)
            for (query, passages), scores in zip(jobs, given, strict=True)
        ]
        requests = chain.from_iterable(zip(repeat(one), count(), one.requests()) for one in rankings)
        with naming(lambda: _places(rankings, resolved)):
            # One chunk of requests at a time. It is freed with its logits before the next one is built.
            while chunk := list(islice(requests, CHUNK)):
                asked = [request for _, _, request in chunk]
                rows = yield asked
                if wanted.unreadable == "error":
                    refuse_unread(asked, rows)
                for (ranking, i, _), row in zip(chunk, rows, strict=True):
                    ranking.add(i, row)
                rows.clear()
                del chunk, asked
        return [ranking.ranked() for ranking in rankings]

    def _resolved(self, options: RankOptions) -> _Options:
        info, weight = self.scorer.info, options.first_stage_weight
        if weight is None:
            weight = DEFAULT_WEIGHT if info.first_stage_weight is None else info.first_stage_weight
        direction = info.direction if options.direction == "auto" else options.direction
        as_label, criteria = direction == "passage-as-label", options.criteria or {}
        if as_label and criteria:
            raise OptionError('criteria: they need direction="passage-as-text", where a passage is read as a text')
        if options.instruction and not info.prompts:
            raise NoPromptsError(info.name)
        calibrator = info.calibration.get("relevance")
        return _Options(
            options.top_n,
            options.threshold,
            options.fuse,
            criteria,
            options.long_text,
            as_label,
            weight,
            calibrator,
            options.instruction or "",
            info.similarity.get("relevance", 0.0),
        )


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
    return tuple(map(check_text, queries, names))


def _places(rankings: Sequence[_Ranking], options: _Options) -> Places:
    for i, ranking in enumerate(rankings):
        of = f"pair {i}, " if len(rankings) > 1 else ""
        queries = ranking.queries
        yield from numbered(f"{of}query", queries) if len(queries) > 1 else [(f"{of}query", queries[0])]
        yield from numbered(f"{of}passage", ranking.passages)
    yield from ((f"criterion {name!r:.60}", name) for name in options.criteria)


def _standardised(given: ArrayLike | None, count: int) -> NDArray[np.float64]:
    """First-stage scores with mean 0 and standard deviation 1, or zeros if they are all equal."""
    if given is None:
        return np.zeros(count)
    try:
        scores = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"first_stage_scores: expected {count} numbers, one per passage, got {given!r:.60}") from error
    if scores.shape != (count,):
        raise InputError(
            f"first_stage_scores: expected {count} finite scores, one per passage, got shape {scores.shape}"
        )
    for i in np.flatnonzero(~np.isfinite(scores)):
        raise InputError(f"first_stage_scores: expected {count} finite scores, got {scores[i]} at index {i}")
    if not count or scores.min() == scores.max():  # the computed deviation of equal scores may differ from 0
        return np.zeros(count)
    # Scale to about 1 by a power of two, which is exact: squares of 1e-170 or 1e200 leave the range of floats.
    scores = np.ldexp(scores, -np.frexp(np.abs(scores).max())[1])
    standardised: NDArray[np.float64] = (scores - scores.mean()) / scores.std()
    return standardised


class _Ranking:
    """One query's passages while they are scored. Keeps numbers, since 100,000 arrays take more memory than one.

    Args:
        queries, passages: checked texts.
        first_stage: standardised first-stage scores, float64, shape (passages,).
        options: resolved for the model.
    """

    def __init__(
        self,
        queries: Sequence[str],
        passages: Sequence[str],
        first_stage: NDArray[np.float64],
        options: _Options,
    ) -> None:
        self.queries, self.passages = queries, passages
        self._first_stage, self._options = first_stage, options
        rows, labels = len(passages), len(queries) + len(options.criteria)
        self._logits = np.empty((len(queries), rows) if options.as_label else (rows, labels))
        self._windows: dict[int, Span] = {}
        self._truncated: set[int] = set()
        self._unread: set[int] = set()

    def requests(self) -> Iterator[ScoreRequest]:
        """One request per passage, queries and criteria as labels. Or one per query, with the passages as labels."""
        if not self.passages:
            return
        prompt, similarity = self._options.instruction, self._options.similarity
        if self._options.as_label:  # the scorer divides labels that do not fit in one pass
            passages = tuple(self.passages)
            for query in self.queries:
                yield ScoreRequest.of_checked(query, passages, prompt=prompt, long_text="error", similarity=similarity)
            return
        labels, reading = (*self.queries, *self._options.criteria), self._options.long_text
        for passage in self.passages:
            yield ScoreRequest.of_checked(passage, labels, prompt=prompt, long_text=reading, similarity=similarity)

    def add(self, i: int, row: FloatArray) -> None:
        """Store the logits of request i."""
        self._logits[i] = row
        if not isinstance(row, Logits):
            return
        if row.unread_text or row.unread_labels:
            self._unread.update(np.flatnonzero(~readable(row)).tolist() if self._options.as_label else [i])
        if self._options.as_label:
            return
        if row.truncated:
            self._truncated.add(i)
        if len(row.spans) > 1:
            self._windows[i] = _best_window(row, len(self.queries), self._options.fuse)

    def ranked(self) -> list[Ranked]:
        """The ranking, after all logits were added."""
        if not self.passages:
            return []
        options, queries = self._options, len(self.queries)
        by_passage = self._logits.T if options.as_label else self._logits
        relevance = getattr(by_passage[:, :queries], options.fuse)(axis=1)
        criteria = sigmoid(by_passage[:, queries:])
        fused = calibrated(relevance, options.calibrator) + options.first_stage_weight * self._first_stage
        scores = _weighted(sigmoid(fused), criteria, options.criteria)
        # Stable sort. Log-odds and logits order passages whose probabilities are equal by rounding (log-odds beyond 36)
        # or by a flat calibration.
        order = np.lexsort((-relevance, -fused, -scores))[: options.top_n]
        return [
            Ranked(
                index=i,
                score=float(scores[i]),
                logit=float(relevance[i]),
                truncated=i in self._truncated,
                window=self._windows.get(i),
                criteria=dict(zip(options.criteria, criteria[i].tolist(), strict=True)),
                readable=i not in self._unread,
            )
            for i in map(int, order)
            if options.threshold is None or scores[i] >= options.threshold
        ]


def _weighted(
    relevance: NDArray[np.float64], probabilities: NDArray[np.float64], criteria: Mapping[str, float]
) -> NDArray[np.float64]:
    """Weighted mean of relevance and how well each criterion is met, in [0, 1]. See `Reranker.rank`."""
    weights = np.array(list(criteria.values()), np.float64)
    met = np.where(weights >= 0, probabilities, 1 - probabilities)
    scores: NDArray[np.float64] = (relevance + met @ np.abs(weights)) / (1 + np.abs(weights).sum())
    return scores


def _best_window(logits: Logits, queries: int, fuse: Fuse) -> Span:
    """Code points of the window that fits the queries best."""
    fused = getattr(logits.per_window[:, :queries], fuse)(axis=1)
    return logits.spans[int(fused.argmax())]
