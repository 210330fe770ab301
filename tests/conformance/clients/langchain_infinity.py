"""LangChain's InfinityRerank, and the client of infinity below it. A key goes into the headers of that client.

InfinityRerank looks at no status: a refusal is what reading it raises. The client below it gives None for a 401 and a
429, and of a 422 reads `detail` as a list, though infinity sends none.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from infinity_client.api.default import rerank
from infinity_client.client import Client as InfinityClient
from infinity_client.models import RerankInput
from langchain_community.document_compressors.infinity_rerank import InfinityRerank
from langchain_core.documents import Document
from trial import Call, Client, Hit, conduct


def make(call: Call) -> InfinityClient:
    return InfinityClient(base_url=call.url).with_headers({"Authorization": f"Bearer {call.key}"})


def rank(call: Call) -> list[Hit]:
    documents = [Document(text, metadata={"place": i}) for i, text in enumerate(call.documents)]
    reranker = InfinityRerank(client=make(call), model="any", top_n=call.top_n)
    ranked = reranker.compress_documents(documents, call.query)
    return [Hit(one.metadata["place"], one.metadata["relevance_score"]) for one in ranked]


def rank_and_return(call: Call) -> list[Hit]:
    body = RerankInput(query=call.query, documents=list(call.documents), return_documents=True, top_n=None)
    reply = rerank.sync(client=make(call), body=body)
    assert reply.object_ == "rerank"
    assert reply.usage.total_tokens > 0
    return [Hit(one.index, one.relevance_score, one.document) for one in reply.results]


conduct(
    Client(
        "LangChain `InfinityRerank`",
        ["langchain-community", "infinity-client"],
        "InfinityRerank(client=infinity_client.Client(base_url=URL))",
        rank,
        wrong_key=TypeError,
        empty_query=AttributeError,
        busy=TypeError,
        also={"return_documents": rank_and_return},
    )
)
