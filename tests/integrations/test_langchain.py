"""The LangChain parts do as the tasks do, the framework's way: copies, callbacks, async, batches, streams."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import pickle
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("langchain_core")

import gliclass_rerank_langchain
from conftest import needs_mini
from fakes import OverlapScorer
from gliclass_rerank_langchain import (
    GLiClassCrossEncoder,
    GLiClassFactCheck,
    GLiClassRerank,
    GLiClassRetriever,
    GLiClassRouter,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.load import dumpd, dumps
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from gliclass_rerank import (
    FactChecker,
    InputError,
    InvalidTextError,
    ModelNotFoundError,
    NoPromptsError,
    OptionError,
    Reranker,
    Route,
    Router,
    Scorer,
    ScoreRequest,
    load_scorer,
)
from gliclass_rerank.types import FloatArray

QUERY = "copy a file"
PASSAGES = ["rename a folder", "copy a file and its mode", "read a file", "sort a list", "read a file", "no such words"]
BEST = [1, 2, 4, 0, 3, 5]  # with two ties

word = st.sampled_from("copy a file read sort list folder open close move".split())
text = st.lists(word, min_size=1, max_size=6).map(" ".join)
few = settings(deadline=None, max_examples=25)


class SlowScorer(OverlapScorer):
    """Takes its time, as a model does, and leaves the interpreter to others meanwhile."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        time.sleep(0.2)
        return super().score(requests)


class ListRetriever(BaseRetriever):
    """Gives its documents, the first ``k``, as a retriever of keywords might."""

    documents: list[Document]
    k: int = 2

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents[: self.k]


class Runs(BaseCallbackHandler):
    """Remembers which runs began, with their parents and tags."""

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}
        self.parents: dict[str, str | None] = {}
        self.tags: dict[str, list[str]] = {}
        self.errors: list[BaseException] = []

    def _began(self, run_id: UUID, parent_run_id: UUID | None, options: dict[str, Any]) -> None:
        self.names[run_id] = name = options["name"]
        self.parents[name] = self.names[parent_run_id] if parent_run_id else None
        self.tags[name] = options["tags"] or []

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._began(run_id, parent_run_id, kwargs)

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._began(run_id, parent_run_id, kwargs)

    def on_chain_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self.errors.append(error)


def documents(passages: Sequence[str] = PASSAGES) -> list[Document]:
    return [
        Document(page_content=passage, metadata={"place": i, "nested": {"list": [i]}}, id=str(i))
        for i, passage in enumerate(passages)
    ]


def store(passages: Sequence[str] = PASSAGES) -> InMemoryVectorStore:
    filled = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    filled.add_documents(documents(passages))
    return filled


def places(found: Sequence[Document]) -> list[int]:
    return [document.metadata["place"] for document in found]


def scores(found: Sequence[Document]) -> list[float]:
    return [document.metadata["relevance_score"] for document in found]


def test_all_parts_are_public() -> None:
    public = gliclass_rerank_langchain.__all__
    found = {name for name in vars(gliclass_rerank_langchain) if name.startswith("GLiClass")}
    assert public == sorted(found | {"GLiClassDecisionModel"})  # which is imported on first use
    assert all(getattr(gliclass_rerank_langchain, name).__name__ == name for name in public)


def fresh_python(code: str) -> str:
    lines = f"import sys; sys.path[:0] = {sys.path!r}\n{code}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout


def test_importing_loads_no_backend() -> None:
    code = "import gliclass_rerank_langchain; print({'torch', 'onnxruntime', 'transformers'} & sys.modules.keys())"
    assert fresh_python(code) == "set()\n"


def test_without_langchain_the_extra_is_named() -> None:
    code = (
        "sys.modules['langchain_core'] = None\ntry: import gliclass_rerank_langchain\nexcept ImportError as e: print(e)"
    )
    assert "pip install 'gliclass-rerank[langchain]'" in fresh_python(code)


# GLiClassRerank


@few
@given(text, st.lists(text, max_size=8), st.none() | st.integers(1, 9), st.none() | st.floats(0, 1))
def test_top_n_and_threshold_are_the_core_rerankers(
    query: str, passages: list[str], top_n: int | None, threshold: float | None
) -> None:
    scorer = OverlapScorer()
    found = GLiClassRerank(scorer=scorer, top_n=top_n, threshold=threshold).compress_documents(
        documents(passages), query
    )
    ranking = Reranker(scorer).rank(query, passages, top_n=top_n, threshold=threshold)
    assert [(i, score) for i, score in zip(places(found), scores(found), strict=True)] == [
        (ranked.index, ranked.score) for ranked in ranking
    ]


