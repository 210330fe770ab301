"""ProgressScorer: show a progress bar on stderr once scoring takes a while."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gliclass_rerank.scorers.batch_plan import request_chunks
from gliclass_rerank.scoring import embed, labels_share_pass
from gliclass_rerank.types import Example, FloatArray, ModelInfo, Scorer, ScoreRequest

PATIENCE = 2.0  # seconds before a bar appears
# A step of the bar: a second or two on a laptop, and enough requests to sort by length.
STEP_REQUESTS = 256
STEP_CHARACTERS = 60_000


class ProgressScorer:
    """A `Scorer` that scores in steps and shows its progress.

    Args:
        scorer: the inner scorer.
        console: output of the bar. If it is no terminal, a line announces the work instead.
        task: title of the bar.
    """

    def __init__(self, scorer: Scorer, console: Console, task: str = "scoring") -> None:
        self._scorer = scorer
        self._console = console
        self._task = task

    @property
    def info(self) -> ModelInfo:
        """Information of the inner scorer."""
        return self._scorer.info

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """See `scoring.embed`."""
        return embed(self._scorer, texts)

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """See `scoring.labels_share_pass`."""
        return labels_share_pass(self._scorer, labels, examples)

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Score with the inner scorer, see `Scorer.score`."""
        scored: list[FloatArray] = []
        start = time.perf_counter()
        with _Bar(self._console, self._task, len(requests)) as bar:
            for step in request_chunks(requests, max_requests=STEP_REQUESTS, max_characters=STEP_CHARACTERS):
                scored += self._scorer.score(step)
                bar.advance(len(scored), time.perf_counter() - start)
        return scored


class _Bar:
    """A progress bar that is shown only for long work."""

    def __init__(self, console: Console, task: str, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._bar = self._progress.add_task(task, total=total)
        self._announcement = f"{task} {total:,} passages ..."
        self._shown = False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, done: int, seconds: float) -> None:
        self._progress.update(self._bar, completed=done)
        if self._shown or seconds < PATIENCE or self._progress.finished:
            return
        self._shown = True
        if self._progress.console.is_terminal:
            self._progress.start()
        else:
            self._progress.console.print(self._announcement)
