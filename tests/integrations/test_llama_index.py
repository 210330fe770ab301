"""The parts for LlamaIndex: they translate, the tasks decide, and whoever calls or listens is served on every path."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from conftest import needs_mini
from fakes import ConstantScorer, OverlapScorer
from gliclass_rerank_llama_index import (
    FactCheckedQueryEngine,
    GLiClassFactCheckFilter,
    GLiClassFaithfulnessEvaluator,
    GLiClassRerank,
    GLiClassSelector,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Settings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.base_selector import BaseSelector, SelectorResult
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # re-exported, not declared
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine, RetryQueryEngine, RouterQueryEngine
from llama_index.core.retrievers import RouterRetriever
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata
from pydantic import BaseModel, Field

from gliclass_rerank import (
    FactChecker,
    InputError,
    ModelNotFoundError,
    NonFiniteError,
    OptionError,
    Reranker,
    Route,
    Router,
    Scorer,
    ScoreRequest,
)
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.types import FloatArray

QUERY = "copy a file"
PASSAGES = ["rename a folder", "copy a file and its mode", "read a file", "sort a list", "read a file", "no such words"]
NO_ROUTE = "/no/such/model"

CLAIM = "cats chase mice."
SUPPORTING = "all cats chase mice."
REFUTING = "they say it is false that cats chase mice."
UNRELATED = "the moon rose late."

word = st.sampled_from("copy a file read sort list folder open close move".split())
text = st.lists(word, min_size=1, max_size=6).map(" ".join)
texts = st.lists(text, max_size=8)


def nodes_of(passages: Sequence[str], scores: Sequence[float | None] | None = None) -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=TextNode(id_=str(i), text=passage, metadata={"page": i}, excluded_embed_metadata_keys=["page"]),
            score=scores[i] if scores else 1 - i / 100,
        )
        for i, passage in enumerate(passages)
    ]


def places(nodes: Sequence[NodeWithScore]) -> list[int]:
    return [int(found.node_id) for found in nodes]


def outcome(nodes: Sequence[NodeWithScore]) -> list[tuple[int, float | None]]:
    return [(int(found.node_id), found.score) for found in nodes]


Run = Callable[..., list[NodeWithScore]]


def run_sync(part: BaseNodePostprocessor, nodes: list[NodeWithScore], **query: Any) -> list[NodeWithScore]:
    return part.postprocess_nodes(nodes, **query)


def run_async(part: BaseNodePostprocessor, nodes: list[NodeWithScore], **query: Any) -> list[NodeWithScore]:
    return asyncio.run(part.apostprocess_nodes(nodes, **query))


both_ways = pytest.mark.parametrize("run", [run_sync, run_async])
both_postprocessors = pytest.mark.parametrize("kind", [GLiClassRerank, GLiClassFactCheckFilter])


class Listener(BaseEventHandler):
    heard: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self.heard.append(event)


@pytest.fixture
def listener() -> Iterator[Listener]:
    handlers, listening = get_dispatcher().event_handlers, Listener()
    handlers.append(listening)
    yield listening
    handlers.remove(listening)


@pytest.fixture
def _mock_llm() -> Iterator[None]:
    before = Settings._llm
    Settings.llm = MockLLM()
    yield
    Settings._llm = before


class SleepyScorer:
    """Counts shared words, after a nap."""

    def __init__(self, seconds: float) -> None:
        self._scorer, self._seconds = OverlapScorer(), seconds
        self.info = self._scorer.info

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        time.sleep(self._seconds)
        return self._scorer.score(requests)


class FixedEngine(BaseQueryEngine):
    """Gives its answers one after the other, the last one again and again, and remembers the questions."""

    def __init__(self, *answers: Any, sources: Sequence[str] = (), make: Callable[..., Any] = Response) -> None:
        self.answers, self.make, self.asked = list(answers), make, list[str]()
        self.sources = nodes_of(sources)
        super().__init__(callback_manager=CallbackManager([]))

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Any:
        self.asked.append(query_bundle.query_str)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return self.make(answer, source_nodes=self.sources, metadata={"kept": "yes"})

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        return self._query(query_bundle)


class FixedRetriever(BaseRetriever):
    def __init__(self, *passages: str) -> None:
        self._found = nodes_of(passages)
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._found


# Postprocessors


@pytest.mark.parametrize(
    ("part", "base"),
    [
        (GLiClassRerank, BaseNodePostprocessor),
        (GLiClassFactCheckFilter, BaseNodePostprocessor),
        (GLiClassSelector, BaseSelector),
        (GLiClassFaithfulnessEvaluator, BaseEvaluator),
        (FactCheckedQueryEngine, BaseQueryEngine),
    ],
)
def test_the_base_class_is_the_frameworks(part: type, base: type) -> None:
    assert base in part.__mro__


@settings(max_examples=40)
@given(text, texts, st.none() | st.integers(1, 9), st.none() | st.floats(0, 1))
def test_top_n_and_threshold_are_the_rerankers(
    query: str, passages: list[str], top_n: int | None, threshold: float | None
) -> None:
    found = GLiClassRerank(scorer=OverlapScorer(), top_n=top_n, threshold=threshold).postprocess_nodes(
        nodes_of(passages), query_str=query
    )
    ranking = Reranker(OverlapScorer()).rank(query, passages, top_n=top_n, threshold=threshold)
    assert outcome(found) == [(ranked.index, ranked.score) for ranked in ranking]


@both_ways
def test_equal_nodes_keep_their_order_and_the_first_n_come_back(run: Run) -> None:
    assert places(run(GLiClassRerank(scorer=OverlapScorer()), nodes_of(PASSAGES), query_str=QUERY)) == [
        1,
        2,
        4,
        0,
        3,
        5,
    ]
    assert places(run(GLiClassRerank(scorer=OverlapScorer(), top_n=2), nodes_of(PASSAGES), query_str=QUERY)) == [1, 2]
    equal = run(GLiClassRerank(scorer=ConstantScorer(0.0), threshold=0.5), nodes_of(PASSAGES), query_str=QUERY)
    assert outcome(equal) == [(i, 0.5) for i in range(len(PASSAGES))]


@both_ways
@both_postprocessors
def test_events_tell_of_a_call(run: Run, kind: Any, listener: Listener) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    part = kind(scorer=OverlapScorer(), callback_manager=CallbackManager([debug]))
    nodes = nodes_of([UNRELATED, SUPPORTING])
    found = run(part, nodes, query_str=CLAIM)
    start, end = listener.heard[0], listener.heard[-1]
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert (str(start.query), start.nodes, start.top_n, start.model_name) == (CLAIM, nodes, 2, "overlap")
    assert end.nodes == found
    ((began, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert began.payload is not None
    assert ended.payload is not None
    assert began.payload[EventPayload.QUERY_STR] == CLAIM
    assert began.payload[EventPayload.NODES] == nodes
    assert began.payload[EventPayload.MODEL_NAME] == "overlap"
    assert ended.payload[EventPayload.NODES] == found


@both_ways
@both_postprocessors
def test_no_nodes_give_none_with_events_and_without_a_model(run: Run, kind: Any, listener: Listener) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    part = kind(model=NO_ROUTE, callback_manager=CallbackManager([debug]))
    assert run(part, [], query_str=QUERY) == []
    assert [type(event) for event in listener.heard] == [ReRankStartEvent, ReRankEndEvent]
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


@both_ways
@both_postprocessors
@pytest.mark.parametrize(
    ("options", "query", "passages", "error"),
    [
        ({"scorer": OverlapScorer()}, {}, PASSAGES, InputError),
        ({"scorer": OverlapScorer()}, {}, [], InputError),
        ({"scorer": OverlapScorer()}, {"query_str": " "}, PASSAGES, InputError),
        ({"scorer": OverlapScorer()}, {"query_str": QUERY}, ["fine", "binary \0 data"], InputError),
        ({"scorer": ConstantScorer(float("nan"))}, {"query_str": QUERY}, PASSAGES, NonFiniteError),
        ({"model": NO_ROUTE}, {"query_str": QUERY}, PASSAGES, ModelNotFoundError),
    ],
)
def test_an_error_comes_out_and_leaves_nobody_waiting_for_events(
    run: Run, kind: Any, options: Any, query: Any, passages: list[str], error: Any, listener: Listener
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    part = kind(**options, callback_manager=CallbackManager([debug]))
    with pytest.raises(error) as caught:
        run(part, nodes_of(passages), **query)
    assert isinstance(caught.value, ValueError) == (error is InputError)
    kinds = [type(event) for event in listener.heard]
    assert kinds.count(ReRankStartEvent) == kinds.count(ReRankEndEvent) == 1
    ((_, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert ended.payload is not None
    assert isinstance(ended.payload[EventPayload.EXCEPTION], error)


@both_ways
@both_postprocessors
def test_the_retrieval_score_is_kept_where_no_model_reads_it(run: Run, kind: Any) -> None:
    nodes = nodes_of([SUPPORTING, CLAIM], scores=[0.25, None])
    before = copy.deepcopy(nodes)
    found = run(kind(scorer=OverlapScorer(), keep_retrieval_score=True), nodes, query_str=CLAIM)
    assert {one.node_id: one.metadata["retrieval_score"] for one in found} == {"0": 0.25, "1": None}
    assert nodes == before
    for one in found:
        came = nodes[int(one.node_id)]
        for mode in (MetadataMode.LLM, MetadataMode.EMBED, MetadataMode.NONE):
            assert one.get_content(mode) == came.get_content(mode)
    again = run(kind(scorer=OverlapScorer(), keep_retrieval_score=True), found, query_str=CLAIM)
    excluded = again[0].node.excluded_llm_metadata_keys
    assert excluded.count("retrieval_score") == 1


def test_a_nodes_own_class_survives_the_copy() -> None:
    nodes = [NodeWithScore(node=ImageNode(text=QUERY, image_url="https://example.org/a.png"), score=0.5)]
    (found,) = GLiClassRerank(scorer=OverlapScorer(), keep_retrieval_score=True).postprocess_nodes(
        nodes, query_str=QUERY
    )
    assert isinstance(found.node, ImageNode)
    assert found.node.image_url == "https://example.org/a.png"


@pytest.mark.parametrize("blank", [ImageNode(image="aGVsbG8="), TextNode(text="\u200b"), TextNode(text="")])
@both_ways
@both_postprocessors
def test_a_node_without_text_is_left_out(run: Run, kind: Any, blank: TextNode) -> None:
    nodes = [NodeWithScore(node=blank, score=0.9), *nodes_of([SUPPORTING, CLAIM])]
    with_text = run(kind(scorer=OverlapScorer()), nodes[1:], query_str=CLAIM)
    assert run(kind(scorer=OverlapScorer()), nodes, query_str=CLAIM) == with_text != []
    assert run(kind(model="no such model"), nodes[:1], query_str=CLAIM) == [], "nothing to judge loads no model"


def test_the_metadata_mode_says_what_is_read() -> None:
    node = TextNode(text="a", metadata={"shown": "copy", "hidden": "file"}, excluded_embed_metadata_keys=["hidden"])
    scores = {
        mode: GLiClassRerank(scorer=OverlapScorer(), metadata_mode=mode)
        .postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)[0]
        .score
        for mode in MetadataMode
    }
    expected = {mode: Reranker(OverlapScorer()).rank(QUERY, [node.get_content(mode)])[0].score for mode in MetadataMode}
    assert scores == expected
    assert scores[MetadataMode.NONE] < scores[MetadataMode.EMBED] < scores[MetadataMode.ALL]  # type: ignore[operator]
    assert GLiClassRerank(scorer=OverlapScorer()).metadata_mode is MetadataMode.EMBED


def test_retrieval_scores_count_if_they_are_wanted_and_all_there() -> None:
    scores = [0.1, 0.2, 0.3, 0.4, 0.9, 0.0]
    part = GLiClassRerank(scorer=OverlapScorer(first_stage_weight=2.0), use_first_stage_scores=True)
    ranking = Reranker(OverlapScorer(first_stage_weight=2.0)).rank(QUERY, PASSAGES, first_stage_scores=scores)
    found = part.postprocess_nodes(nodes_of(PASSAGES, scores), query_str=QUERY)
    assert outcome(found) == [(ranked.index, ranked.score) for ranked in ranking]
    some = [None, *scores[1:]]
    plain = GLiClassRerank(scorer=OverlapScorer()).postprocess_nodes(nodes_of(PASSAGES), query_str=QUERY)
    assert outcome(part.postprocess_nodes(nodes_of(PASSAGES, some), query_str=QUERY)) == outcome(plain)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("support", [(1, "supported"), (3, "supported")]),
        ("refute", [(2, "refuted")]),
        ("either", [(2, "refuted"), (1, "supported"), (3, "supported")]),
    ],
)
@both_ways
def test_nodes_are_kept_that_support_or_refute_the_claim(run: Run, keep: Any, kept: Any) -> None:
    passages = [UNRELATED, SUPPORTING, REFUTING, CLAIM]
    nodes = nodes_of(passages)
    before = copy.deepcopy(nodes)
    found = run(GLiClassFactCheckFilter(scorer=OverlapScorer(), keep=keep), nodes, query_str=CLAIM)
    assert [(int(one.node_id), one.metadata["fact_check"]) for one in found] == kept
    for one in found:
        (claim,) = FactChecker(OverlapScorer()).check(CLAIM, one.get_content()).claims
        assert one.score == (claim.support if claim.verdict == "supported" else claim.refute)
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert one.get_content(mode) == nodes[int(one.node_id)].get_content(mode)
    assert nodes == before


def test_all_sentences_of_a_claim_count() -> None:
    claim = "Cats chase mice. Dogs chase big cats."
    passages = [
        "cats chase mice. and dogs chase big cats.",
        "cats chase mice.",
        "cats chase mice. it is false that dogs",
    ]
    part = GLiClassFactCheckFilter(scorer=OverlapScorer(), keep="either")
    reports = FactChecker(OverlapScorer()).check_many([(claim, passage) for passage in passages])
    first, last = reports[0].claims, reports[2].claims
    assert [one.verdict for one in first] == ["supported", "supported"]
    assert {one.verdict for one in last} == {"refuted"}
    assert outcome(part.postprocess_nodes(nodes_of(passages), query_str=claim)) == [
        (2, max(one.refute for one in last)),
        (0, min(one.support for one in first)),
    ]


def test_thresholds_of_the_filter_are_the_checkers() -> None:
    nodes = nodes_of([SUPPORTING, REFUTING])
    strict = GLiClassFactCheckFilter(scorer=OverlapScorer(), keep="either", threshold=1.0, refute_threshold=1.0)
    assert strict.postprocess_nodes(nodes, query_str=CLAIM) == []


def test_a_query_that_claims_nothing_filters_nothing() -> None:
    with pytest.raises(InputError, match="expected a claim"):
        GLiClassFactCheckFilter(scorer=OverlapScorer()).postprocess_nodes(nodes_of(["x"]), query_str="?!")


# Serialisation


@pytest.mark.parametrize(
    "part",
    [
        GLiClassRerank(scorer=OverlapScorer(), top_n=3, threshold=0.25, keep_retrieval_score=True),
        GLiClassRerank(model=NO_ROUTE, use_first_stage_scores=True, metadata_mode=MetadataMode.LLM),
        GLiClassFactCheckFilter(scorer=OverlapScorer(), keep="either", threshold=0.75),
    ],
)
def test_round_trips_keep_the_options_and_leave_the_weights(part: Any) -> None:
    kind, saved = type(part), part.to_dict()
    assert saved["class_name"] == kind.class_name() == kind.__name__
    assert saved["model"] == ("overlap" if part.scorer else NO_ROUTE)
    assert "scorer" not in saved
    assert json.loads(part.to_json()) == json.loads(json.dumps(saved))
    for again in (
        kind.from_dict(saved),
        kind.from_json(part.to_json()),
        kind.model_validate(part.model_dump()),
        kind.model_validate_json(part.model_dump_json()),
        pickle.loads(pickle.dumps(part)),
        copy.deepcopy(part),
        part.model_copy(deep=True),
    ):
        assert again.to_dict() == saved
    assert "class_name" in kind.model_json_schema()["properties"]


def test_what_was_saved_works_again_with_a_scorer() -> None:
    part = GLiClassRerank(scorer=OverlapScorer(), top_n=3)
    expected = outcome(part.postprocess_nodes(nodes_of(PASSAGES), query_str=QUERY))
    for again in (GLiClassRerank.from_dict(part.to_dict(), scorer=OverlapScorer()), copy.deepcopy(part)):
        assert outcome(again.postprocess_nodes(nodes_of(PASSAGES), query_str=QUERY)) == expected


@pytest.mark.parametrize(
    "options",
    [{"top_n": 0}, {"threshold": 1.5}, {"threshold": float("nan")}, {"metadata_mode": "some"}, {"scorer": "mini"}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        GLiClassRerank(**options)


def test_the_model_stays_while_options_may_change() -> None:
    part = GLiClassRerank(scorer=OverlapScorer())
    part.top_n = 1
    assert places(part.postprocess_nodes(nodes_of(PASSAGES), query_str=QUERY)) == [1]
    with pytest.raises(ValueError, match="frozen"):
        part.model = "other"


# Selector

TOOLS = [
    ToolMetadata(name="billing", description="invoices refunds and payment questions"),
    ToolMetadata(name="tech", description="errors crashes and configuration"),
    ToolMetadata(name="other", description="whatever else"),
]
BILLING, CRASH, BOTH, NEITHER = "payment and refunds", "crashes and errors", "refunds and crashes errors", "hello"


def engines() -> list[QueryEngineTool]:
    return [QueryEngineTool(FixedEngine(f"from {tool.name}"), tool) for tool in TOOLS]


def selected(response: RESPONSE_TYPE) -> SelectorResult:
    assert response.metadata is not None
    result = response.metadata["selector_result"]
    assert isinstance(result, SelectorResult)
    return result


def aquery_of(engine: BaseQueryEngine) -> Callable[[str], RESPONSE_TYPE]:
    return lambda query: asyncio.run(engine.aquery(query))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_router_query_engine_asks_the_selected_engine(asynchronous: bool) -> None:
    engine = RouterQueryEngine(GLiClassSelector(scorer=OverlapScorer()), engines(), llm=MockLLM())
    ask = aquery_of(engine) if asynchronous else engine.query
    for query, tool in [(BILLING, 0), (CRASH, 1), (NEITHER, 0)]:  # without a threshold, the first of equals is taken
        response = ask(query)
        assert str(response) == f"from {TOOLS[tool].name}"
        (selection,) = selected(response).selections
        probability = Router([Route("x", TOOLS[tool].description)], OverlapScorer()).route(query).score
        assert selection.index == tool
        assert f"'{TOOLS[tool].name}' fits the query, with probability {probability:.2f}" in selection.reason


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("fallback", ["other", 2])
def test_abstaining_takes_the_fallback(fallback: str | int, asynchronous: bool) -> None:
    selector = GLiClassSelector(scorer=OverlapScorer(), threshold=0.6, fallback=fallback)
    engine = RouterQueryEngine(selector, engines(), llm=MockLLM())
    ask = aquery_of(engine) if asynchronous else engine.query
    assert str(ask(BILLING)) == "from billing"
    response = ask(NEITHER)
    assert str(response) == "from other"
    assert "'other' is the fallback" in selected(response).reason


@pytest.mark.parametrize("multi", [False, True])
def test_abstaining_without_a_fallback_says_what_to_do(multi: bool) -> None:
    selector = GLiClassSelector(scorer=OverlapScorer(), threshold=0.6, multi=multi)
    engine = RouterQueryEngine(selector, engines(), llm=MockLLM())
    with pytest.raises(InputError, match=r"no tool is likely enough: .*GLiClassSelector\(fallback="):
        engine.query(NEITHER)
    with pytest.raises(InputError, match="no tool is likely enough"):
        aquery_of(engine)(NEITHER)


def test_several_tools_may_be_selected_at_once() -> None:
    selector = GLiClassSelector(scorer=OverlapScorer(), multi=True, fallback="other")
    engine = RouterQueryEngine(selector, engines(), llm=MockLLM())
    for ask in (engine.query, aquery_of(engine)):
        assert selected(ask(BOTH)).inds == [0, 1]
        assert selected(ask(CRASH)).inds == [1]
        assert selected(ask(NEITHER)).inds == [2]


def test_a_router_retriever_asks_the_selected_retrievers() -> None:
    tools = [RetrieverTool(FixedRetriever(tool.name or ""), tool) for tool in TOOLS]
    single = RouterRetriever(GLiClassSelector(scorer=OverlapScorer(), threshold=0.6, fallback=2), tools, llm=MockLLM())
    assert [found.text for found in single.retrieve(CRASH)] == ["tech"]
    assert [found.text for found in asyncio.run(single.aretrieve(NEITHER))] == ["other"]
    multi = RouterRetriever(GLiClassSelector(scorer=OverlapScorer(), multi=True), tools, llm=MockLLM())
    assert [found.text for found in multi.retrieve(BOTH)] == ["tech"]  # one id, by which the framework merges
    with pytest.raises(InputError, match="fallback"):
        multi.retrieve(NEITHER)


def test_a_tool_without_a_name_of_its_own_goes_by_its_description() -> None:
    named = GLiClassSelector(scorer=OverlapScorer())
    strings = [tool.description for tool in TOOLS]
    shared = [ToolMetadata(name="query_engine_tool", description=description) for description in strings]
    for choices in (strings, shared, [TOOLS[0], *strings[1:]]):
        assert [named.select(choices, query).ind for query in (BILLING, CRASH)] == [0, 1]  # type: ignore[arg-type]
    first, *_ = strings
    by_index = GLiClassSelector(scorer=OverlapScorer(), threshold=0.6, fallback=1)
    by_description = GLiClassSelector(scorer=OverlapScorer(), threshold=0.6, fallback=first)
    assert by_index.select(strings, NEITHER).ind == 1
    assert by_description.select(strings, NEITHER).ind == 0
    with pytest.raises(InputError, match="another route's"):
        named.select([first, first], BILLING)
    with pytest.raises(InputError, match="at least one tool"):
        named.select([], BILLING)


@pytest.mark.parametrize("fallback", ["query_engine_tool", "nobody", 3, -1])
def test_a_fallback_that_is_no_tool_is_told_at_the_first_query(fallback: str | int) -> None:
    selector = GLiClassSelector(scorer=OverlapScorer(), fallback=fallback)
    with pytest.raises(InputError, match=r"fallback: expected one of the tools.*'billing'"):
        selector.select(TOOLS, BILLING)


def test_a_saved_router_decides_by_its_own_routes_and_fallback(tmp_path: Path) -> None:
    routes = [
        Route("tech", "errors crashes and configuration", examples=("it is on fire",)),
        Route("billing", "refunds"),
    ]
    Router(routes, OverlapScorer(), threshold=0.6, fallback="other").save(tmp_path / "routes.json")
    router = Router.load(tmp_path / "routes.json", scorer=OverlapScorer())
    selector = GLiClassSelector(router=router)
    assert selector.select(TOOLS, CRASH).ind == 1
    assert selector.select(TOOLS, "it is on fire").ind == 1
    assert selector.select(TOOLS, NEITHER).ind == 2
    assert GLiClassSelector(router=router, fallback="billing").select(TOOLS, NEITHER).ind == 0
    with pytest.raises(InputError, match=r"route: .*'tech'"):
        selector.select([TOOLS[0], TOOLS[2]], CRASH)
    with pytest.raises(OptionError, match="router"):
        GLiClassSelector(router=router, threshold=0.5)


def test_a_selector_has_no_prompts() -> None:
    selector = GLiClassSelector(scorer=OverlapScorer())
    engine = RouterQueryEngine(selector, engines(), llm=MockLLM())
    assert selector.get_prompts() == {}
    engine.update_prompts({})
    with pytest.raises(OptionError, match="threshold"):
        GLiClassSelector(threshold=2)


# Evaluator

ANSWER = "Cats chase mice. Dogs write long books. Birds eat stones."
EVIDENCE = ["dogs sleep.", "all cats chase mice.", "so false birds eat stones."]


def evaluate(evaluator: BaseEvaluator, asynchronous: bool, **arguments: Any) -> EvaluationResult:
    return asyncio.run(evaluator.aevaluate(**arguments)) if asynchronous else evaluator.evaluate(**arguments)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_is_judged_claim_by_claim(asynchronous: bool) -> None:
    evaluator = GLiClassFaithfulnessEvaluator(scorer=OverlapScorer())
    result = evaluate(evaluator, asynchronous, query="q", response=ANSWER, contexts=EVIDENCE)
    report = FactChecker(OverlapScorer()).check(ANSWER, EVIDENCE)
    assert [claim.verdict for claim in report.claims] == ["supported", "not_enough_info", "refuted"]
    assert (result.query, result.response, result.contexts) == ("q", ANSWER, EVIDENCE)
    assert (result.passing, result.score, result.invalid_result) == (False, report.supported, False)
    assert result.feedback is not None
    head, *lines = result.feedback.splitlines()
    assert head == "1 of 3 claims supported by the contexts:"
    for line, claim in zip(lines, report.claims, strict=True):
        assert line.startswith(f"- {claim.verdict.replace('_', ' ')} (support {claim.support:.2f}")
        assert claim.text in line
        assert f'context {claim.evidence}: "{EVIDENCE[claim.evidence]}"' in line


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_passes_if_all_is_supported(asynchronous: bool) -> None:
    evaluator = GLiClassFaithfulnessEvaluator(scorer=OverlapScorer())
    for response, contexts in [(CLAIM, [SUPPORTING]), (CLAIM, ("", " ", SUPPORTING)), ("...", [SUPPORTING])]:
        result = evaluate(evaluator, asynchronous, response=response, contexts=contexts, reference="ignored")
        assert (result.passing, result.score, result.invalid_result) == (True, 1.0, False)
    strict = GLiClassFaithfulnessEvaluator(scorer=OverlapScorer(), threshold=1.0)
    assert not evaluate(strict, asynchronous, response=CLAIM, contexts=[SUPPORTING]).passing


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("response", "contexts"), [("", [SUPPORTING]), (CLAIM, []), (CLAIM, ["", " "])])
def test_what_cannot_be_checked_fails_and_says_so(response: str, contexts: list[str], asynchronous: bool) -> None:
    evaluator = GLiClassFaithfulnessEvaluator(model=NO_ROUTE)
    result = evaluate(evaluator, asynchronous, response=response, contexts=contexts)
    assert (result.passing, result.score, result.invalid_result) == (False, 0.0, True)
    assert result.feedback == result.invalid_reason
    assert "no text" in (result.feedback or "")


def test_response_and_contexts_are_needed() -> None:
    evaluator = GLiClassFaithfulnessEvaluator(scorer=OverlapScorer())
    for arguments in ({"response": CLAIM}, {"contexts": [SUPPORTING]}, {}):
        with pytest.raises(InputError, match="expected both"):
            evaluator.evaluate(**arguments)
    with pytest.raises(OptionError, match="refute_threshold"):
        GLiClassFaithfulnessEvaluator(refute_threshold=-1)
    assert evaluator.get_prompts() == {}


@pytest.mark.usefixtures("_mock_llm")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_retry_query_engine_asks_again_until_the_answer_holds(asynchronous: bool) -> None:
    engine = FixedEngine("Birds eat stones.", "Dogs write long books.", CLAIM, "never asked", sources=EVIDENCE)
    retrying = RetryQueryEngine(engine, GLiClassFaithfulnessEvaluator(scorer=OverlapScorer()))
    response = asyncio.run(retrying.aquery("what?")) if asynchronous else retrying.query("what?")
    assert str(response) == CLAIM
    assert len(engine.asked) == 3
    assert "refuted" in engine.asked[1]
    assert "Birds eat stones." in engine.asked[1]


@pytest.mark.usefixtures("_mock_llm")
def test_a_retry_query_engine_survives_an_answer_without_sources() -> None:
    engine = FixedEngine("Empty Response", sources=[])
    RetryQueryEngine(engine, GLiClassFaithfulnessEvaluator(scorer=OverlapScorer()), max_retries=2).query("what?")
    assert len(engine.asked) == 3


# FactCheckedQueryEngine


def ask(engine: BaseQueryEngine, asynchronous: bool) -> Response:
    response = asyncio.run(engine.aquery("what?")) if asynchronous else engine.query("what?")
    assert isinstance(response, Response)
    return response


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", ["annotate", "filter"])
def test_an_answer_carries_verdicts_and_loses_what_is_unsupported(mode: Any, asynchronous: bool) -> None:
    inner = FixedEngine(ANSWER, sources=EVIDENCE)
    response = ask(FactCheckedQueryEngine(inner, mode=mode, scorer=OverlapScorer()), asynchronous)
    assert response.source_nodes == inner.sources
    assert response.metadata is not None
    assert response.metadata["kept"] == "yes"
    verdicts = response.metadata["fact_check"]
    contents = [found.get_content(MetadataMode.LLM) for found in inner.sources]
    report = FactChecker(OverlapScorer()).check(ANSWER, contents)
    assert verdicts["answer"] == ANSWER
    assert (verdicts["supported"], verdicts["passed"]) == (report.supported, report.passed)
    for saved, claim in zip(verdicts["claims"], report.claims, strict=True):
        assert (saved["text"], saved["verdict"], saved["evidence"]) == (claim.text, claim.verdict, claim.evidence)
        assert (saved["support"], saved["refute"]) == (claim.support, claim.refute)
        assert saved["node_id"] == inner.sources[claim.evidence].node_id
    assert json.loads(json.dumps(verdicts))["claims"][0]["verdict"] == "supported"
    expected = ANSWER if mode == "annotate" else FactChecker(OverlapScorer()).filter(ANSWER, contents)
    assert response.response == expected
    assert (expected == ANSWER) == (mode == "annotate")


sentence = st.lists(st.sampled_from("cats chase mice dogs write books".split()), min_size=1, max_size=4).map(
    lambda words: " ".join(words).capitalize() + "."
)


@settings(max_examples=25)
@given(st.lists(sentence, min_size=1, max_size=4), st.lists(sentence, min_size=1, max_size=3), st.booleans())
def test_filtering_is_the_checkers(answer: list[str], sources: list[str], lenient: bool) -> None:
    keep: Any = ("supported", "not_enough_info") if lenient else ("supported",)
    engine = FactCheckedQueryEngine(
        FixedEngine(" ".join(answer), sources=sources),
        scorer=OverlapScorer(),
        keep=keep,
        empty_answer="",
        metadata_mode=MetadataMode.NONE,
    )
    assert ask(engine, False).response == FactChecker(OverlapScorer()).filter(" ".join(answer), sources, keep=keep)


@pytest.mark.parametrize("sources", [[], [""]])
def test_an_answer_without_sources_stays_where_that_is_kept(sources: list[str]) -> None:
    engine = FactCheckedQueryEngine(
        FixedEngine(CLAIM, sources=sources),
        scorer=OverlapScorer(),
        keep=("supported", "not_enough_info"),
        metadata_mode=MetadataMode.NONE,
    )
    assert ask(engine, False).response == CLAIM


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_of_which_nothing_is_left_is_a_sentence_of_ones_choice(asynchronous: bool) -> None:
    for sources in ([UNRELATED], [""], []):
        inner = FixedEngine(CLAIM, sources=sources)
        by_default = ask(FactCheckedQueryEngine(inner, scorer=OverlapScorer()), asynchronous)
        assert by_default.response == "The sources do not support an answer."
        chosen = FactCheckedQueryEngine(
            inner, scorer=OverlapScorer(), empty_answer="I do not know.", metadata_mode=MetadataMode.NONE
        )
        response = ask(chosen, asynchronous)
        assert response.response == "I do not know."
        assert response.metadata is not None
        assert (response.metadata["fact_check"]["supported"], response.metadata["fact_check"]["passed"]) == (0.0, False)
        annotating = FactCheckedQueryEngine(
            inner, mode="annotate", scorer=OverlapScorer(), metadata_mode=MetadataMode.NONE
        )
        assert ask(annotating, asynchronous).response == CLAIM


def test_a_greeting_stays_with_what_is_supported_but_is_no_answer_alone() -> None:
    for answer, left in [("Hello! Cats chase mice.", "Hello! Cats chase mice."), ("Hello! Dogs write books.", "None.")]:
        engine = FactCheckedQueryEngine(
            FixedEngine(answer, sources=[SUPPORTING]), scorer=OverlapScorer(), only_claims=True, empty_answer="None."
        )
        assert ask(engine, False).response == left


@pytest.mark.parametrize("answer", [None, "", " "])
def test_an_empty_answer_is_left_alone(answer: str | None) -> None:
    response = ask(FactCheckedQueryEngine(FixedEngine(answer, sources=EVIDENCE), model=NO_ROUTE), False)
    assert response.response == answer
    assert response.metadata is not None
    assert response.metadata["fact_check"]["passed"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_blank_sources_say_nothing_and_keep_their_places(asynchronous: bool) -> None:
    sources = ["", *EVIDENCE, " "]
    inner = FixedEngine(ANSWER, sources=sources)
    engine = FactCheckedQueryEngine(inner, scorer=OverlapScorer(), metadata_mode=MetadataMode.NONE)
    response = ask(engine, asynchronous)
    places = [claim.evidence + 1 for claim in FactChecker(OverlapScorer()).check(ANSWER, EVIDENCE).claims]
    assert response.metadata is not None
    claims = response.metadata["fact_check"]["claims"]
    assert [(claim["evidence"], claim["node_id"]) for claim in claims] == [
        (place, inner.sources[place].node_id) for place in places
    ]
    evaluator = GLiClassFaithfulnessEvaluator(scorer=OverlapScorer())
    feedback = evaluate(evaluator, asynchronous, response=ANSWER, contexts=sources).feedback
    assert feedback is not None
    assert all(f"context {place}:" in line for place, line in zip(places, feedback.splitlines()[1:], strict=True))


def test_streams_are_read_to_their_end() -> None:
    def stream(answer: str, **others: Any) -> StreamingResponse:
        return StreamingResponse((word for word in answer.split(" ")), **others)

    def async_stream(answer: str, **others: Any) -> AsyncStreamingResponse:
        async def tokens() -> Any:
            yield answer

        return AsyncStreamingResponse(tokens(), **others)

    streaming = FactCheckedQueryEngine(FixedEngine("yes", sources=["yes"], make=stream), scorer=ConstantScorer(1.0))
    assert (ask(streaming, False).response, ask(streaming, True).response) == ("yes", "yes")
    later = FactCheckedQueryEngine(FixedEngine(CLAIM, sources=EVIDENCE, make=async_stream), scorer=OverlapScorer())
    assert ask(later, True).response == CLAIM
    with pytest.raises(InputError, match="use aquery"):
        later.query("what?")


def test_an_answer_that_is_no_text_is_refused() -> None:
    class Structured(BaseModel):
        name: str

    engine = FactCheckedQueryEngine(FixedEngine(Structured(name="x"), make=PydanticResponse), scorer=OverlapScorer())
    with pytest.raises(InputError, match="expected text, got Structured"):
        engine.query("what?")


@pytest.mark.parametrize("options", [{"mode": "drop"}, {"keep": ("true",)}, {"keep": "supported"}, {"threshold": 7}])
def test_impossible_options_of_the_engine_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        FactCheckedQueryEngine(FixedEngine(CLAIM), **options)


def test_the_parts_work_together_in_a_query_engine() -> None:
    inner = RetrieverQueryEngine.from_args(
        FixedRetriever(*PASSAGES), llm=MockLLM(), node_postprocessors=[GLiClassRerank(scorer=OverlapScorer(), top_n=2)]
    )
    engine = FactCheckedQueryEngine(inner, mode="annotate", scorer=OverlapScorer())
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert places(response.source_nodes) == [1, 2]
        assert response.metadata is not None
        assert "fact_check" in response.metadata
    assert any(name.startswith("query_engine:") for name in engine.get_prompts())


# Threads, and the event loop


def test_eight_threads_rank_as_one_does() -> None:
    part = GLiClassRerank(scorer=SleepyScorer(0.001))
    queries = [QUERY, "sort a list", "read", "rename folder"] * 8
    nodes = nodes_of(PASSAGES)
    alone = [outcome(part.postprocess_nodes(nodes, query_str=query)) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: outcome(part.postprocess_nodes(nodes, query_str=query)), queries))
    assert together == alone


Task = Callable[[Scorer], Awaitable[object]]


@pytest.mark.parametrize(
    "task",
    [
        lambda scorer: GLiClassRerank(scorer=scorer).apostprocess_nodes(nodes_of(PASSAGES), query_str=QUERY),
        lambda scorer: GLiClassFactCheckFilter(scorer=scorer).apostprocess_nodes(nodes_of(PASSAGES), query_str=CLAIM),
        lambda scorer: GLiClassSelector(scorer=scorer).aselect(TOOLS, BILLING),
        lambda scorer: GLiClassFaithfulnessEvaluator(scorer=scorer).aevaluate(response=ANSWER, contexts=EVIDENCE),
        lambda scorer: FactCheckedQueryEngine(FixedEngine(ANSWER, sources=EVIDENCE), scorer=scorer).aquery("what?"),
    ],
    ids=["rerank", "filter", "selector", "evaluator", "engine"],
)
def test_the_event_loop_goes_on_meanwhile(task: Task) -> None:
    async def beats_during_the_task() -> int:
        beats, working = 0, asyncio.ensure_future(task(SleepyScorer(0.3)))
        while not working.done():
            await asyncio.sleep(0.01)
            beats += 1
        await working
        return beats

    assert asyncio.run(beats_during_the_task()) >= 5  # of 30; a loop that is blocked beats once or twice


@needs_mini
def test_a_model_is_loaded_once_on_first_use_whoever_comes_first() -> None:
    lazy = LazyScorer("mini")
    with ThreadPoolExecutor(8) as pool:
        infos = list(pool.map(lambda _: lazy.info, range(8)))
    assert all(info is infos[0] for info in infos)
    found = GLiClassRerank(scorer=lazy).postprocess_nodes(nodes_of(PASSAGES), query_str=QUERY)
    ranking = Reranker(lazy).rank(QUERY, PASSAGES)
    assert outcome(found) == [(ranked.index, ranked.score) for ranked in ranking]