def test_the_score_goes_where_it_is_wanted() -> None:
    found = GLiClassRerank(scorer=OverlapScorer(), score_key="score").compress_documents(documents(), QUERY)
    assert [document.metadata["score"] for document in found] == [
        ranked.score for ranked in Reranker(OverlapScorer()).rank(QUERY, PASSAGES)
    ]
    assert not any("relevance_score" in document.metadata for document in found)


def test_the_documents_given_stay_as_they_are() -> None:
    stored = documents()
    before = copy.deepcopy(stored)
    for _ in range(2):
        found = GLiClassRerank(scorer=OverlapScorer()).compress_documents(stored, QUERY)
        assert stored == before
    for document in found:
        original = before[document.metadata["place"]]
        assert document.id == original.id
        assert document.metadata == {**original.metadata, "relevance_score": document.metadata["relevance_score"]}


def test_async_gives_the_same() -> None:
    part = GLiClassRerank(scorer=OverlapScorer(), top_n=3)
    assert asyncio.run(part.acompress_documents(documents(), QUERY)) == part.compress_documents(documents(), QUERY)


def test_no_documents_need_no_model() -> None:
    part = GLiClassRerank(model="nowhere")
    assert list(part.compress_documents([], QUERY)) == []
    assert asyncio.run(part.acompress_documents([], QUERY)) == []
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        part.compress_documents(documents(), QUERY)


def test_the_first_stages_scores_are_taken_from_the_metadata() -> None:
    prior = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    given_documents = documents()
    for document, score in zip(given_documents, prior, strict=True):
        document.metadata["bm25"] = score
    part = GLiClassRerank(scorer=OverlapScorer(), first_stage_key="bm25", first_stage_weight=2)
    ranking = Reranker(OverlapScorer()).rank(QUERY, PASSAGES, first_stage_scores=prior, first_stage_weight=2)
    assert scores(part.compress_documents(given_documents, QUERY)) == [ranked.score for ranked in ranking]
    del given_documents[2].metadata["bm25"]
    with pytest.raises(InputError, match=r"document 2: expected the first stage's score in metadata\['bm25'\]"):
        part.compress_documents(given_documents, QUERY)


def test_an_instruction_is_the_rerankers() -> None:
    part = GLiClassRerank(scorer=OverlapScorer(prompts=True), instruction="read")
    ranking = Reranker(OverlapScorer(prompts=True)).rank(QUERY, PASSAGES, instruction="read")
    assert scores(part.compress_documents(documents(), QUERY)) == [ranked.score for ranked in ranking]
    with pytest.raises(NoPromptsError):
        GLiClassRerank(scorer=OverlapScorer(), instruction="read").compress_documents(documents(), QUERY)


def test_what_the_core_refuses_is_refused() -> None:
    with pytest.raises(InvalidTextError, match="query"):
        GLiClassRerank(scorer=OverlapScorer()).compress_documents(documents(), " ")
    with pytest.raises(InvalidTextError, match="passage 1"):
        GLiClassRerank(scorer=OverlapScorer()).compress_documents(documents(["a", ""]), QUERY)


@pytest.mark.parametrize(
    "options",
    [{"top_n": 0}, {"threshold": 1.1}, {"first_stage_weight": -1}, {"top": 3}, {"scorer": "mini"}, {"model": 3}],
)
def test_impossible_options_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        GLiClassRerank(**options)


def test_it_compresses_in_a_contextual_compression_retriever() -> None:
    pytest.importorskip("langchain_classic")
    from langchain_classic.retrievers import ContextualCompressionRetriever

    part = GLiClassRerank(scorer=OverlapScorer(), top_n=3)
    retriever = ContextualCompressionRetriever(
        base_compressor=part, base_retriever=store().as_retriever(search_kwargs={"k": 6})
    )
    found = retriever.invoke(QUERY)
    assert places(found)[0] == 1
    assert scores(found) == [ranked.score for ranked in Reranker(OverlapScorer()).rank(QUERY, PASSAGES, top_n=3)]
    assert asyncio.run(retriever.ainvoke(QUERY)) == found


def test_it_compresses_in_a_pipeline() -> None:
    pytest.importorskip("langchain_classic")
    from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline

    stages: list[Any] = [GLiClassRerank(scorer=OverlapScorer(), top_n=n) for n in (4, 2)]
    assert places(DocumentCompressorPipeline(transformers=stages).compress_documents(documents(), QUERY)) == BEST[:2]


# GLiClassRetriever

if importlib.util.find_spec("langchain_tests") is None:

    @pytest.mark.skip(reason="langchain-tests is not installed")
    def test_the_frameworks_own_tests() -> None: ...

