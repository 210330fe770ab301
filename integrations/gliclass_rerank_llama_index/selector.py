"""GLiClassSelector: selects tools for queries by the tools' descriptions, or by the answer to a question."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from gliclass_rerank import (
    Choice,
    ChoiceAnswer,
    Decider,
    InputError,
    Noul,
    NoulAnswer,
    OptionError,
    Route,
    Router,
    Scorer,
)
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.tasks.decide.questions import described
from gliclass_rerank.validation import check_number, check_text


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
        instructions: ask this question with `Decider` instead, for example "Which source answers the query?". It is a
            `Choice` of the tools, with their descriptions. With ``multi`` it is one `Noul` for each tool, read with the
            tool's name and description. Thresholds are as above.

    Raises:
        OptionError: a threshold outside [0, 1], a router together with a scorer, threshold or instructions.
        InvalidTextError: instructions without text.
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
        instructions: str | None = None,
    ) -> None:
        if router is not None and (scorer is not None or threshold is not None):
            raise OptionError("router: it has a scorer and thresholds itself; leave out scorer= and threshold=")
        if router is not None and instructions is not None:
            raise OptionError("router: it asks no question; leave out instructions= or router=")
        self._instructions = None if instructions is None else check_text(instructions, "instructions")
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
        if self._instructions is not None:
            return self._asked(self._instructions, choices, called, query.query_str, fallback)
        router = self._router or self._described(choices, called)
        places = {route.name: _place(route.name, called, "route") for route in router.routes}
        decision = router.route(query.query_str, multi=self._multi)
        if decision.abstained:
            if fallback is None and decision.name is not None:  # the given router's own
                fallback = _place(decision.name, called, "fallback of the router")
            return SelectorResult(selections=[_instead(decision.scores, fallback, called)])
        return SelectorResult(selections=[_selection(name, decision.scores, places) for name in decision.names])

    def _asked(
        self,
        instructions: str,
        choices: Sequence[ToolMetadata],
        called: Sequence[str],
        query: str,
        fallback: int | None,
    ) -> SelectorResult:
        """Select by the answers to the question."""
        about = {
            name: "" if name == choice.description else choice.description
            for name, choice in zip(called, choices, strict=True)
        }
        if len(about) < len(called):
            raise InputError("choices: expected tools that differ in name or description, got two alike; name them")
        scores = self._probabilities(instructions, about, query)
        threshold = self._threshold if self._threshold is not None else 0.5 if self._multi else 0.0
        likely = sorted((name for name in scores if scores[name] >= threshold), key=lambda name: -scores[name])
        if not likely:
            return SelectorResult(selections=[_instead(scores, fallback, called)])
        places = {name: i for i, name in enumerate(called)}
        kept = likely if self._multi else likely[:1]
        return SelectorResult(selections=[_selection(name, scores, places) for name in kept])

    def _probabilities(self, instructions: str, about: Mapping[str, str], query: str) -> dict[str, float]:
        """The probability of each tool: of a `Choice`, or with ``multi`` of a `Noul` of its own."""
        decider = Decider(self._scorer)
        if self._multi:
            nouls = {name: Noul(f"{instructions} {described(name, text)}") for name, text in about.items()}
            answers = decider.decide(query, nouls)
            return {name: answer.probability for name, answer in answers.items() if isinstance(answer, NoulAnswer)}
        answer = decider.decide(
            query, {"tool": Choice(instructions, {name: text or None for name, text in about.items()})}
        )
        assert isinstance(answer["tool"], ChoiceAnswer)
        return dict(answer["tool"].probabilities)

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


def _selection(name: str, scores: Mapping[str, float], places: Mapping[str, int]) -> SingleSelection:
    return SingleSelection(index=places[name], reason=f"{name!r} fits the query, with probability {scores[name]:.2f}")


def _instead(scores: Mapping[str, float], fallback: int | None, called: Sequence[str]) -> SingleSelection:
    best = max(scores, key=lambda name: scores[name])
    why = f"no tool is likely enough: the best, {best!r:.60}, has probability {scores[best]:.2f}"
    if fallback is None:
        raise InputError(
            f"query: {why}; name the tool for such queries, GLiClassSelector(fallback=...), or lower the threshold"
        )
    return SingleSelection(index=fallback, reason=f"{why}; {called[fallback]!r:.60} is the fallback")
