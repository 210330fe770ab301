"""Escalating: a small scorer answers, and a large one where the small one is unsure."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gliclass_rerank.calibration.calibrators import Calibrator
from gliclass_rerank.copies import Shared
from gliclass_rerank.errors import OptionError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.escalation.rows import calibrated_row, is_unsure, with_vector
from gliclass_rerank.scorers.load import as_scorer
from gliclass_rerank.scoring import embed, labels_share_pass, score_requests
from gliclass_rerank.types import Example, FloatArray, ModelInfo, Scorer, ScoreRequest
from gliclass_rerank.validation import check_number, check_texts

BAND = (0.2, 0.8)


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered a request.

    Attributes:
        text, labels: the request's.
        model: name of the model that answered.
        escalated: whether that was the large one.
    """

    text: str
    labels: tuple[str, ...]
    model: str
    escalated: bool


@dataclass(frozen=True, slots=True)
class EscalationStats:
    """Counts of requests, each a text with its labels.

    Attributes:
        asked: answered by the small scorer, or by both.
        escalated: answered by the large scorer.
    """

    asked: int
    escalated: int


class Escalating(Shared):
    """A `Scorer` that asks a large scorer only where a small one is unsure. Thread-safe.

    The unit is a request, a text with its labels. The large scorer answers the whole request if the probability of any
    of its labels is in the band, or if the small one could not read it. So labels of one request, which tasks compare
    with each other, are always judged by one model, and the other requests of a call have no effect.

    Requests are compared with each other too, as the passages of a ranking. Both scorers should then give probabilities
    that mean the same. ``info`` has no calibration, since the calibrators of one model do not fit the other.
    With ``task`` each scorer's logits are calibrated by its own calibrator, and the results are calibrated log-odds.
    ``info`` has no first-stage weight either.

    Vectors are those of the small scorer. An error of either scorer is raised.

    Args:
        small, large: a `Scorer`, or an argument of `load_scorer` ("mini", "systemone+http://host/v1#model").
        band: smallest and largest probability of which the small scorer is unsure, both included. (0, 1) escalates
            everything.
        task: the task whose calibrators apply: "relevance" for `Reranker`, "labels" for `Classifier`,
            ("support", "refutation") for `FactChecker`. Several tasks apply to the labels of a request in turn. A
            scorer without the calibrator keeps its logits.
        exclusive: exactly one label of a request holds, as for a `Decider` and ``multi_label=False``. The probabilities
            are then a softmax, and the small scorer is unsure if the largest is at most ``band[1]``. A request with one
            label is judged as usual.

    Raises:
        OptionError: an impossible band, a task that neither scorer has a calibrator for, or another value than True or
            False for ``exclusive``.
    """

    def __init__(
        self,
        small: Scorer | str | Path,
        large: Scorer | str | Path,
        *,
        band: tuple[float, float] = BAND,
        task: str | Sequence[str] | None = None,
        exclusive: bool = False,
    ) -> None:
        if isinstance(band, str) or not isinstance(band, Sequence) or len(band) != 2:
            raise OptionError(f"band: expected two probabilities, such as {BAND}, got {band!r:.60}")
        low, high = (check_number(value, "band", low=0, high=1) for value in band)
        if low > high:
            raise OptionError(f"band: expected the smaller probability first, got {band!r:.60}")
        self._band = low, high
        if not isinstance(exclusive, bool):
            raise OptionError(f"exclusive: expected True or False, got {exclusive!r:.60}")
        self.small, self.large = as_scorer(small), as_scorer(large)
        self._tasks = () if task is None else check_texts(task, "task", at_least_one=True, or_one=True)
        self._exclusive = exclusive
        self._small_calibrators, self._large_calibrators = self._calibrators(self.small), self._calibrators(self.large)
        self._check_tasks()
        # Requests carry the weight of the small model.
        weights = self.large.info.similarity
        self._large_similarity = weights.get(self._tasks[0], 0.0) if self._tasks else 0.0
        self.info = self._describe()
        self._lock = PerProcess(threading.Lock)
        self._records = threading.local()
        self._asked = self._escalated = 0

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Logits of each request, by the scorer that answers it: `Logits` if that gives them.

        Raises:
            GLiClassRerankError: any error of the two scorers.
        """
        rows = self._rows(self.small, self._small_calibrators, requests)
        unsure = [i for i, row in enumerate(rows) if is_unsure(row, self._band, exclusive=self._exclusive)]
        asked = [replace(requests[i], vector=False, similarity=self._large_similarity) for i in unsure]
        for i, row in zip(unsure, self._rows(self.large, self._large_calibrators, asked), strict=True):
            rows[i] = with_vector(row, rows[i], requests[i].text) if requests[i].vector else row
        with self._lock.get():
            self._asked += len(rows)
            self._escalated += len(unsure)
        self._note(requests, set(unsure))
        return rows

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of the small scorer, see `gliclass_rerank.scoring.embed`."""
        return embed(self.small, texts)

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Whether both scorers read these labels in one pass, see `gliclass_rerank.scoring.labels_share_pass`."""
        return all(labels_share_pass(scorer, labels, examples) for scorer in (self.small, self.large))

    def stats(self) -> EscalationStats:
        """Counts since the scorer was made, over all threads. An unpickled scorer begins at 0."""
        with self._lock.get():
            return EscalationStats(self._asked, self._escalated)

    @contextmanager
    def record(self) -> Iterator[list[Answered]]:
        """Record who answers the requests that this thread makes in a ``with`` block.

        Yields:
            A list that grows in the order of the requests.
        """
        made: list[Answered] = []
        outer: tuple[list[Answered], ...] = getattr(self._records, "lists", ())
        self._records.lists = (*outer, made)
        try:
            yield made
        finally:
            self._records.lists = outer

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(Escalating, band=self._band, task=self._tasks or None, exclusive=self._exclusive)
        return make, (self.small, self.large)

    def _calibrators(self, scorer: Scorer) -> list[Calibrator | None]:
        return [scorer.info.calibration.get(task) for task in self._tasks]

    def _check_tasks(self) -> None:
        known = {*self.small.info.calibration, *self.large.info.calibration}
        for task in self._tasks:
            if task not in known:
                names = ", ".join(sorted(known)) or "none"
                raise OptionError(f"task: expected one that has a calibrator ({names}), got {task!r:.60}; leave it out")

    def _describe(self) -> ModelInfo:
        small, large = self.small.info, self.large.info
        made_of = [small.revision, large.revision, self._band, self._tasks, self._exclusive]
        return ModelInfo(
            name=f"{small.name}+{large.name}",
            revision=hashlib.sha256(repr(made_of).encode()).hexdigest()[:12],
            architecture="escalating",
            backend="escalating",
            device=f"{small.device}, {large.device}",
            dtype=small.dtype,
            max_length=min(filter(None, (small.max_length, large.max_length)), default=0),
            direction=small.direction,
            similarity=small.similarity,
            embeds=small.embeds,
            prompts=small.prompts and large.prompts,
        )

    def _rows(
        self, scorer: Scorer, calibrators: Sequence[Calibrator | None], requests: Sequence[ScoreRequest]
    ) -> list[FloatArray]:
        rows = score_requests(scorer, requests)
        return [calibrated_row(row, calibrators) for row in rows] if any(calibrators) else rows

    def _note(self, requests: Sequence[ScoreRequest], escalated: set[int]) -> None:
        lists: tuple[list[Answered], ...] = getattr(self._records, "lists", ())
        if not lists:
            return
        names = self.small.info.name, self.large.info.name
        for i, request in enumerate(requests):
            answered = Answered(request.text, request.labels, names[i in escalated], i in escalated)
            for made in lists:
                made.append(answered)
