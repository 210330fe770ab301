"""Routing decisions: the part of GLiClassRouter that needs no branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from langchain_core.runnables import run_in_executor
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

from gliclass_rerank import InputError, Route, RouteDecision, Router
from gliclass_rerank_langchain.model import ModelOptions, each

Names = tuple[str, ...]


class RouteOptions(ModelOptions):
    """Fields of a component that routes, and its decision.

    Args:
        routes: possible routes of the inputs.
        router: a fitted or loaded `Router`, instead of routes, threshold, model and scorer. Excluded from
            serialisation.
        key: key of the query in inputs that are mappings, or a function from an input to its query, which JSON cannot
            represent.
        multi: several routes may apply at once.
        threshold: see `Router`.
        fallback: name to choose if no route is likely enough.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    routes: Annotated[Sequence[Route], AfterValidator(tuple)] = ()
    router: Router | None = Field(default=None, exclude=True)
    key: str | Callable[[Any], str] = "question"
    multi: bool = False
    threshold: float | None = Field(default=None, ge=0, le=1)
    fallback: str | None = None

    @model_validator(mode="after")
    def _one_router(self) -> Self:
        if (self.router is None) == (not self.routes):
            raise ValueError("expected either routes or a router")
        if self.router and (self.threshold, self.scorer) != (None, None):
            raise ValueError("threshold and scorer: the router has its own; make it with them")
        return self

    def decide(self, input: Any) -> str | list[str]:  # noqa: A002
        """Return the name of the chosen route, or with ``multi`` a list of names. Raises the errors of `invoke`."""
        names = self._choose(input)
        return list(names) if self.multi else names[0]

    async def adecide(self, input: Any) -> str | list[str]:  # noqa: A002
        """Decide in a thread."""
        return await run_in_executor(None, self.decide, input)

    def _choose(self, given: Any) -> Names:
        return self._names(self._decisions([given])[0])

    def _choose_each(self, inputs: list[Any], *, return_exceptions: bool) -> list[Names | Exception]:
        chosen: list[Names | Exception] = []
        for decision in each(self._decisions, inputs, return_exceptions=return_exceptions):
            try:
                chosen.append(decision if isinstance(decision, Exception) else self._names(decision))
            except InputError as error:  # abstained; no branch has run yet
                if not return_exceptions:
                    raise
                chosen.append(error)
        return chosen

    def _decisions(self, inputs: Sequence[Any]) -> list[RouteDecision]:
        queries = [self._query(given) for given in inputs]
        router = self.router or Router(self.routes, self._scorer(), threshold=self.threshold)
        return router.route_many(queries, multi=self.multi)

    def _names(self, decision: RouteDecision) -> Names:
        if decision.abstained and self.fallback is not None:
            return (self.fallback,)
        if not decision.names:
            best = max(decision.scores, key=lambda name: decision.scores[name])
            raise InputError(
                f"no route is likely enough: the best, {best!r}, has {decision.score:.3f}; "
                "name a fallback= among the branches, or lower the threshold"
            )
        return decision.names

    def _query(self, given: Any) -> str:
        if callable(self.key):
            return self.key(given)
        if isinstance(given, str):
            return given
        if isinstance(given, Mapping) and self.key in given:
            query: str = given[self.key]  # the router validates its type
            return query
        known = ", ".join(map(repr, given)) if isinstance(given, Mapping) else type(given).__name__
        raise InputError(f"input: expected a string or a dict with the key {self.key!r}, got {known:.80}; set key=")
