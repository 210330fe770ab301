"""What users of vLLM and TEI, Dify, Open WebUI and RAGFlow send and read, as plain HTTP; nothing to install."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError

from trial import Call, Client, Hit, Rank, conduct

ERROR_FIELDS = {"id", "message", "detail", "error", "error_type"}


def post(call: Call, path: str, **body: object) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {call.key}"}
    request = urllib.request.Request(call.url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except HTTPError as error:
        check_refusal(error)
        raise


def check_refusal(error: HTTPError) -> None:
    assert set(json.load(error)) == ERROR_FIELDS
    assert error.code != 429 or int(error.headers["Retry-After"]) >= 1


def hits(results: Sequence[dict[str, Any]]) -> list[Hit]:
    return [Hit(one["index"], one["relevance_score"]) for one in results]


def with_text(results: Sequence[dict[str, Any]]) -> list[Hit]:
    return [Hit(one["index"], one["relevance_score"], one["document"]["text"]) for one in results]


def vllm(call: Call, path: str = "/v2/rerank") -> list[Hit]:
    reply = post(
        call, path, model="any", query=call.query, documents=call.documents, top_n=call.top_n or 0,
        truncate_prompt_tokens=-1,
    )  # fmt: skip
    assert {"id", "model", "usage"} <= set(reply)
    return with_text(reply["results"])


def vllm_score(call: Call) -> list[Hit]:
    """Scores in the order of the documents, which the caller sorts."""
    data = post(call, "/score", model="any", queries=call.query, documents=call.documents)["data"]
    return sorted((Hit(one["index"], one["score"]) for one in data), key=lambda hit: -hit.score)[: call.top_n]


def vllm_score_of_pairs(call: Call) -> list[Hit]:
    queries = [call.query] * len(call.documents)
    data = post(call, "/score", text_1=queries, text_2=call.documents)["data"]
    return sorted((Hit(one["index"], one["score"]) for one in data), key=lambda hit: -hit.score)


def tei(call: Call) -> list[Hit]:
    reply = post(call, "/rerank", query=call.query, texts=call.documents, return_text=True, truncate=True)
    return [Hit(one["index"], one["score"], one["text"]) for one in reply[: call.top_n]]


def tei_predict(call: Call) -> list[Hit]:
    """One pair an entry; of each, one label and its score."""
    reply = post(call, "/predict", inputs=[[call.query, text] for text in call.documents])
    scored = [Hit(i, one[0]["score"]) for i, one in enumerate(reply)]
    return sorted(scored, key=lambda hit: -hit.score)


def infinity(call: Call) -> list[Hit]:
    reply = post(
        call, "/rerank", model="any", query=call.query, documents=call.documents, top_n=call.top_n,
        return_documents=True, raw_scores=False,
    )  # fmt: skip
    assert {"object", "model", "usage", "id", "created"} <= set(reply)
    return [Hit(one["index"], one["relevance_score"], one["document"]) for one in reply["results"]]


def dify(call: Call) -> list[Hit]:
    top_n = call.top_n or len(call.documents)
    reply = post(call, "/v1/rerank", model="any", query=call.query, documents=call.documents, top_n=top_n)
    return hits(reply["results"])


def dify_texts(call: Call) -> list[Hit]:
    reply = post(call, "/rerank", model="any", query=call.query, texts=call.documents, top_n=len(call.documents))
    return hits(reply["results"])


def open_webui(call: Call) -> list[Hit]:
    """It always asks for all, wants all, and cuts by itself."""
    count = len(call.documents)
    reply = post(call, "/v1/rerank", model="any", query=call.query, documents=call.documents, top_n=count)
    assert sorted(one["index"] for one in reply["results"]) == list(range(count))
    return hits(reply["results"])[: call.top_n]


def ragflow(call: Call) -> list[Hit]:
    top_n = call.top_n or len(call.documents)
    reply = post(
        call, "/v1/rerank", model="any", query=call.query, documents=call.documents, top_n=top_n,
        return_documents="true", return_len="true",
    )  # fmt: skip
    assert all(0 <= one["relevance_score"] <= 1 for one in reply["results"])
    return with_text(reply["results"])


def voyage(call: Call) -> list[Hit]:
    reply = post(
        call, "/v1/rerank", model="any", query=call.query, documents=call.documents, top_k=call.top_n, truncation=True
    )
    assert reply["usage"]["total_tokens"] > 0
    return hits(reply["data"])


def client(name: str, path: str, rank: Rank, **also: Rank) -> Client:
    return Client(
        name, (), f"URL{path}", rank, wrong_key=HTTPError, empty_query=HTTPError, busy=HTTPError,
        also=also,
    )  # fmt: skip


conduct(
    client("vLLM rerank", "/v2/rerank", vllm, bare=lambda call: vllm(call, "/rerank")),
    client("vLLM score", "/score", vllm_score, pairs=vllm_score_of_pairs),
    client("TEI", "/rerank", tei, predict=tei_predict),
    client("infinity", "/rerank", infinity),
    client("Voyage", "/v1/rerank", voyage),
    client("Dify", "/v1", dify, texts=dify_texts),
    client("Open WebUI", "/v1/rerank", open_webui),
    client("RAGFlow", "/v1/rerank", ragflow),
)
