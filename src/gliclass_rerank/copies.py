"""Copies and pickles of scorers: a copy shares the model, a pickle stores its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gliclass_rerank.errors import ModelError, NotPicklableError
from gliclass_rerank.types import ModelInfo, Scorer

S = TypeVar("S", bound="Shared")


class Shared:
    """Base of objects that are their own copies, deep ones too: they hold weights, threads or connections."""

    def __copy__(self: S) -> S:
        return self

    def __deepcopy__(self: S, memo: dict[int, Any]) -> S:
        return self


@dataclass(frozen=True, slots=True)
class Origin:
    """Source of a scorer: ``load(source, **options)``. Never contains the key of a service."""

    load: Callable[..., Scorer]
    source: str
    options: Mapping[str, object]


class Reloadable(Shared):
    """A scorer whose pickle stores its origin and loads it again.

    Attributes:
        origin: None for a scorer built from objects in memory, which cannot be pickled.
    """

    origin: Origin | None = None

    @property
    def info(self) -> ModelInfo:
        """Information about the model."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        if self.origin is None:
            raise NotPicklableError(
                f"{self.info.name}: expected a scorer made by load_scorer, got one built from objects in memory; "
                "save its model to a folder and load it from there"
            )
        return reloaded, (self.origin, self.info.revision)


def reloaded(origin: Origin, revision: str) -> Scorer:
    """Load a scorer again.

    Raises:
        ModelError: its source holds another model than when it was pickled.
    """
    scorer = origin.load(origin.source, **origin.options)
    if scorer.info.revision != revision:
        raise ModelError(
            f"{origin.source}: expected the model that was pickled, revision {revision}, got {scorer.info.revision}; "
            "load the scorer anew and pickle that"
        )
    return scorer
