"""voyageai's client. It tries again if it is told how often."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import voyageai
from trial import Call, Client, Hit, conduct


def rank(call: Call) -> list[Hit]:
    client = voyageai.Client(api_key=call.key, base_url=f"{call.url}/v1", max_retries=3)
    ranked = client.rerank(call.query, list(call.documents), model="rerank-2", top_k=call.top_n)
    assert ranked.total_tokens > 0
    return [Hit(one.index, one.relevance_score) for one in ranked.results]


def rank_at_root(call: Call) -> list[Hit]:
    client = voyageai.Client(api_key=call.key, base_url=call.url)
    ranked = client.rerank(call.query, list(call.documents), model="rerank-2", truncation=False)
    return [Hit(one.index, one.relevance_score) for one in ranked.results]


conduct(
    Client(
        "voyageai `Client`",
        ["voyageai"],
        'Client(key, base_url=URL + "/v1", max_retries=3)',
        rank,
        wrong_key=voyageai.error.AuthenticationError,
        empty_query=voyageai.error.MalformedRequestError,
        also={"without /v1": rank_at_root},
    )
)
