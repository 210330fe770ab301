"""Every door gives what the core gives: the same passages in the same order with the same scores, ties included.

A door takes a query and passages, as its framework wants them, and says which passage came where with which score. What
it hands over stays as it was, and what it gets back are objects of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache

import pytest

pytest.importorskip("llama_index.core")
pytest.importorskip("langchain_core")

import gliclass_rerank_langchain as langchain
import gliclass_rerank_llama_index as llama_index
from conftest import Scorers, needs_mini
from fakes import ConstantScorer, OverlapScorer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import NodeWithScore, TextNode

from gliclass_rerank import Reranker, Scorer, load_scorer

Outcome = list[tuple[int, float]]
Door = Callable[[str, Sequence[str]], Outcome]
Opened = Callable[[Scorer, ExitStack], Door]  # what has to be closed again goes on the stack


def nodes_of(passages: Sequence[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=str(i), text=text), score=1 - i / 100) for i, text in enumerate(passages)]


def documents_of(passages: Sequence[str]) -> list[Document]:
    return [Document(text, id=str(i), metadata={"nested": {"list": [i]}}) for i, text in enumerate(passages)]


def of_nodes(rerank: Callable[[list[NodeWithScore], str], list[NodeWithScore]]) -> Door:
    def door(query: str, passages: Sequence[str]) -> Outcome:
        nodes = nodes_of(passages)
        before = copy.deepcopy(nodes)
        found = rerank(nodes, query)
        assert nodes == before
        assert not {id(one) for one in found} & {id(one) for one in nodes}
        assert all(one.node == nodes[int(one.node_id)].node for one in found)
        return [(int(one.node_id), one.get_score(raise_error=True)) for one in found]

    return door


def of_documents(rerank: Callable[[list[Document], str], Sequence[Document]]) -> Door:
    def door(query: str, passages: Sequence[str]) -> Outcome:
        documents = documents_of(passages)
        before = copy.deepcopy(documents)
        found = rerank(documents, query)
        assert documents == before
        assert not {id(one) for one in found} & {id(one) for one in documents}
        for one in found:
            came = documents[int(one.id or "")]
            score = {"relevance_score": one.metadata["relevance_score"]}
            assert one == came.model_copy(update={"metadata": came.metadata | score})
        return [(int(one.id or ""), one.metadata["relevance_score"]) for one in found]

    return door


def core(scorer: Scorer) -> Door:
    def door(query: str, passages: Sequence[str]) -> Outcome:
        return [(ranked.index, ranked.score) for ranked in Reranker(scorer).rank(query, passages)]

    return door


def postprocessor(scorer: Scorer) -> Door:
    part = llama_index.GLiClassRerank(scorer=scorer)
    return of_nodes(lambda nodes, query: part.postprocess_nodes(nodes, query_str=query))


def compressor(scorer: Scorer) -> Door:
    part = langchain.GLiClassRerank(scorer=scorer)
    return of_documents(part.compress_documents)


def retriever(scorer: Scorer) -> Door:
    def rerank(documents: list[Document], query: str) -> list[Document]:
        finding: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: documents)
        return langchain.GLiClassRetriever(retriever=finding, scorer=scorer, k=max(1, len(documents))).invoke(query)

    return of_documents(rerank)


def cross_encoder(scorer: Scorer) -> Door:
    part = langchain.GLiClassCrossEncoder(scorer=scorer)

    def door(query: str, passages: Sequence[str]) -> Outcome:
        pairs = [(query, passage) for passage in passages]
        scores = part.score(list(pairs))
        return sorted(enumerate(scores), key=lambda scored: -scored[1])  # stable, as frameworks sort

    return door


def posted(scorer: Scorer, stack: ExitStack, path: str, *, passages_as: str = "documents") -> Door:
    """The service, called by a client of Cohere's, or with ``texts`` by one of TEI's."""
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient
    from gliclass_rerank_service import create_app

    client = stack.enter_context(TestClient(create_app(scorer)))

    def door(query: str, passages: Sequence[str]) -> Outcome:
        if not passages:  # these wire formats refuse to rank nothing
            return []
        answer = client.post(path, json={"query": query, passages_as: list(passages)})
        assert answer.status_code == 200, answer.text
        if passages_as == "texts":
            return [(one["index"], one["score"]) for one in answer.json()]
        return [(one["index"], one["relevance_score"]) for one in answer.json()["results"]]

    return door


def remote(scorer: Scorer, stack: ExitStack) -> Scorer:
    """The scorer of a service that runs the scorer."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from gliclass_rerank_service import create_app
    from noisy_service import serving

    return load_scorer(stack.enter_context(serving(create_app(scorer))))