else:
    from langchain_tests.integration_tests import RetrieversIntegrationTests

    @pytest.mark.asyncio  # one of them is
    @pytest.mark.filterwarnings("ignore:.*is marked with.*asyncio:pytest.PytestWarning")
    class TestGLiClassRetriever(RetrieversIntegrationTests):
        """What LangChain wants of any retriever."""

        @property
        def retriever_constructor(self) -> type[BaseRetriever]:
            return GLiClassRetriever

        @property
        def retriever_constructor_params(self) -> dict[str, Any]:
            return {"retriever": store().as_retriever(), "scorer": OverlapScorer()}

        @property
        def retriever_query_example(self) -> str:
            return QUERY


def retrieving(base: Runnable[str, list[Document]], **options: Any) -> GLiClassRetriever:
    return GLiClassRetriever(retriever=base, scorer=OverlapScorer(), **options)


@pytest.mark.parametrize("search_type", ["similarity", "mmr"])
def test_a_vector_store_fetches_what_is_to_be_reranked(search_type: str) -> None:
    base = store([f"passage {i}" for i in range(30)]).as_retriever(search_type=search_type, search_kwargs={"k": 1})
    scorer = OverlapScorer()
    retriever = GLiClassRetriever(retriever=base, scorer=scorer, k=3, fetch_k=25)
    assert len(retriever.invoke(QUERY)) == 3
    assert len(retriever.invoke(QUERY, k=7, fetch_k=12)) == 7
    assert len(asyncio.run(retriever.ainvoke(QUERY, k=14, fetch_k=12))) == 14  # at least as many as are returned
    assert scorer.calls == [25, 12, 14]
    assert base.search_kwargs == {"k": 1}


def test_a_field_k_is_set_for_the_call_only() -> None:
    base = ListRetriever(documents=documents())
    assert places(retrieving(base).invoke(QUERY)) == BEST[:4]
    assert places(retrieving(base, fetch_k=3, k=2).invoke(QUERY)) == [1, 2]
    assert base.k == 2


def test_without_fetch_k_the_base_fetches_what_it_is_told_to() -> None:
    assert sorted(places(retrieving(ListRetriever(documents=documents()), fetch_k=None).invoke(QUERY))) == [0, 1]


def test_any_runnable_that_gives_documents_will_do() -> None:
    base: Runnable[str, list[Document]] = RunnableLambda(lambda query: documents())
    assert places(retrieving(base, k=6).invoke(QUERY)) == BEST
    assert places(asyncio.run(retrieving(base, k=6).ainvoke(QUERY))) == BEST
    assert retrieving(RunnableLambda(lambda query: [])).invoke(QUERY) == []


def test_stages_may_be_stacked() -> None:
    inner = retrieving(ListRetriever(documents=documents()), k=1)
    assert places(retrieving(inner, k=2, fetch_k=5).invoke(QUERY)) == BEST[:2]
    assert inner.k == 1


@pytest.mark.parametrize(
    "invoke", [GLiClassRetriever.invoke, lambda *a, **o: asyncio.run(GLiClassRetriever.ainvoke(*a, **o))]
)
def test_the_base_retrievers_run_is_a_child(invoke: Callable[..., list[Document]]) -> None:
    runs = Runs()
    config: RunnableConfig = {"callbacks": [runs], "tags": ["tagged"]}
    invoke(retrieving(store().as_retriever()), QUERY, config)
    assert runs.parents == {"GLiClassRetriever": None, "VectorStoreRetriever": "GLiClassRetriever"}
    assert "tagged" in runs.tags["VectorStoreRetriever"]


def test_k_must_be_positive() -> None:
    for k in (0, "5", True):
        with pytest.raises(OptionError, match="k: expected a number from 1 on"):
            retrieving(ListRetriever(documents=[])).invoke(QUERY, k=k)
    with pytest.raises(OptionError, match="fetch_k: expected a number from 1 on, got 0"):
        retrieving(ListRetriever(documents=documents())).invoke(QUERY, fetch_k=0)
    with pytest.raises(ValidationError):
        retrieving(ListRetriever(documents=documents()), k=0)
    with pytest.raises(TypeError, match="top_k"):
        retrieving(ListRetriever(documents=documents())).invoke(QUERY, top_k=3)


def test_options_may_be_configurable() -> None:
    retriever = retrieving(ListRetriever(documents=documents())).configurable_fields(k=ConfigurableField(id="k"))
    assert len(retriever.with_config(configurable={"k": 1}).invoke(QUERY)) == 1


# GLiClassCrossEncoder


