"""Model options shared by all components, with lazy loading."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Annotated, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, Field, PlainValidator, model_validator

from gliclass_rerank import GLiClassRerankError, OptionError, Scorer
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.lazy import LazyScorer

T = TypeVar("T")
R = TypeVar("R")


KEPT = 2  # models that stay loaded without any component that refers to them

_named: WeakValueDictionary[str, LazyScorer] = WeakValueDictionary()
_recent: deque[LazyScorer] = deque(maxlen=KEPT)
_lock = PerProcess(Lock)


def scorer_of(model: str) -> LazyScorer:
    """Return the scorer of a model, loaded on first use and shared by all components with that model.

    LangChain creates a new component for each call that configures it, so a component cannot hold its model itself.
    """
    with _lock.get():
        scorer = _named.setdefault(model, LazyScorer(model))
        if scorer not in _recent:
            _recent.append(scorer)
        return scorer


def _checked(scorer: object) -> LazyScorer | None:
    if scorer is None or isinstance(scorer, LazyScorer):
        return scorer
    try:
        return LazyScorer("", scorer)  # type: ignore[arg-type]  # validated by LazyScorer
    except OptionError as error:
        raise ValueError(f"{error}") from error


class ModelOptions(BaseModel):
    """Fields of a component that scores.

    Args:
        model: "mini", a folder, a hub id or a service's URL, as in `load_scorer`. Loaded on first use.
        scorer: a loaded model instead. Its name replaces ``model``. Excluded from serialisation.
    """

    model: str = "mini"
    scorer: Annotated[Scorer | None, PlainValidator(_checked)] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _name_the_model(cls, data: object) -> object:
        """Set ``model`` to the scorer's name, so that a restored component uses the same model or fails."""
        given = data.get("scorer") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not callable(getattr(given, "score", None)):
            return data
        shared = _checked(given)
        return data if shared is None else {**data, "scorer": shared, "model": shared.model}

    def _scorer(self) -> Scorer:
        return scorer_of(self.model) if self.scorer is None else self.scorer


def each(many: Callable[[list[T]], list[R]], items: Sequence[T], *, return_exceptions: bool) -> list[R | Exception]:
    """Call ``many`` once for all items, or after a failure with ``return_exceptions`` once per item.

    Args:
        many: returns one result per item.
        items: arguments of ``many``.
        return_exceptions: whether a `GLiClassRerankError` takes the place of an item's result. Otherwise it is raised.
    """
    try:
        return [*many(list(items))]
    except GLiClassRerankError as error:
        if not return_exceptions:
            raise
        if len(items) == 1:
            return [error]
    return [result for item in items for result in each(many, [item], return_exceptions=True)]
