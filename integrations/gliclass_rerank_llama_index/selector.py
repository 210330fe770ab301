"""GLiClassSelector: selects tools for queries by the tools' descriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from gliclass_rerank import InputError, OptionError, Route, RouteDecision, Router, Scorer
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.validation import check_number


class GLiClassSelector(BaseSelector):
    """Selects among tools (query engines, retrievers) by their names and descriptions, with `Router`.

    A tool without a name, or with a name shared by another tool, is identified by its description. No language model is
    called, yet `RouterQueryEngine` and `RouterRetriever` look up ``Settings.llm``. Set it, or pass them
    ``llm=MockLLM()`` (of ``llama_index.core.llms``) if none is wanted.

    Args:
        model: "mini", a folder, a hub id or a service's URL, loaded on first use.
        scorer: a loaded model instead.
        router: a router instead, perhaps a fitted one: ``Router.load("routes.json")``. It uses its own routes,
            thresholds and fallback. Its routes must have the names of tools. A tool without a route is selected only as
            fallback.
        multi: several tools may be selected at once.
        threshold: minimum probability of a tool, in [0, 1]. By default the best one is always selected, or with
            ``multi`` those that reach one half.
        fallback: the tool to select if none is likely enough: its name, or its index among the tools.

    Raises:
        OptionError: a threshold outside [0, 1], a router together with a scorer or threshold.
        InputError: (when used) no tools, ambiguous tools, no such fallback, or no tool is likely enough and there is no
            fallback. It is a ValueError.
    """

    def __init__(
        self,
        *,
        model: str = "mini",
        scorer: Scorer | None = None,
        router: Router | None = None,
        multi: bool = False,
        threshold: float | None = None,
        fallback: str | int | None = None,
    ) -> None:
        if router is not None and (scorer is not None or threshold is not None):
            raise OptionError("router: it has a scorer and thresholds itself; leave out scorer= and threshold=")
        self._threshold = None if threshold is None else check_number(threshold, "threshold", low=0, high=1)
        self._scorer = LazyScorer(model, scorer)
        self._router = router
        self._multi = multi
        self._fallback = fallback

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Do nothing: there are no prompts."""

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return await asyncio.to_thread(self._select, choices, query)

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        called = _called(choices)
        fallback = None if self._fallback is None else _place(self._fallback, called, "fallback")
        router = self._router or self._described(choices, called)
        places = {route.name: _place(route.name, called, "route") for route in router.routes}
        decision = router.route(query.query_str, multi=self._multi)
        if decision.abstained:
            if fallback is None and decision.name is not None:  # the given router's own
                fallback = _place(decision.name, called, "fallback of the router")
            return SelectorResult(selections=[_instead(decision, fallback, called)])
        return SelectorResult(
            selections=[
                SingleSelection(
                    index=places[name], reason=f"{name!r} fits the query, with probability {decision.scores[name]:.2f}"
                )
                for name in decision.names
            ]
        )

    def _described(self, choices: Sequence[ToolMetadata], called: Sequence[str]) -> Router:
        """Create a router over the tools, with each tool's name, if it has one, and description."""
        routes = [
            Route(name, "" if name == choice.description else choice.description)
            for name, choice in zip(called, choices, strict=True)
        ]
        return Router(routes, self._scorer, threshold=self._threshold)


def _called(choices: Sequence[ToolMetadata]) -> list[str]:
    """Names of the tools in routes: its own name, if unique, else its description."""
    if not choices:
        raise InputError("choices: expected at least one tool, got none")
    names = [choice.name for choice in choices]
    return [choice.name if choice.name and names.count(choice.name) == 1 else choice.description for choice in choices]


def _place(wanted: str | int, called: Sequence[str], what: str) -> int:
    if isinstance(wanted, int) and 0 <= wanted < len(called):
        return wanted
    if isinstance(wanted, str) and called.count(wanted) == 1:
        return called.index(wanted)
    tools = ", ".join(f"{name!r:.40}" for name in called)
    raise InputError(
        f"{what}: expected one of the tools ({tools:.200}), each with a name of its own, got {wanted!r:.60}"
    )


def _instead(decision: RouteDecision, fallback: int | None, called: Sequence[str]) -> SingleSelection:
    best = max(decision.scores, key=lambda name: decision.scores[name])
    why = f"no tool is likely enough: the best, {best!r:.60}, has probability {decision.score:.2f}"
    if fallback is None:
        raise InputError(
            f"query: {why}; name the tool for such queries, GLiClassSelector(fallback=...), or lower the threshold"
        )
    return SingleSelection(index=fallback, reason=f"{why}; {called[fallback]!r:.60} is the fallback")
