"""Questions and instructions in LlamaIndex: the parts ask, the tasks answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from fakes import OverlapScorer
from gliclass_rerank_llama_index import GLiClassQuestionFilter, GLiClassRerank, GLiClassSelector
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import ToolMetadata

from gliclass_rerank import (
    Choice,
    ChoiceAnswer,
    Decider,
    InputError,
    InvalidTextError,
    NoPromptsError,
    Noul,
    NoulAnswer,
    OptionError,
    Reranker,
    Route,
    Router,
    Score,
    ScoreAnswer,
)

QUERY = "copy a file"
QUESTION = "Is it so?"
PASSAGES = ["it does no good", "says yes to it", "perhaps yes or no then", "says yes to it"]
LEVELS = ["no", "perhaps", "yes"]
TOOLS = [
    ToolMetadata(name="billing", description="invoices refunds and payment questions"),
    ToolMetadata(name="tech", description="errors crashes and configuration"),
    ToolMetadata(description="whatever else", name=None),
]
BILLING, BOTH, NEITHER = "payment and refunds", "refunds and crashes errors", "hello"


def nodes_of(passages: list[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, id_=str(i)), score=0.1) for i, text in enumerate(passages)]


def outcome(found: list[NodeWithScore]) -> list[tuple[int, float | None]]:
    return [(int(one.node.node_id), one.score) for one in found]


def filtered(part: GLiClassQuestionFilter, *, asynchronous: bool = False) -> list[tuple[int, float | None]]:
    nodes = nodes_of(PASSAGES)
    if asynchronous:
        return outcome(asyncio.run(part.apostprocess_nodes(nodes, query_str=QUERY)))
    return outcome(part.postprocess_nodes(nodes, query_str=QUERY))


def scores_by_decider(levels: list[str] | None) -> list[float]:
    """What the decider says of each passage by itself."""
    question = Noul(QUESTION) if levels is None else Score(QUESTION, levels)
    scores = []
    for text in PASSAGES:
        answer = Decider(OverlapScorer()).decide({"query": QUERY, "passage": text}, {"any": question})["any"]
        if isinstance(answer, ScoreAnswer):
            scores.append(answer.score / (len(LEVELS) - 1))
        else:
            assert isinstance(answer, NoulAnswer)
            scores.append(answer.probability)
    return scores


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("levels", [None, LEVELS])
def test_nodes_are_ordered_and_kept_by_the_deciders_answer(levels: list[str] | None, asynchronous: bool) -> None:
    expected = sorted(enumerate(scores_by_decider(levels)), key=lambda one: -one[1])
    assert len({score for _, score in expected}) == 3
    options: dict[str, Any] = {"scorer": OverlapScorer(), "instructions": QUESTION, "levels": levels}
    everything = filtered(GLiClassQuestionFilter(**options, threshold=0), asynchronous=asynchronous)
    assert everything == expected
    second = expected[2][1]
    part = GLiClassQuestionFilter(**options, threshold=second)
    assert filtered(part, asynchronous=asynchronous) == [one for one in expected if one[1] >= second]
    assert filtered(GLiClassQuestionFilter(**options, threshold=0, top_n=1)) == expected[:1]


def test_all_nodes_share_one_call_of_the_model() -> None:
    scorer = OverlapScorer()
    filtered(GLiClassQuestionFilter(scorer=scorer, instructions=QUESTION))
    assert len(scorer.calls) == 1


def test_a_node_without_text_is_left_out_and_a_query_is_needed() -> None:
    part = GLiClassQuestionFilter(scorer=OverlapScorer(), instructions=QUESTION, threshold=0)
    nodes = [*nodes_of(PASSAGES[:1]), NodeWithScore(node=ImageNode(image_url="a.png"))]
    assert len(part.postprocess_nodes(nodes, query_str=QUERY)) == 1
    with pytest.raises(InputError, match="query: expected one"):
        part.postprocess_nodes(nodes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instructions": " "}, "instructions"),
        ({"instructions": "a", "levels": ["one"]}, "levels"),
        ({"instructions": "a", "levels": ["one", ""]}, "level 1"),
        ({"instructions": "a", "threshold": 2}, "threshold"),
        ({"instructions": "a", "top_n": 0}, "top_n"),
        ({}, "instructions"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GLiClassQuestionFilter(**options)


def test_a_filter_is_saved_with_its_question() -> None:
    part = GLiClassQuestionFilter(scorer=OverlapScorer(), instructions=QUESTION, levels=LEVELS, top_n=2)
    assert json.loads(part.to_json())["class_name"] == "GLiClassQuestionFilter"
    again = GLiClassQuestionFilter.from_dict(part.to_dict(), scorer=OverlapScorer())
    assert filtered(again) == filtered(part)


def test_an_instruction_is_the_rerankers() -> None:
    part = GLiClassRerank(scorer=OverlapScorer(prompts=True), instruction="says yes")
    expected = Reranker(OverlapScorer(prompts=True)).rank(QUERY, PASSAGES, instruction="says yes")
    found = outcome(part.postprocess_nodes(nodes_of(PASSAGES), query_str=QUERY))
    assert found == [(one.index, one.score) for one in expected]
    refused = GLiClassRerank(scorer=OverlapScorer(), instruction="says yes")
    with pytest.raises(NoPromptsError):
        refused.postprocess_nodes(nodes_of(PASSAGES), query_str=QUERY)


def places(selector: GLiClassSelector, query: str, tools: list[ToolMetadata] = TOOLS) -> list[int]:
    chosen = selector.select(tools, QueryBundle(query))
    assert [one.index for one in asyncio.run(selector.aselect(tools, QueryBundle(query))).selections] == chosen.inds
    return chosen.inds


@pytest.mark.parametrize("query", [BILLING, BOTH, NEITHER])
def test_one_tool_is_the_deciders_choice(query: str) -> None:
    options = {"billing": TOOLS[0].description, "tech": TOOLS[1].description, "whatever else": None}
    answer = Decider(OverlapScorer()).decide(query, {"any": Choice("Which source?", options)})["any"]
    assert isinstance(answer, ChoiceAnswer)
    selector = GLiClassSelector(scorer=OverlapScorer(), instructions="Which source?")
    assert places(selector, query) == [list(options).index(answer.choice)]


def test_several_tools_are_those_whose_noul_holds() -> None:
    tools = [ToolMetadata(name="a", description="refunds yes"), ToolMetadata(name="b", description="crashes no")]
    query = "yes refunds please"
    answers = Decider(OverlapScorer()).decide(
        query, {one.name or "": Noul(f"Use {one.name}: {one.description}") for one in tools}
    )
    held = [
        i for i, answer in enumerate(answers.values()) if isinstance(answer, NoulAnswer) and answer.probability >= 0.5
    ]
    assert held
    selector = GLiClassSelector(scorer=OverlapScorer(), instructions="Use", multi=True)
    assert sorted(places(selector, query, tools)) == held


def test_an_unlikely_choice_takes_the_fallback_or_says_so() -> None:
    selector = GLiClassSelector(scorer=OverlapScorer(), instructions="Which?", threshold=0.99, fallback="tech")
    assert places(selector, NEITHER) == [1]
    with pytest.raises(InputError, match="no tool is likely enough"):
        GLiClassSelector(scorer=OverlapScorer(), instructions="Which?", threshold=0.99).select(TOOLS, NEITHER)


def test_tools_that_are_alike_cannot_be_told_apart() -> None:
    alike = [ToolMetadata(name="a", description="same"), ToolMetadata(name="a", description="same")]
    with pytest.raises(InputError, match="expected tools that differ"):
        GLiClassSelector(scorer=OverlapScorer(), instructions="Which?").select(alike, "any")


def test_instructions_are_a_text_and_no_routers() -> None:
    with pytest.raises(InvalidTextError, match="instructions"):
        GLiClassSelector(instructions=" ")
    router = Router([Route("a", "b"), Route("c", "d")], OverlapScorer())
    with pytest.raises(OptionError, match="it asks no question"):
        GLiClassSelector(router=router, instructions="Which?")
