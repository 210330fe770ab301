"""cohere's client of its first API: documents come back, and may be objects."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import cohere
from trial import Call, Client, Hit, conduct


def rank(call: Call) -> list[Hit]:
    client = cohere.Client(call.key, base_url=call.url)
    response = client.rerank(model="rerank-v3.5", query=call.query, documents=call.documents, top_n=call.top_n)
    assert all(one.document is None for one in response.results)
    return [Hit(one.index, one.relevance_score) for one in response.results]


def rank_and_return(call: Call) -> list[Hit]:
    response = cohere.Client(call.key, base_url=call.url).rerank(
        query=call.query, documents=call.documents, return_documents=True, max_chunks_per_doc=10
    )
    return [Hit(one.index, one.relevance_score, one.document.text) for one in response.results]


def rank_objects(call: Call) -> list[Hit]:
    objects = [{"number": str(i), "body": text} for i, text in enumerate(call.documents)]
    response = cohere.Client(call.key, base_url=call.url).rerank(
        query=call.query, documents=objects, rank_fields=["body"], return_documents=True
    )
    return [Hit(one.index, one.relevance_score, one.document.text) for one in response.results]


conduct(
    Client(
        "cohere `Client`",
        ["cohere"],
        "Client(key, base_url=URL)",
        rank,
        wrong_key=cohere.UnauthorizedError,
        empty_query=cohere.UnprocessableEntityError,
        also={"return_documents": rank_and_return, "rank_fields": rank_objects},
    )
)
