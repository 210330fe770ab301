"""rerankers' API models. They always ask for all documents; a refusal is what reading it as a ranking raises."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from functools import partial

from rerankers import Reranker
from trial import Call, Client, Hit, conduct

PATHS = {
    "cohere": "/v1/rerank",
    "jina": "/v1/rerank",
    "voyage": "/v1/rerank",
    "text-embeddings-inference": "/rerank",
}


def rank(provider: str, call: Call) -> list[Hit]:
    ranker = Reranker("any", model_type=provider, api_key=call.key, url=call.url + PATHS[provider], verbose=0)
    ranked = ranker.rank(call.query, list(call.documents))
    return [Hit(one.document.doc_id, one.score) for one in ranked.results[: call.top_n]]


conduct(
    *(
        Client(
            f"rerankers, {provider}",
            ["rerankers"],
            f'Reranker(NAME, model_type="{provider}", url=URL + "{path}")',
            partial(rank, provider),
            wrong_key=TypeError if path == "/rerank" else KeyError,
            empty_query=TypeError if path == "/rerank" else KeyError,
            busy=TypeError if path == "/rerank" else KeyError,
        )
        for provider, path in PATHS.items()
    )
)
