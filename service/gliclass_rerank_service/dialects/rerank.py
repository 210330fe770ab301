"""`/rerank`, `/v1/rerank`, `/v2/rerank`: Cohere v1 and v2, Jina, vLLM, infinity, Voyage and TEI.

One body accepts the fields of all of them. A ranking is returned in one of three formats:

- "tei": a bare list. For `/rerank` with `texts`. A body with `model` and `top_n` but without `return_text` comes from
  Dify, which reads an object.
- "voyage": an object with the same list as `data` and `results`. For a body with `top_k` or `truncation`.
- "object": an object with `results`, for all others.

Documents are returned on request, and by default to vLLM (`top_n: 0`, `truncate_prompt_tokens`). They are strings for
Voyage's clients, and at the bare `/rerank` for infinity's, whose `top_n` is above 0. They are `{"text": ...}` for all
others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import InputError, Ranked, Reranker, Scorer
from gliclass_rerank.scoring import Plan
from gliclass_rerank.tasks.rerank import RankOptions
from gliclass_rerank.types import LongText
from gliclass_rerank.unreadable import Unreadable
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import (
    Count,
    Flag,
    Items,
    LongTextOption,
    Refused,
    Reply,
    UnreadableOption,
    Usage,
    VllmBody,
    Whole,
    request_id,
    respond,
    scoring_router,
    usage_of,
)
from gliclass_rerank_service.dialects.spans import RelevantSpan, SpanOptions, find_spans
from gliclass_rerank_service.errors import EmptyError
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

router = scoring_router("rerank")
MOST_FIELDS = 32  # largest number of `rank_fields`
Dialect = Literal["tei", "voyage", "object"]
LIMITS = (
    "max_tokens_per_doc", "max_chunks_per_doc", "max_doc_length", "max_query_length", "max_tokens_per_query",
    "truncate_prompt_tokens",
)  # fmt: skip
EXAMPLE: JsonDict = {
    "query": "how do I reset my password?",
    "documents": ["Invoices are sent on the first of each month.", "A new password is sent from the login page."],
    "top_n": 1,
}


class RerankBody(VllmBody):
    """Request fields of all dialects."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    query: str
    documents: Items[str | dict[str, Any]] | None = Field(
        default=None, description="Texts, or objects with text in `rank_fields`."
    )
    texts: Items[str] | None = Field(default=None, description="TEI's name for documents.")
    top_n: Count | None = Field(default=None, description="Number of results. Default, 0 or null: all.")
    top_k: Count | None = Field(default=None, description="Voyage's name for top_n.")
    return_documents: Flag | None = None
    return_text: Flag | None = Field(default=None, description="TEI's name for return_documents.")
    raw_scores: Flag | None = Field(default=None, description="Return raw logits instead of scores in [0, 1].")
    rank_fields: Items[str] | None = Field(
        default=None, max_length=MOST_FIELDS, description="Fields of the documents to read. Default: text."
    )
    relevant_spans: SpanOptions | None = None
    instruction: str | None = Field(
        default=None,
        description="What makes a document relevant, in words. Only for models trained with prompts: "
        "`gliclass.prompts` in /info.",
    )
    instruct: str | None = Field(default=None, description="SGLang's name for instruction.")
    first_stage_scores: Items[float] | None = Field(
        default=None,
        description="Ours. The retriever's own scores, one per document. Higher is better, on any scale. They are "
        "fused with the model's scores by the weight in the model's folder.",
    )
    long_text: LongTextOption = None
    unreadable: UnreadableOption = None
    truncate: Whole = None
    truncation: Whole = None
    truncation_direction: Whole = None
    max_tokens_per_doc: Whole = None
    max_chunks_per_doc: Whole = None
    max_doc_length: Whole = None
    max_query_length: Whole = None
    max_tokens_per_query: Whole = None
    return_embeddings: Annotated[None, Refused("`/v1/embeddings` gives vectors", allowed=(False,))] = None


class Document(Reply):
    """A document, returned on request."""

    text: str


class Result(Reply):
    """One document of a ranking."""

    index: int = Field(description="Index of the document in the request.")
    relevance_score: float = Field(description="In [0, 1], or a logit with `raw_scores`.")
    document: Document | str | None = None
    relevant_spans: list[RelevantSpan] | None = None
    readable: bool | None = Field(
        default=None,
        description="False if the model knows no words of query or document. Its score is meaningless.",
    )