@few
@given(st.lists(st.tuples(text, text), max_size=8), st.sampled_from(["passage-as-text", "passage-as-label"]))
def test_pairs_score_as_each_alone_in_one_batch(pairs: list[tuple[str, str]], direction: Any) -> None:
    scorer = OverlapScorer(direction=direction)
    alone = [Reranker(scorer).rank(query, [passage])[0].score for query, passage in pairs]
    scorer.calls.clear()
    assert GLiClassCrossEncoder(scorer=scorer).score(pairs) == alone
    assert scorer.calls == ([len(pairs)] if pairs else [])
    assert all(0 <= score <= 1 for score in alone)


def test_a_bad_pair_is_named() -> None:
    with pytest.raises(InvalidTextError, match="pair 1, passage"):
        GLiClassCrossEncoder(scorer=OverlapScorer()).score([("a", "b"), ("a", "")])


def test_it_scores_in_langchains_cross_encoder_reranker() -> None:
    pytest.importorskip("langchain_classic")
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker

    theirs = CrossEncoderReranker(model=GLiClassCrossEncoder(scorer=OverlapScorer()), top_n=6)
    assert places(theirs.compress_documents(documents(), QUERY)) == BEST


# GLiClassRouter

ROUTES = (Route("billing", "questions about an invoice or a refund"), Route("tech", "an error or a crash"))
BILLING, TECH, BOTH, NEITHER = "my invoice refund", "crash error", "an invoice or an error questions crash", "hello"


def said(name: str) -> Callable[[Any], str]:
    return lambda given: f"{name}: {given['question'] if isinstance(given, dict) else given}"


def routing(*, scorer: Scorer | None = None, **options: Any) -> GLiClassRouter:
    branches = {name: said(name) for name in ("billing", "tech", "other")}
    given: dict[str, Any] = {"routes": ROUTES, "branches": branches, "scorer": scorer or OverlapScorer()}
    return GLiClassRouter(**given | options)


@pytest.mark.parametrize("given", [BILLING, {"question": BILLING, "more": 1}])
def test_an_input_goes_to_the_branch_that_fits(given: Any) -> None:
    before = copy.deepcopy(given)
    router = routing()
    assert router.invoke(given) == f"billing: {BILLING}"
    assert asyncio.run(router.ainvoke(given)) == f"billing: {BILLING}"
    assert router.decide(given) == asyncio.run(router.adecide(given)) == "billing"
    assert given == before


@few
@given(
    st.lists(st.lists(st.sampled_from("invoice refund error crash my".split()), min_size=1).map(" ".join), max_size=6)
)
def test_decisions_are_the_core_routers_and_a_batch_is_scored_at_once(queries: list[str]) -> None:
    scorer = OverlapScorer()
    router = routing(scorer=scorer, threshold=0.1, fallback="other")
    core = Router(ROUTES, OverlapScorer(), threshold=0.1, fallback="other")
    expected = [f"{core.route(query).name}: {query}" for query in queries]
    assert router.batch(list(queries)) == expected
    assert asyncio.run(router.abatch(list(queries))) == expected
    assert scorer.calls == [len(queries)] * 2 if queries else not scorer.calls
    assert [router.invoke(query) for query in queries] == expected


@pytest.mark.parametrize("key", ["input", lambda given: given["input"]])
def test_the_query_may_be_anywhere(key: Any) -> None:
    assert routing(key=key).decide({"input": TECH}) == "tech"


@pytest.mark.parametrize("given", [{"input": TECH}, 3, ["a"]])
def test_an_input_without_a_query_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="expected a string or a dict with the key 'question'"):
        routing().invoke(given)
    with pytest.raises(InvalidTextError):
        routing().invoke({"question": 3})


def test_abstention_goes_to_the_fallback() -> None:
    router = routing(threshold=0.3, fallback="other")
    assert router.invoke(NEITHER) == "other: hello"
    assert router.decide(NEITHER) == "other"
    assert routing(threshold=0.3, fallback="other", multi=True).invoke(NEITHER) == {"other": "other: hello"}


@pytest.mark.parametrize("multi", [False, True])
def test_abstention_without_a_fallback_says_what_to_do(multi: bool) -> None:
    router = routing(threshold=0.3, multi=multi)
    for call in (router.invoke, router.decide, lambda query: asyncio.run(router.ainvoke(query))):
        with pytest.raises(InputError, match=r"the best, 'billing', has 0\.047; name a fallback="):
            call(NEITHER)


def test_several_branches_may_run() -> None:
    router = routing(multi=True, threshold=0.2)
    both = {"billing": f"billing: {BOTH}", "tech": f"tech: {BOTH}"}
    assert router.invoke(BOTH) == both
    assert asyncio.run(router.ainvoke(BOTH)) == both
    assert router.decide(BOTH) == ["billing", "tech"]
    assert router.batch([BOTH, TECH, BOTH]) == [both, {"tech": f"tech: {TECH}"}, both]
    assert asyncio.run(router.abatch([BOTH, TECH])) == [both, {"tech": f"tech: {TECH}"}]


