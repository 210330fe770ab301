"""Vectors of texts as parts of LangChain and LlamaIndex, by a model with independent labels."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import Spec, build_checkpoint
from conftest import needs_mini

from gliclass_rerank import InputError, UnsupportedModelError, load_scorer
from gliclass_rerank.scorers.base import LocalScorer

langchain = pytest.importorskip("gliclass_rerank_langchain")
llama_index = pytest.importorskip("gliclass_rerank_llama_index")

FLAGS = {
    "class_token_pooling": "average",
    "pooling_strategy": "avg",
    "extract_text_features": True,
    "normalize_features": True,
}
TEXTS = ["the court found the contract void", "she plays the violin in an orchestra", "bread rises because of yeast"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = build_checkpoint(Spec("embeds", "bert", FLAGS), tmp_path_factory.mktemp("embeds")).folder
    (made / "gliclass_rerank.json").write_text(json.dumps({"labels": "independent"}), "utf-8")
    return made


@pytest.fixture(scope="module")
def scorer(folder: Path) -> LocalScorer:
    loaded = load_scorer(folder)
    assert isinstance(loaded, LocalScorer)
    return loaded


def test_langchain_gives_the_scorers_vectors(scorer: LocalScorer, folder: Path) -> None:
    for embeddings in (
        langchain.GLiClassEmbeddings(scorer=scorer),
        langchain.GLiClassEmbeddings(model=str(folder)),
    ):
        vectors = np.array(embeddings.embed_documents(TEXTS))
        assert vectors == pytest.approx(scorer.embed(TEXTS), abs=1e-5)
        assert embeddings.embed_query(TEXTS[1]) == pytest.approx(vectors[1].tolist(), abs=1e-5)
        assert embeddings.embed_documents([]) == []


def test_langchain_store_finds_a_text_by_itself(scorer: LocalScorer) -> None:
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore.from_texts(TEXTS, langchain.GLiClassEmbeddings(scorer=scorer))
    assert [store.similarity_search(text, k=1)[0].page_content for text in TEXTS] == TEXTS


def test_llama_index_gives_the_scorers_vectors(scorer: LocalScorer, folder: Path) -> None:
    for embedding in (
        llama_index.GLiClassEmbedding(scorer=scorer),
        llama_index.GLiClassEmbedding(model_name=str(folder)),
    ):
        expected = scorer.embed(TEXTS)
        assert np.array(embedding.get_text_embedding_batch(TEXTS)) == pytest.approx(expected, abs=1e-5)
        assert embedding.get_query_embedding(TEXTS[0]) == pytest.approx(expected[0].tolist(), abs=1e-5)
        found = asyncio.run(embedding.aget_text_embedding_batch(TEXTS))
        assert np.array(found) == pytest.approx(expected, abs=1e-5)


def test_llama_index_writes_the_models_name_and_no_weights(scorer: LocalScorer) -> None:
    embedding = llama_index.GLiClassEmbedding(scorer=scorer)
    written = embedding.to_dict()
    assert written["model_name"] == scorer.info.name
    assert "scorer" not in written


def test_llama_index_retrieves_from_an_index(scorer: LocalScorer) -> None:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    embedding = llama_index.GLiClassEmbedding(scorer=scorer)
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
    found = index.as_retriever(similarity_top_k=1).retrieve(TEXTS[2])
    assert found[0].text == TEXTS[2]


@needs_mini
def test_a_model_without_vectors_says_so() -> None:
    for embed in (
        langchain.GLiClassEmbeddings().embed_query,
        llama_index.GLiClassEmbedding().get_text_embedding,
    ):
        with pytest.raises(UnsupportedModelError, match=r"info\.embeds"):
            embed("a text")


def test_an_empty_text_is_refused(scorer: LocalScorer) -> None:
    with pytest.raises(InputError):
        langchain.GLiClassEmbeddings(scorer=scorer).embed_documents(["a text", ""])
