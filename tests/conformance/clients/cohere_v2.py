"""cohere's client of its second API: spans too."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import cohere
from trial import Call, Client, Hit, conduct


def rank(call: Call) -> list[Hit]:
    client = cohere.ClientV2(api_key=call.key, base_url=call.url)
    response = client.rerank(model="rerank-v3.5", query=call.query, documents=call.documents, top_n=call.top_n)
    return [Hit(one.index, one.relevance_score) for one in response.results]


def rank_with_spans(call: Call) -> list[Hit]:
    client = cohere.ClientV2(api_key=call.key, base_url=call.url)
    wanted = cohere.RerankRelevantSpans(mode="enabled", threshold=0.0, max_spans=2)
    response = client.rerank(
        model="rerank-v3.5", query=call.query, documents=call.documents, relevant_spans=wanted, max_tokens_per_doc=4096
    )
    return [
        Hit(one.index, one.relevance_score, spans=[(span.start, span.end, span.score) for span in one.relevant_spans])
        for one in response.results
    ]


conduct(
    Client(
        "cohere `ClientV2`",
        ["cohere"],
        "ClientV2(key, base_url=URL)",
        rank,
        wrong_key=cohere.UnauthorizedError,
        empty_query=cohere.UnprocessableEntityError,
        also={"relevant_spans": rank_with_spans},
    )
)