def chunks(parts: Iterator[Any]) -> Iterator[str]:
    for part in parts:
        yield from str(part).split()


async def achunks(parts: AsyncIterator[Any]) -> AsyncIterator[str]:
    async for part in parts:
        for chunk in str(part).split():
            yield chunk


def test_a_stream_is_the_branchs_own() -> None:
    async def collected(stream: AsyncIterator[Any]) -> list[Any]:
        return [chunk async for chunk in stream]

    branches = {name: RunnableGenerator(chunks, achunks) for name in ("billing", "tech")}
    router = routing(branches=branches)
    assert list(router.stream(BILLING)) == BILLING.split()
    assert asyncio.run(collected(router.astream(BILLING))) == BILLING.split()
    assert list((RunnableLambda(str.lower) | router).stream(BILLING.upper())) == BILLING.split()
    several = routing(branches=branches, multi=True, threshold=0.2)
    streamed = list(several.stream(BOTH))
    for name in branches:
        assert [chunk[name] for chunk in streamed if name in chunk] == BOTH.split()


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "batch", "abatch"])
def test_a_branchs_run_is_a_child_and_gets_the_config(how: str) -> None:
    seen: list[RunnableConfig] = []

    def branch(given: str, config: RunnableConfig) -> str:
        seen.append(config)
        return given

    runs = Runs()
    router = routing(branches={"billing": RunnableLambda(branch, name="branch"), "tech": str})
    config: RunnableConfig = {
        "callbacks": [runs], "tags": ["tagged"], "metadata": {"user": "u"}, "configurable": {"x": 1},
    }  # fmt: skip
    result = getattr(router, how)([BILLING] if how.endswith("batch") else BILLING, config)
    if how.startswith("a"):
        result = asyncio.run(_awaited(result))
    assert list(result) == [BILLING] if how in ("stream", "batch", "abatch") else result == BILLING
    assert runs.parents == {"GLiClassRouter": None, "branch": "GLiClassRouter"}
    assert "tagged" in runs.tags["branch"]
    assert seen[0]["configurable"] == {"x": 1}
    assert seen[0]["metadata"]["user"] == "u"


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def test_options_bound_to_the_router_are_the_branchs() -> None:
    def branch(given: str, *, mark: str = "") -> str:
        return given + mark

    router = routing(branches={"billing": branch, "tech": branch})
    assert router.bind(mark="!").invoke(BILLING) == BILLING + "!"
    assert router.bind(mark="!").batch([TECH]) == [TECH + "!"]
    assert routing(branches=router.branches, multi=True).invoke(BOTH, mark="!")["tech"] == BOTH + "!"


class Batches(RunnableLambda[Any, Any]):
    """Remembers the sizes of its batches."""

    sizes: list[int]

    def batch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        self.sizes = [*getattr(self, "sizes", []), len(inputs)]
        return super().batch(inputs, *args, **kwargs)


@pytest.mark.parametrize("config", [None, {"max_concurrency": 1}])
def test_a_branch_gets_its_share_as_a_batch(config: RunnableConfig | None) -> None:
    billing, tech = Batches(said("billing")), Batches(said("tech"))
    router = routing(branches={"billing": billing, "tech": tech})
    answers = router.batch([BILLING, TECH, BILLING], config)
    assert [answer.split(":")[0] for answer in answers] == ["billing", "tech", "billing"]
    assert (billing.sizes, tech.sizes) == ([2], [1])


@pytest.mark.parametrize("how", ["batch", "abatch"])
def test_errors_of_a_batch_stay_apart_if_wanted(how: str) -> None:
    def tech(given: str) -> str:
        raise KeyError(given)

    runs, scorer = Runs(), OverlapScorer()
    router = routing(branches={"billing": said("billing"), "tech": tech}, threshold=0.3, scorer=scorer)

    def batch(inputs: list[str], **options: Any) -> list[Any]:
        result = getattr(router, how)(inputs, {"callbacks": [runs]}, **options)
        return list(asyncio.run(_awaited(result)) if how == "abatch" else result)

    good, abstained, failed = batch([BILLING, NEITHER, TECH], return_exceptions=True)
    assert good == f"billing: {BILLING}"
    assert isinstance(abstained, InputError)
    assert isinstance(failed, KeyError)
    assert scorer.calls == [3]
    assert abstained in runs.errors
    empty, fine = batch(["", BILLING], return_exceptions=True)
    assert isinstance(empty, InvalidTextError)
    assert fine == good
    with pytest.raises(InputError, match="no route is likely enough"):
        batch([BILLING, NEITHER])
    assert batch([]) == []