DOORS: dict[str, Opened] = {
    "LlamaIndex": lambda scorer, _: postprocessor(scorer),
    "LangChain's compressor": lambda scorer, _: compressor(scorer),
    "LangChain's retriever": lambda scorer, _: retriever(scorer),
    "LangChain's cross-encoder": lambda scorer, _: cross_encoder(scorer),
    "HTTP, /v2/rerank": lambda scorer, stack: posted(scorer, stack, "/v2/rerank"),
    "HTTP, /rerank": lambda scorer, stack: posted(scorer, stack, "/rerank"),
    "HTTP, /rerank of TEI": lambda scorer, stack: posted(scorer, stack, "/rerank", passages_as="texts"),
    "a service as the model": lambda scorer, stack: core(remote(scorer, stack)),
}


@cache
def mini() -> Scorer:
    return load_scorer("mini")


@pytest.fixture(scope="module", params=[pytest.param("mini", marks=needs_mini), "tiny", "overlap", "constant"])
def scorer(request: pytest.FixtureRequest, scorers: Scorers) -> Scorer:
    """The bundled model, a tiny random one, and two whose scores are often equal, or always."""
    if request.param == "mini":
        return mini()
    if request.param == "tiny":
        return scorers("bert-average-text")
    return OverlapScorer() if request.param == "overlap" else ConstantScorer(0.25)


@pytest.fixture(scope="module", params=list(DOORS))
def door(request: pytest.FixtureRequest, scorer: Scorer) -> Iterator[Door]:
    with ExitStack() as stack:
        yield DOORS[request.param](scorer, stack)


words = st.lists(st.sampled_from("copy a file read sort list folder open close move".split()), min_size=1, max_size=8)
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
texts = words.map(" ".join) | anything.map("a ".__add__)  # so that a tokenizer leaves something of it


@st.composite
def passage_lists(draw: st.DrawFn) -> list[str]:
    """Some passages, of which some come several times, not side by side."""
    passages = draw(st.lists(texts, max_size=6))
    again = draw(st.lists(st.sampled_from(passages), max_size=4)) if passages else []
    return list(draw(st.permutations(passages + again)))


@settings(max_examples=15)
@given(texts, passage_lists())
@example("copy a file", ["read a file", "copy a file", "read a file", "ein Ordner 📁", "copy a file", "sort a list"])
@example("Straße {query} %s", ["{0}", "<<LABEL>> a <<SEP>>", "naïve café", "\u0301a\u200d", "  padded \n", "{0}"])
@example("nothing to rank", [])
def test_every_door_gives_what_the_core_gives(door: Door, scorer: Scorer, query: str, passages: list[str]) -> None:
    given_passages = list(passages)
    outcome = door(query, passages)
    assert outcome == core(scorer)(query, passages)
    assert passages == given_passages


@settings(max_examples=25)
@given(texts, passage_lists())
def test_equal_passages_score_alike_and_keep_their_order(scorer: Scorer, query: str, passages: list[str]) -> None:
    """So it is in the core; by the law above, so it is behind every door."""
    outcome = core(scorer)(query, passages)
    for text in set(passages):
        places, scores = zip(*[one for one in outcome if passages[one[0]] == text], strict=True)
        assert len(set(scores)) == 1
        assert list(places) == sorted(places)
