"""The bundled model behind LlamaIndex and LangChain, from many threads at once and beside a busy event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

pytest.importorskip("llama_index.core")
pytest.importorskip("langchain_core")

import gliclass_rerank_langchain as langchain
import gliclass_rerank_llama_index as llama_index
from conftest import needs_mini
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from gliclass_rerank import Scorer, load_scorer

QUERY = "how do I copy a file with its permissions?"
PASSAGES = [
    f"Entry {i}: a function of the library that {'copies a file and its mode' if i % 7 == 0 else 'sorts a list'}. " * 4
    for i in range(100)
]
BEAT = 0.01  # seconds
LONGEST_GAP = 0.05
TRIES = 3  # the machine does other things as well


@cache
def mini() -> Scorer:
    return load_scorer("mini")


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=str(i), text=text)) for i, text in enumerate(PASSAGES)]


def documents() -> list[Document]:
    return [Document(text, id=str(i)) for i, text in enumerate(PASSAGES)]


async def llama_index_work() -> object:
    part = llama_index.GLiClassRerank(scorer=mini())
    return await part.apostprocess_nodes(nodes(), query_str=QUERY)


async def langchain_work() -> object:
    return await langchain.GLiClassRerank(scorer=mini()).acompress_documents(documents(), QUERY)


async def longest_gap_beside(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds by which the latest beat of a heart came after the one before, while the work was done."""
    working = asyncio.ensure_future(work())
    beat, longest, beats = time.perf_counter(), 0.0, 0
    while not working.done():
        await asyncio.sleep(BEAT)
        now = time.perf_counter()
        beat, longest, beats = now, max(longest, now - beat), beats + 1
    await working
    assert beats >= 5  # else the work was too short to say anything
    return longest


@needs_mini
@pytest.mark.slow
@pytest.mark.parametrize("work", [llama_index_work, langchain_work])
def test_an_event_loop_is_never_blocked_for_long(work: Callable[[], Awaitable[object]]) -> None:
    mini()  # loading is no part of it
    gaps: list[float] = []
    while len(gaps) < TRIES and min(gaps, default=1.0) > LONGEST_GAP:
        gaps.append(asyncio.run(longest_gap_beside(work)))
    assert min(gaps) <= LONGEST_GAP, gaps


@needs_mini
@pytest.mark.slow
def test_eight_threads_get_what_one_gets() -> None:
    nodes_part = llama_index.GLiClassRerank(scorer=mini())
    documents_part = langchain.GLiClassRerank(scorer=mini())
    queries = [QUERY, "sort a list", "entry 3", "which function copies files?"] * 2

    def work(place: int) -> object:
        few, query = slice(place, place + 8), queries[place]
        found = nodes_part.postprocess_nodes(nodes()[few], query_str=query)
        return (
            [(one.node_id, one.score) for one in found],
            list(documents_part.compress_documents(documents()[few], query)),
        )

    alone = [work(place) for place in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == alone
