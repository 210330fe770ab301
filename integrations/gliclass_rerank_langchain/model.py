"""What all parts have in common: which model they use, and that it is loaded when it is needed."""

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


KEPT = 2  # models that stay loaded although no part is left that names them

_named: WeakValueDictionary[str, LazyScorer] = WeakValueDictionary()
_recent: deque[LazyScorer] = deque(maxlen=KEPT)
_lock = PerProcess(Lock)


def scorer_of(model: str) -> LazyScorer:
    """The scorer of a model, loaded at its first use and shared by all parts that name it.

    LangChain makes a part anew for each call that configures it, so a part cannot hold its model by itself.
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
        return LazyScorer("", scorer)  # type: ignore[arg-type]  # which it checks itself
    except OptionError as error:
        raise ValueError(f"{error}") from error


class ModelOptions(BaseModel):
    """Fields of a part that scores.

    Args:
        model: what `load_scorer` takes: "mini", a folder, a hub id or a service's URL. Loaded at the first use.
        scorer: a loaded model instead; its name then counts as ``model``. It is left out when the part is serialised.
    """

    model: str = "mini"
    scorer: Annotated[Scorer | None, PlainValidator(_checked)] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _name_the_model(cls, data: object) -> object:
        """What is restored from a part with a scorer reads the same model, or fails; never another one."""
        given = data.get("scorer") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not callable(getattr(given, "score", None)):
            return data
        shared = _checked(given)
        return data if shared is None else {**data, "scorer": shared, "model": shared.model}

    def _scorer(self) -> Scorer:
        return scorer_of(self.model) if self.scorer is None else self.scorer


def each(many: Callable[[list[T]], list[R]], items: Sequence[T], *, return_exceptions: bool) -> list[R | Exception]:
    """Call ``many`` once for all items; if that fails and errors are wanted, once an item, so that each gets its own.

    Args:
        many: gives one result an item.
        items: what it is called with.
        return_exceptions: our own errors stand in the place of results; else the first is raised.
    """
    try:
        return [*many(list(items))]
    except GLiClassRerankError as error:
        if not return_exceptions:
            raise
        if len(items) == 1:
            return [error]
    return [result for item in items for result in each(many, [item], return_exceptions=True)]