def test_it_is_one_step_of_a_chain() -> None:
    chain = {"question": RunnablePassthrough()} | routing() | RunnableLambda(str.upper)
    assert chain.invoke(BILLING) == f"BILLING: {BILLING.upper()}"
    assert chain.batch([BILLING, TECH]) == [f"BILLING: {BILLING.upper()}", f"TECH: {TECH.upper()}"]


def test_a_router_that_was_made_elsewhere_is_used_as_it_is() -> None:
    core = Router(ROUTES, OverlapScorer(), threshold=0.3, fallback="other")
    branches = {name: said(name) for name in ("billing", "tech", "other")}
    router = GLiClassRouter(router=core, branches=branches)
    assert router.batch([BILLING, NEITHER]) == [f"billing: {BILLING}", "other: hello"]
    for wrong in ({"threshold": 0.5}, {"scorer": OverlapScorer()}, {"routes": ROUTES}):
        with pytest.raises(ValidationError, match="router"):
            GLiClassRouter(router=core, branches=branches, **wrong)


def test_without_branches_it_decides_only() -> None:
    router = GLiClassRouter(routes=ROUTES, scorer=OverlapScorer(), threshold=0.3, fallback="__end__")
    assert [router.decide({"question": query}) for query in (TECH, NEITHER)] == ["tech", "__end__"]
    with pytest.raises(OptionError, match="branches: expected one for 'tech', got none"):
        router.invoke(TECH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"routes": ()}, "either routes or a router"),
        ({"branches": {"billing": str}}, "got none for .'tech'"),
        ({"fallback": "nobody"}, "got none for .'nobody'"),
        ({"threshold": 2}, "threshold"),
        ({"routers": 1}, "routers"),
        ({"branches": [str]}, "expected a dict from names to Runnables, got list"),
    ],
)
def test_routers_that_cannot_be_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        routing(**options)


# GLiClassFactCheck

ANSWER = "Berlin has many lakes. Paris sank in 1900."
SOURCES = documents(["Nothing here.", "Berlin has many lakes.", "It is not so."])
STATE = {"answer": ANSWER, "context": SOURCES, "question": "Which lakes?"}


def checking(**options: Any) -> GLiClassFactCheck:
    return GLiClassFactCheck(scorer=OverlapScorer(), **options)


@pytest.mark.parametrize("context", [SOURCES, tuple(SOURCES), [source.page_content for source in SOURCES]])
def test_an_answer_is_annotated_and_all_else_passed_on(context: Any) -> None:
    state = {**STATE, "context": context}
    before = copy.deepcopy(state)
    checked = checking().invoke(state)
    report = FactChecker(OverlapScorer()).check(ANSWER, [source.page_content for source in SOURCES])
    assert state == before
    assert checked == {**state, "fact_check": [asdict(claim) for claim in report.claims], "supported": 0.5}
    assert checked["context"] is context
    assert [claim["verdict"] for claim in checked["fact_check"]] == ["supported", "refuted"]
    assert asyncio.run(checking().ainvoke(state)) == checked


@pytest.mark.parametrize("context", ["Berlin has many lakes.", SOURCES[1]])
def test_a_single_source_will_do(context: Any) -> None:
    assert checking().invoke({**STATE, "context": context})["supported"] == 0.5


sentence = st.lists(st.sampled_from("berlin has many lakes paris sank".split()), min_size=2, max_size=6)
answers = st.lists(sentence.map(lambda words: " ".join(words).capitalize() + "."), min_size=1, max_size=4)
verdicts = st.sampled_from(["supported", "refuted", "not_enough_info"])


@few
@given(answers.map(" ".join) | answers.map("\n- ".join), st.lists(verdicts, min_size=1, unique=True))
def test_filtering_is_the_fact_checkers_with_one_call_of_the_scorer(answer: str, keep: Any) -> None:
    scorer = OverlapScorer()
    part = GLiClassFactCheck(scorer=scorer, mode="filter", keep=keep, empty_answer="-")
    filtered = FactChecker(OverlapScorer()).filter(answer, [SOURCES[1].page_content], keep=keep)
    checked = part.invoke({"answer": answer, "context": SOURCES[1:2]})
    assert checked["answer"] == (filtered or "-")
    assert scorer.calls == [1]


def test_a_message_stays_a_message() -> None:
    message = AIMessage(ANSWER, id="1", response_metadata={"model": "m"})
    checked = checking(mode="filter", answer_key="reply").invoke({"reply": message, "context": SOURCES})
    assert checked["reply"] == AIMessage("Berlin has many lakes.", id="1", response_metadata={"model": "m"})
    assert message.content == ANSWER
    with pytest.raises(InputError, match="put a StrOutputParser"):
        checking().invoke({**STATE, "answer": AIMessage([{"type": "text", "text": "a"}])})


