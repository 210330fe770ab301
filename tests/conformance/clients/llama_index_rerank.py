"""LlamaIndex's postprocessors of Cohere, TEI, Jina and Xinference.

TEI's looks at no status and finds that a refusal has not as many entries as there are nodes. Its key is sent as it is
given, without "Bearer". Xinference's sends no key.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from cohere.errors import UnauthorizedError, UnprocessableEntityError
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.xinference_rerank import XinferenceRerank
from trial import Call, Client, Hit, conduct


def hits(postprocessor: BaseNodePostprocessor, call: Call) -> list[Hit]:
    nodes = [NodeWithScore(node=TextNode(id_=str(i), text=text), score=0.5) for i, text in enumerate(call.documents)]
    ranked = postprocessor.postprocess_nodes(nodes, query_str=call.query)
    return [Hit(int(one.node_id), one.score or 0.0, one.text) for one in ranked]


def cohere(call: Call) -> list[Hit]:
    return hits(CohereRerank(api_key=call.key, base_url=call.url, top_n=call.top_n or len(call.documents)), call)


def tei(call: Call) -> list[Hit]:
    top_n = call.top_n or len(call.documents)
    return hits(TextEmbeddingInference(base_url=call.url, auth_token=call.key, top_n=top_n), call)


def tei_with_bearer(call: Call) -> list[Hit]:
    return hits(TextEmbeddingInference(base_url=call.url, auth_token=f"Bearer {call.key}", top_n=99), call)


def jina(call: Call) -> list[Hit]:
    top_n = call.top_n or len(call.documents)
    return hits(JinaRerank(base_url=f"{call.url}/v1", api_key=call.key, top_n=top_n), call)


def xinference(call: Call) -> list[Hit]:
    return hits(XinferenceRerank(base_url=call.url, top_n=call.top_n or len(call.documents)), call)


conduct(
    Client(
        "LlamaIndex `CohereRerank`",
        ["llama-index-postprocessor-cohere-rerank", "cohere"],
        "CohereRerank(base_url=URL)",
        cohere,
        wrong_key=UnauthorizedError,
        empty_query=UnprocessableEntityError,
    ),
    Client(
        "LlamaIndex `TextEmbeddingInference`",
        ["llama-index-postprocessor-tei-rerank"],
        "TextEmbeddingInference(base_url=URL, auth_token=key)",
        tei,
        wrong_key=AssertionError,
        empty_query=AssertionError,
        busy=AssertionError,
        also={"Bearer": tei_with_bearer},
    ),
    Client(
        "LlamaIndex `JinaRerank`",
        ["llama-index-postprocessor-jinaai-rerank"],
        'JinaRerank(base_url=URL + "/v1")',
        jina,
        wrong_key=RuntimeError,
        empty_query=RuntimeError,
        busy=RuntimeError,
    ),
    Client(
        "LlamaIndex `XinferenceRerank`",
        ["llama-index-postprocessor-xinference-rerank"],
        "XinferenceRerank(base_url=URL)",
        xinference,
        wrong_key=None,
        empty_query=Exception,
        busy=Exception,
    ),
)
