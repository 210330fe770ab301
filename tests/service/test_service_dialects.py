"""The ranking dialects, as their clients send and read them; and: all of them rank as the library does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import MINI, Scorers, needs_mini
from fakes import OverlapScorer
from gliclass_rerank_service import Settings, create_app
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import post
from starlette.testclient import TestClient

from gliclass_rerank import InputError, Reranker, Scorer, load_scorer
from gliclass_rerank.tasks.fact_check.sentences import split_sentences
from gliclass_rerank.validation import is_blank

QUERY = "red apple"
DOCUMENTS = ["a green pear", "a red apple", "the red door"]
RANKED = [1, 2, 0]
V2 = {"model": "rerank-v3.5", "query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(OverlapScorer(window=20), Settings())) as made:
        yield made


def order(results: list[dict[str, Any]]) -> list[int]:
    return [result["index"] for result in results]


# What each client sends, word by word, and what it reads.


def test_cohere_v2_sends_null_for_what_is_not_set(client: TestClient) -> None:
    body = V2 | {"top_n": 2, "max_tokens_per_doc": None, "relevant_spans": None, "priority": None}
    reply = post(client, "/v2/rerank", **body)
    assert order(reply["results"]) == RANKED[:2]
    assert set(reply["results"][0]) == {"index", "relevance_score"}
    assert isinstance(reply["id"], str)
    meta = reply["meta"]
    assert meta["api_version"] == {"version": "2"}
    assert meta["billed_units"]["search_units"] == 1
    assert meta["tokens"]["input_tokens"] == reply["usage"]["total_tokens"] > 0
    assert "warnings" not in meta


def test_what_would_lose_text_is_not_done_and_the_answer_says_so(client: TestClient) -> None:
    reply = post(client, "/v2/rerank", **V2, max_tokens_per_doc=1)
    assert order(reply["results"]) == RANKED
    assert reply["meta"]["warnings"] == ["max_tokens_per_doc: not applied; documents are read to their end, in windows"]


@pytest.mark.parametrize(
    ("document", "options", "read"),
    [
        ({"text": "a red apple", "id": 7}, {}, "a red apple"),
        ({"title": "a red", "body": "apple", "n": 3}, {"rank_fields": ["title", "body"]}, "a red\napple"),
        (
            {"title": "a red apple", "size": [1, None]},
            {"rank_fields": ["size", "title", "none"]},
            "[1, null]\na red apple",
        ),
        ({"title": "a red apple"}, {"rank_fields": ["title", "title"]}, "a red apple"),
    ],
)
def test_cohere_v1_takes_objects_and_their_fields(
    client: TestClient, document: dict[str, Any], options: dict[str, Any], read: str
) -> None:
    body = V2 | {"documents": [*DOCUMENTS[::2], document], "return_documents": True, **options}
    if options:
        body["documents"] = [{"title": text} for text in DOCUMENTS[::2]] + [document]
    results = post(client, "/v1/rerank", **body)["results"]
    assert order(results) == [2, 1, 0]
    assert results[0]["document"] == {"text": read}


def test_jina(client: TestClient) -> None:
    reply = post(client, "/v1/rerank", **V2, top_n=3, return_documents=True)
    assert set(reply["usage"]) == {"total_tokens", "prompt_tokens"}
    assert [one["document"]["text"] for one in reply["results"]] == [DOCUMENTS[i] for i in RANKED]


def test_voyage(client: TestClient) -> None:
    reply = post(client, "/v1/rerank", **V2, top_k=2, truncation=True)
    assert reply["object"] == "list"
    assert order(reply["data"]) == RANKED[:2]
    assert reply["usage"]["total_tokens"] > 0
    shown = post(client, "/v1/rerank", **V2, top_k=None, truncation=True, return_documents=True)["data"]
    assert [one["document"] for one in shown] == [DOCUMENTS[i] for i in RANKED]


def test_top_n_counts_before_top_k(client: TestClient) -> None:
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        assert order(post(client, path, **V2, top_n=1, top_k=2)["results"]) == RANKED[:1]


def test_tei_reads_a_bare_list(client: TestClient) -> None:
    reply = post(client, "/rerank", query=QUERY, texts=DOCUMENTS)
    assert order(reply) == RANKED
    assert set(reply[0]) == {"index", "score"}
    raw = post(client, "/rerank", query=QUERY, texts=DOCUMENTS, raw_scores=True, return_text=True, truncate=True)
    assert [(one["index"], one["score"], one["text"]) for one in raw] == [
        (1, 1.0, DOCUMENTS[1]), (2, -1.0, DOCUMENTS[2]), (0, -3.0, DOCUMENTS[0])
    ]  # fmt: skip


def test_rerankers_asks_tei_with_model_and_text(client: TestClient) -> None:
    reply = post(client, "/rerank", query=QUERY, texts=DOCUMENTS, model="m", top_n=2, return_text=False)
    assert order(reply) == RANKED[:2]
    assert set(reply[0]) == {"index", "score"}


def test_dify_says_texts_and_reads_an_object(client: TestClient) -> None:
    reply = post(client, "/rerank", query=QUERY, texts=DOCUMENTS, model="m", top_n=2)
    assert order(reply["results"]) == RANKED[:2]


def test_infinity_reads_documents_as_strings(client: TestClient) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "model": "m", "raw_scores": False}
    reply = post(client, "/rerank", **body, return_documents=True)
    assert reply["object"] == "rerank"
    assert {"results", "model", "usage", "id", "created"} <= set(reply)
    assert [one["document"] for one in reply["results"]] == [DOCUMENTS[i] for i in RANKED]
    assert "document" not in post(client, "/rerank", **body, return_documents=False)["results"][0]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_vllm_asks_for_all_by_zero_and_always_gets_documents(client: TestClient, path: str) -> None:
    reply = post(client, path, **V2, top_n=0, truncate_prompt_tokens=None)
    assert order(reply["results"]) == RANKED
    assert reply["results"][0]["document"] == {"text": DOCUMENTS[1]}
    assert {"id", "model", "usage"} <= set(reply)


def test_open_webui_gets_every_document_back(client: TestClient) -> None:
    reply = post(client, "/v1/rerank", **V2, top_n=len(DOCUMENTS))
    assert sorted(order(reply["results"])) == [0, 1, 2]


def test_ragflow_sends_booleans_as_strings(client: TestClient) -> None:
    reply = post(client, "/v1/rerank", **V2, top_n=3, return_documents="false")
    assert "document" not in reply["results"][0]
    assert all(0 <= one["relevance_score"] <= 1 for one in reply["results"])
    shown = post(client, "/v1/rerank", **V2, top_n=3, return_documents="true")
    assert shown["results"][0]["document"] == {"text": DOCUMENTS[1]}


def test_unknown_fields_and_other_model_names_are_tolerated(client: TestClient) -> None:
    reply = post(client, "/v2/rerank", **V2, user={"id": 1})
    assert reply["model"] == "overlap"


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_long_documents_are_read_as_asked(client: TestClient, path: str) -> None:
    """The only word of the query stands behind the first window."""
    document = " ".join(["and"] * 30 + ["apple"])
    scores = {
        way: post(client, path, query="apple", documents=[document], **given)["results"][0]["relevance_score"]
        for way, given in [
            ("default", {}),
            ("window", {"long_text": "window"}),
            ("truncate", {"long_text": "truncate"}),
        ]
    }
    assert scores["truncate"] < scores["window"] == scores["default"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_first_stage_scores_are_fused_as_in_the_library(client: TestClient, path: str) -> None:
    scores = [0.5, -3.0, 12.0]
    fused = post(client, path, query=QUERY, documents=DOCUMENTS[:3], first_stage_scores=scores)["results"]
    expected = Reranker(OverlapScorer()).rank(QUERY, DOCUMENTS[:3], first_stage_scores=scores)
    assert [(one["index"], one["relevance_score"]) for one in fused] == [(one.index, one.score) for one in expected]
    alone = post(client, path, query=QUERY, documents=DOCUMENTS[:3])["results"]
    assert [one["relevance_score"] for one in alone] != [one["relevance_score"] for one in fused]


def test_first_stage_scores_are_one_a_document(client: TestClient) -> None:
    response = client.post("/rerank", json={"query": "a", "documents": ["b", "c"], "first_stage_scores": [1.0]})
    assert response.status_code == 422
    assert "first_stage_scores: expected 2 finite scores" in response.json()["message"]


def test_a_list_longer_than_the_documents_is_all_of_them(client: TestClient) -> None:
    assert order(post(client, "/v2/rerank", **V2, top_n=10**30)["results"]) == RANKED


# Relevant spans.

LONG = "The moon is bright. A red apple fell. Nobody saw it. The apple was red 😀. Rain."


def test_relevant_spans_are_the_sentences_that_answer_in_code_points(client: TestClient) -> None:
    body = V2 | {"documents": [LONG, "green pear"]}
    results = post(client, "/v2/rerank", **body, relevant_spans={"mode": "enabled", "threshold": 0.2})["results"]
    spans = results[0]["relevant_spans"]
    assert [LONG[span["start"] : span["end"]] for span in spans] == ["A red apple fell.", "The apple was red 😀."]
    assert all(0.2 <= span["score"] <= 1 for span in spans)
    assert "relevant_spans" not in results[1]  # nothing relevant in it


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"mode": "enabled", "threshold": 0}, 5),
        ({"mode": "enabled", "threshold": 0, "max_spans": 2}, 2),
        ({"mode": "enabled", "threshold": None, "max_spans": None}, 2),  # 0.1, as Cohere has it
        ({"mode": "disabled"}, 0),
    ],
)
def test_spans_are_limited(client: TestClient, options: dict[str, Any], count: int) -> None:
    result = post(client, "/v2/rerank", **(V2 | {"documents": [LONG]}), relevant_spans=options)["results"][0]
    assert len(result.get("relevant_spans", [])) == count


def test_a_span_scores_as_a_document_of_its_own(client: TestClient) -> None:
    spans = post(
        client, "/v2/rerank", **(V2 | {"documents": [LONG]}), relevant_spans={"mode": "enabled", "threshold": 0}
    )["results"][0]["relevant_spans"]
    sentences = [LONG[one.start : one.end] for one in split_sentences(LONG)]
    alone = post(client, "/v2/rerank", **(V2 | {"documents": sentences}))["results"]
    assert [span["score"] for span in spans] == [one["relevance_score"] for one in alone]


# The law: a ranking over HTTP is the library's own.

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(
    lambda text: not is_blank(text)
)


def check_equal(client: TestClient, scorer: Scorer, query: str, passages: list[str], top_n: int | None) -> None:
    try:
        expected = Reranker(scorer).rank(query, passages, top_n=top_n)
    except InputError as error:  # a text of which the tokenizer leaves nothing
        response = client.post("/v2/rerank", json={"query": query, "documents": passages, "top_n": top_n})
        assert response.status_code == 422
        assert response.json()["message"] == str(error)  # noqa: PT017
        return
    scores = [(one.index, one.score) for one in expected]
    body = {"query": query, "top_n": top_n}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        results = post(client, path, **body, documents=passages)["results"]
        assert [(one["index"], one["relevance_score"]) for one in results] == scores
    bare = post(client, "/rerank", **body, texts=passages)
    assert [(one["index"], one["score"]) for one in bare] == scores
    raw = post(client, "/rerank", **body, texts=passages, raw_scores=True)
    assert [(one["index"], one["score"]) for one in raw] == [(one.index, one.logit) for one in expected]


@pytest.fixture(scope="module")
def tiny_client(scorers: Scorers) -> Iterator[TestClient]:
    with TestClient(create_app(scorers("bert-simple", "onnx"), Settings())) as made:
        yield made


@settings(max_examples=20)
@given(texts, st.lists(texts, min_size=1, max_size=6), st.integers(0, 3), st.none() | st.integers(1, 4))
def test_a_tiny_model_ranks_alike_over_http(
    scorers: Scorers, tiny_client: TestClient, query: str, passages: list[str], copies: int, top_n: int | None
) -> None:
    tied = passages + passages[:copies]  # equal texts have equal scores, and keep their order
    check_equal(tiny_client, scorers("bert-simple", "onnx"), query, tied, top_n)


@needs_mini
def test_the_bundled_model_ranks_alike_over_http() -> None:
    scorer = load_scorer(MINI)
    passages = [*DOCUMENTS, LONG, LONG * 60, "日本の首都は東京です。", *DOCUMENTS]  # one of them is read in windows
    with TestClient(create_app(scorer, Settings())) as client:
        check_equal(client, scorer, "which apple is red?", passages, None)