def test_where_nothing_remains_a_sentence_of_ones_own_does() -> None:
    part = checking(mode="filter", empty_answer="I do not know.")
    assert part.invoke({**STATE, "context": "Nothing."})["answer"] == "I do not know."
    assert part.invoke({**STATE, "answer": AIMessage(ANSWER), "context": "Nothing."})["answer"].content == (
        "I do not know."
    )


@pytest.mark.parametrize("context", [[], "", " \n"])
def test_nothing_is_supported_by_no_documents(context: Any) -> None:
    state = {**STATE, "context": context}
    assert checking().invoke(state) == {**state, "fact_check": [], "supported": 0.0}
    assert checking(mode="filter", empty_answer="-").invoke(state)["answer"] == "-"
    assert checking(mode="filter", keep=["supported", "not_enough_info"]).invoke(state)["answer"] == ANSWER


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("text", "input: expected a dict, got str"),
        ({"answer": ANSWER}, "expected the key 'context', got 'answer'; set context_key="),
        ({"context": SOURCES}, "expected the key 'answer', got 'context'; set answer_key="),
        ({**STATE, "answer": 3}, "answer: expected a string or a message"),
        ({**STATE, "context": 3}, "context: expected documents or strings, got int"),
        ({**STATE, "context": ["a", 3]}, "context 1: expected a document or a string, got int"),
    ],
)
def test_what_cannot_be_checked_is_refused(state: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checking().invoke(state)


def test_blank_sources_say_nothing_and_keep_their_places() -> None:
    straight = checking().invoke(STATE)
    shifted = checking().invoke(
        {**STATE, "context": ["", *STATE["context"], Document(" "), "\u200b", Document("\ufeff")]}
    )
    assert [claim["evidence"] + 1 for claim in straight["fact_check"]] == [
        claim["evidence"] for claim in shifted["fact_check"]
    ]
    assert shifted["supported"] == straight["supported"]


@pytest.mark.parametrize("answer", ["", AIMessage(" ")])
def test_a_blank_answer_claims_nothing_and_stays(answer: Any) -> None:
    state = {**STATE, "answer": answer}
    for mode in ("annotate", "filter"):
        assert checking(mode=mode).invoke(state) == {**state, "fact_check": [], "supported": 1.0}


@pytest.mark.parametrize("how", ["batch", "abatch"])
def test_a_batch_is_checked_in_one_call(how: str) -> None:
    scorer = OverlapScorer()
    part = GLiClassFactCheck(scorer=scorer, mode="filter")
    states: list[Any] = [STATE, {**STATE, "context": []}, {**STATE, "context": SOURCES[:1]}]

    def batch(inputs: list[Any], **options: Any) -> list[Any]:
        result = getattr(part, how)(inputs, **options)
        return list(asyncio.run(_awaited(result)) if how == "abatch" else result)

    checked = batch(states)
    assert scorer.calls == [4]
    assert checked == [part.invoke(state) for state in states]
    first, error = batch([STATE, {"answer": ""}], return_exceptions=True)
    assert first == checked[0]
    assert isinstance(error, InputError)
    with pytest.raises(InputError):
        batch([STATE, {"answer": ""}])


def test_it_is_the_step_after_the_model() -> None:
    retriever = retrieving(ListRetriever(documents=SOURCES))
    chain: Runnable[Any, Any] = (
        {"question": RunnablePassthrough(), "context": retriever}
        | RunnablePassthrough.assign(answer=RunnableLambda(lambda state: AIMessage(ANSWER)))
        | checking(mode="filter")
    )
    runs = Runs()
    checked = chain.invoke("berlin lakes", {"callbacks": [runs]})
    assert checked["answer"].content == "Berlin has many lakes."
    assert sorted(places(checked["context"])) == [0, 1, 2]
    assert runs.parents["GLiClassFactCheck"] == "RunnableSequence"
    assert list(chain.stream("berlin lakes"))[-1]["supported"] == 0.5


# What holds for all


def parts(scorer: Scorer | None) -> list[Any]:
    return [
        GLiClassRerank(scorer=scorer, top_n=3, threshold=0.2, first_stage_key="bm25"),
        GLiClassRetriever(scorer=scorer, retriever=ListRetriever(documents=documents()), k=3, fetch_k=None),
        GLiClassCrossEncoder(scorer=scorer, model="some/folder"),
        routing(scorer=scorer, multi=True, threshold=0.3, fallback="other"),
        GLiClassFactCheck(scorer=scorer, mode="filter", keep=("supported", "not_enough_info")),
    ]


GIVEN_AGAIN = ("retriever", "branches")  # what is not ours to write down


@pytest.mark.parametrize("place", range(5))
def test_options_go_round_without_the_scorer(place: int) -> None:
    part = parts(OverlapScorer())[place]
    again = {name: getattr(part, name) for name in GIVEN_AGAIN if hasattr(part, name)}
    for saved, load in ((part.model_dump(), part.model_validate), (part.model_dump(mode="json"), part.model_validate)):
        assert not saved.keys() & {"scorer", *GIVEN_AGAIN}
        back = load({**saved, **again})
        assert back.scorer is None
        assert back.model_dump() == part.model_dump()
    assert "OverlapScorer" not in part.model_dump_json() + repr(part)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda part: part.model_copy(update={"top_n": 3})])
