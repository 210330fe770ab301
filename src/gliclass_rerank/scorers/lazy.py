"""LazyScorer: load a model on first use."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from gliclass_rerank.copies import Shared
from gliclass_rerank.errors import OptionError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.load import load_scorer
from gliclass_rerank.scoring import embed, labels_share_pass
from gliclass_rerank.types import Example, FloatArray, ModelInfo, Scorer, ScoreRequest


class LazyScorer(Shared):
    """A `Scorer` that loads its model once, on first use. Thread-safe.

    Copies, deep ones too, share the model. A pickle holds the model's name, or the scorer that was passed.

    Args:
        model: an argument of `load_scorer`: "mini", a folder, a hub id, a service's URL.
        scorer: a scorer that is already loaded. Its name replaces ``model``.

    Attributes:
        model: the name.

    Raises:
        OptionError: ``scorer`` is no scorer.
    """

    def __init__(self, model: str, scorer: Scorer | None = None) -> None:
        if scorer is not None and not callable(getattr(scorer, "score", None)):
            raise OptionError(f"scorer: expected one, as load_scorer gives, got {scorer!r:.60}; a name goes to model=")
        self.model = model if scorer is None else scorer.info.name
        self._given = self._scorer = scorer
        self._lock = PerProcess(Lock)

    @property
    def info(self) -> ModelInfo:
        return self._loaded().info

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        return self._loaded().score(requests)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """See `scoring.embed`."""
        return embed(self._loaded(), texts)

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """See `scoring.labels_share_pass`."""
        return labels_share_pass(self._loaded(), labels, examples)

    def _loaded(self) -> Scorer:
        with self._lock.get():
            if self._scorer is None:
                self._scorer = load_scorer(self.model)
            return self._scorer

    def __reduce__(self) -> tuple[type[LazyScorer], tuple[str, Scorer | None]]:
        return LazyScorer, (self.model, self._given)