class Meta(Reply):
    """Usage in Cohere's format."""

    api_version: dict[str, str]
    billed_units: dict[str, int]
    tokens: dict[str, int]
    warnings: list[str] | None = None


class RerankReply(Reply):
    """A ranking, best first."""

    id: str
    object: Literal["rerank", "list"]
    created: int
    model: str
    results: list[Result]
    data: list[Result] | None = Field(default=None, description="Voyage's name for results.")
    usage: Usage
    meta: Meta


class TeiRank(Reply):
    """One text of TEI's ranking."""

    index: int
    score: float
    text: str | None = None


class TeiReply(RootModel[list[TeiRank]]):
    """TEI's ranking, best first."""


@dataclass(frozen=True, slots=True)
class RankCall:
    """A request for a ranking, independent of the dialect."""

    query: str
    passages: Sequence[str]
    top_n: int | None = None
    long_text: LongText = "window"
    unreadable: Unreadable = "flag"
    spans: SpanOptions | None = None
    first_stage_scores: Sequence[float] | None = None
    instruction: str | None = None
    raw: bool = False
    documents: bool = False


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking, and the relevant spans of each of its passages on request."""

    ranked: Sequence[Ranked]
    spans: Sequence[Sequence[RelevantSpan]] | None = None


def plan_of(call: RankCall, scorer: Scorer, check_tokens: Callable[[int], None]) -> Plan[Ranking]:
    """Compute the ranking, then its spans. ``check_tokens`` gets the tokens of their sentences before scoring."""
    reranker = Reranker(scorer)
    options = RankOptions(
        top_n=call.top_n, long_text=call.long_text, unreadable=call.unreadable, instruction=call.instruction
    )
    (ranked,) = yield from reranker.plan(
        [(call.query, call.passages)], options, first_stage_scores=[call.first_stage_scores]
    )
    if call.spans is None or not call.spans.wanted:
        return Ranking(ranked)
    texts = [call.passages[one.index] for one in ranked]
    found = yield from find_spans(reranker, call.query, texts, call.spans, check_tokens, instruction=call.instruction)
    return Ranking(ranked, found)


def call_of(body: RerankBody) -> RankCall:
    """Read a body.

    Raises:
        EmptyError: no documents.
        InputError: documents or the instruction twice, or a document without a text.
    """
    if body.documents is not None and body.texts is not None:
        raise InputError("expected documents or texts, got both; leave one out")
    if body.instruction and body.instruct:
        raise InputError("expected instruction or instruct, got both; leave one out")
    documents: Sequence[str | dict[str, Any]] | None = body.texts if body.documents is None else body.documents
    if not documents:
        raise EmptyError("documents: expected at least one, got none")
    passages = [
        document if isinstance(document, str) else _text_of(document, body.rank_fields, i)
        for i, document in enumerate(documents)
    ]
    wanted = body.top_n or body.top_k
    return RankCall(
        query=body.query,
        passages=passages,
        top_n=min(wanted, len(passages)) if wanted else None,
        long_text=body.long_text or "window",
        unreadable=body.unreadable or "flag",
        spans=body.relevant_spans,
        first_stage_scores=body.first_stage_scores,
        instruction=body.instruction or body.instruct or None,
        raw=body.raw_scores or body.unscaled,
        documents=_wants_documents(body),
    )


def dialect_of(body: RerankBody, *, bare: bool) -> Dialect:
    """Response format that the client reads. ``bare`` if it called `/rerank`."""
    given = {name for name in body.model_fields_set if getattr(body, name) is not None}
    if bare and body.texts is not None:
        return "object" if {"model", "top_n"} <= given and "return_text" not in given else "tei"
    return "voyage" if {"top_k", "truncation"} & body.model_fields_set else "object"


def _text_of(document: dict[str, Any], rank_fields: Sequence[str] | None, place: int) -> str:
    """Text of a document object: its ``rank_fields`` in their order, one per line."""
    found = [document[name] for name in dict.fromkeys(rank_fields or ("text",)) if document.get(name) is not None]
    if not found:
        wanted = ", ".join(map(repr, rank_fields or ("text",)))
        raise InputError(
            f"document {place}: expected one of the fields {wanted:.80}, got none of them; set rank_fields"
        )
    try:
        return "\n".join(
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
            for value in found
        )
    except ValueError:
        raise InputError(f"document {place}: expected finite numbers, got another one; send it as text") from None


def _wants_documents(body: RerankBody) -> bool:
    asked = body.return_documents if body.return_documents is not None else body.return_text
    return _from_vllm(body) if asked is None else asked


def _from_vllm(body: RerankBody) -> bool:
    return body.top_n == 0 or "truncate_prompt_tokens" in body.model_fields_set


def _shown(text: str, *, plain: bool) -> Document | str:
    return text if plain else Document(text=text)


async def answer(body: RerankBody, request: Request, *, bare: bool, version: str) -> Response:
    """Rank, and respond in the client's dialect."""
    service = service_of(request)
    service.check_texts(len(body.documents or body.texts or ()))
    call, dialect = call_of(body), dialect_of(body, bare=bare)
    if dialect == "tei" and call.spans is not None and call.spans.wanted:
        raise InputError("relevant_spans: expected none with texts, got some; send documents instead of texts")
    ranking = await run_task(
        request,
        plan_of(call, service.scorer, service.check_tokens),
        texts=len(call.passages),
        tokens=estimate_tokens_for(call.passages, [call.query, call.instruction] if call.instruction else [call.query]),
        on_thread=call.spans is not None and call.spans.wanted,  # there may be many sentences
        model=body.model,
    )
    scores = [one.logit if call.raw else one.score for one in ranking.ranked]
    texts = [call.passages[one.index] for one in ranking.ranked] if call.documents else None
    if dialect == "tei":
        told = [
            TeiRank(index=one.index, score=score, text=texts[i] if texts else None)
            for i, (one, score) in enumerate(zip(ranking.ranked, scores, strict=True))
        ]
        return respond(TeiReply(told), exclude_none=True)
    plain = dialect == "voyage" or (bare and call.documents and not _from_vllm(body))
    results = [
        Result(
            index=one.index,
            relevance_score=score,
            document=_shown(texts[i], plain=plain) if texts else None,
            relevant_spans=(list(ranking.spans[i]) or None) if ranking.spans else None,
            readable=one.readable and None,
        )
        for i, (one, score) in enumerate(zip(ranking.ranked, scores, strict=True))
    ]
    usage = usage_of(stats_of(request.scope))
    reply = RerankReply(
        id=request_id(request),
        object="list" if dialect == "voyage" else "rerank",
        created=int(time.time()),
        model=service.scorer.info.name,
        results=results,
        data=results if dialect == "voyage" else None,
        usage=usage,
        meta=Meta(
            api_version={"version": version},
            billed_units={"search_units": 1},
            tokens={"input_tokens": usage.total_tokens, "output_tokens": 0},
            warnings=_warnings(body),
        ),
    )
    return respond(reply, exclude_none=True)


def _warnings(body: RerankBody) -> list[str] | None:
    """Requested limits that are not applied because they would lose text."""
    return [
        f"{name}: not applied; documents are read to their end, in windows"
        for name in LIMITS
        if getattr(body, name) is not None
    ] or None


@router.post("/rerank", responses={200: {"model": TeiReply | RerankReply}}, summary="Rank documents by a query")
async def rerank(body: RerankBody, request: Request) -> Response:
    """Rank in the dialects of TEI (`texts`), and of infinity, Voyage and Dify (`documents`)."""
    return await answer(body, request, bare=True, version="2")


@router.post("/v1/rerank", responses={200: {"model": RerankReply}}, summary="Rank documents by a query")
async def rerank_v1(body: RerankBody, request: Request) -> Response:
    """Rank in the dialects of Cohere v1, Jina, vLLM, and of Voyage for `top_k`."""
    return await answer(body, request, bare=False, version="1")


@router.post("/v2/rerank", responses={200: {"model": RerankReply}}, summary="Rank documents by a query")
async def rerank_v2(body: RerankBody, request: Request) -> Response:
    """Rank in the dialects of Cohere v2, with relevant spans, and of vLLM."""
    return await answer(body, request, bare=False, version="2")
