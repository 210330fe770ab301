"""What all parts have in common: which model they use, and that it is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, PlainValidator, PrivateAttr

from gliclass_rerank import GLiClassRerankError, Scorer
from gliclass_rerank.scoring.lazy import LazyScorer

T = TypeVar("T")
R = TypeVar("R")


class LazyScorers:
    """A `LazyScorer` for each model: a part's model may be configured from call to call.

    Copies of a part share what is loaded. A pickle leaves it out and loads it again.
    """

    def __init__(self) -> None:
        self._scorers: dict[str, LazyScorer] = {}

    def get(self, model: str) -> LazyScorer:
        """Return the scorer of a model, the same one in every thread."""
        return self._scorers.setdefault(model, LazyScorer(model))

    def __eq__(self, other: object) -> bool:
        # What is loaded already makes no difference between two parts with the same options.
        return isinstance(other, LazyScorers)

    def __deepcopy__(self, memo: object) -> LazyScorers:
        return self

    def __reduce__(self) -> tuple[type[LazyScorers], tuple[()]]:
        return LazyScorers, ()


def _checked(scorer: object) -> object:
    if scorer is None or callable(getattr(scorer, "score", None)):
        return scorer
    raise ValueError(f"expected a Scorer, as load_scorer gives, got {scorer!r:.60}; the name of a model goes to model=")


class ModelOptions(BaseModel):
    """Fields of a part that scores.

    Args:
        model: what `load_scorer` takes: "mini", a folder, a hub id or a service's URL. Loaded at the first use.
        scorer: used instead of ``model``, if given. It is left out when the part is serialised.
    """

    model: str = "mini"
    # A Protocol cannot be checked by isinstance, so the one method that counts is looked for.
    scorer: Annotated[Scorer | None, PlainValidator(_checked)] = Field(default=None, exclude=True, repr=False)
    _scorers: LazyScorers = PrivateAttr(default_factory=LazyScorers)

    def _scorer(self) -> Scorer:
        return self._scorers.get(self.model) if self.scorer is None else self.scorer


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