def test_copies_do_the_same(copied: Callable[[Any], Any]) -> None:
    part = GLiClassRerank(scorer=OverlapScorer(), top_n=3)
    assert copied(part).compress_documents(documents(), QUERY) == part.compress_documents(documents(), QUERY)


@needs_mini
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_parts_with_a_loaded_model_are_copied_and_pickled(copied: Callable[[Any], Any]) -> None:
    part = GLiClassRerank(scorer=load_scorer("mini"), top_n=3)
    assert copied(part).compress_documents(documents(), QUERY) == part.compress_documents(documents(), QUERY)


def test_what_is_restored_reads_the_same_model_or_fails() -> None:
    part = GLiClassRerank(scorer=OverlapScorer())
    assert GLiClassRerank(**part.model_dump()).model == part.model == "overlap"


def test_a_configured_call_finds_the_model_again() -> None:
    part = GLiClassFactCheck(model="some/folder").configurable_fields(threshold=ConfigurableField(id="t"))
    assert isinstance(part, DynamicRunnable)
    one, other = (part.prepare({"configurable": {"t": t}})[0] for t in (0.5, 0.7))
    assert isinstance(one, GLiClassFactCheck)
    assert isinstance(other, GLiClassFactCheck)
    assert (one.threshold, other.threshold) == (0.5, 0.7)
    assert one._scorer() is other._scorer()
    assert GLiClassRerank(model="another/folder")._scorer() is not one._scorer()


def test_langchain_may_write_the_fact_check_down() -> None:
    written = dumpd(checking(mode="filter", threshold=0.25))
    assert written["type"] == "constructor"
    assert GLiClassFactCheck(**written["kwargs"]) == GLiClassFactCheck(mode="filter", threshold=0.25, model="overlap")
    assert "OverlapScorer" not in dumps(checking())


@pytest.mark.parametrize(
    "call",
    [
        lambda scorer: GLiClassRerank(scorer=scorer).acompress_documents(documents(), QUERY),
        lambda scorer: GLiClassRetriever(scorer=scorer, retriever=ListRetriever(documents=documents())).ainvoke(QUERY),
        lambda scorer: routing(scorer=scorer).ainvoke(BILLING),
        lambda scorer: routing(scorer=scorer).abatch([BILLING]),
        lambda scorer: routing(scorer=scorer).adecide(BILLING),
        lambda scorer: GLiClassFactCheck(scorer=scorer).ainvoke(STATE),
        lambda scorer: GLiClassFactCheck(scorer=scorer).abatch([STATE]),
    ],
)
def test_the_event_loop_goes_on(call: Callable[[Scorer], Awaitable[Any]]) -> None:
    async def beats_during(work: Awaitable[Any]) -> int:
        beats = 0
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.sleep(0.01)
            beats += 1
        await task
        return beats

    async def run() -> int:
        return await beats_during(call(SlowScorer()))

    assert asyncio.run(run()) > 3  # one, if the loop stood still


def test_eight_threads_give_what_one_gives() -> None:
    reranker, router, checker = GLiClassRerank(scorer=OverlapScorer()), routing(), checking()

    def work(place: int) -> Any:
        passages = PASSAGES[place % 3 :]
        query = (BILLING, TECH)[place % 2]
        return (
            reranker.compress_documents(documents(passages), QUERY),
            router.invoke(query),
            checker.invoke({**STATE, "context": SOURCES[place % 3 :]}),
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [work(place) for place in range(24)]


@needs_mini
def test_a_model_is_loaded_once_when_it_is_needed() -> None:
    part = GLiClassRerank(model="mini", top_n=2)
    assert part._scorer() is part._scorer()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: part.compress_documents(documents(), QUERY), range(8)))
    assert all(result == results[0] for result in results)
    assert copy.deepcopy(part)._scorer() is part._scorer()
    assert pickle.loads(pickle.dumps(part)).compress_documents(documents(), QUERY) == results[0]
