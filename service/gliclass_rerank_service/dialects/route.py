"""`/route`: choose among routes described in words for each query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import InputError, ModelInfo, Route, Router, Scorer
from gliclass_rerank.scoring import MAX_LABELS_PER_PASS
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import (
    Body,
    Flag,
    Items,
    Reply,
    Share,
    UnreadableOption,
    Usage,
    first_wrong_only,
    request_id,
    respond,
    scoring_router,
    usage_of,
)
from gliclass_rerank_service.errors import EmptyError
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

router = scoring_router("route")
EXAMPLE: JsonDict = {
    "query": "why was I charged twice?",
    "routes": {"billing": "questions about invoices and refunds", "tech": "errors, crashes and configuration"},
}


class RouteEntry(BaseModel):
    """A route, see `gliclass_rerank.Route`."""

    name: str
    description: str = ""
    examples: Items[str] = []


Descriptions = Annotated[dict[str, str], first_wrong_only(str)]


class RouteBody(Body):
    """Arguments of `gliclass_rerank.Router`."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    query: str | None = None
    queries: Items[str] | None = None
    routes: Descriptions | Items[RouteEntry] = Field(
        description="Descriptions by name, or a list of routes with examples."
    )
    threshold: Share | None = Field(
        default=None, description="Minimum probability of a route. If none reaches it, the fallback is chosen."
    )
    fallback: str | None = None
    multi: Flag | None = Field(default=None, description="Whether several routes may apply.")
    examples: Literal["nearest", "prompt", "off"] | None = Field(default=None, description="Use of the examples.")
    unreadable: UnreadableOption = None


class Decision(Reply):
    """Route chosen for a query, see `gliclass_rerank.RouteDecision`."""

    name: str | None
    score: float
    scores: dict[str, float]
    names: list[str]
    abstained: bool
    readable: bool = Field(description="Whether the model knows words of the query and of the best route.")


class RouteReply(Reply):
    """One decision per query, in their order."""

    id: str
    model: str
    results: list[Decision]
    usage: Usage


def routes_of(body: RouteBody) -> list[Route]:
    """The routes described by a body."""
    if isinstance(body.routes, dict):
        return [Route(name, description) for name, description in body.routes.items()]
    return [Route(one.name, one.description, tuple(one.examples)) for one in body.routes]


def router_of(body: RouteBody, routes: Sequence[Route], scorer: Scorer) -> Router:
    """The router described by a body."""
    return Router(
        routes,
        scorer,
        threshold=body.threshold,
        fallback=body.fallback,
        examples=body.examples or "nearest",
        unreadable=body.unreadable or "flag",
    )


def _queries(body: RouteBody) -> list[str]:
    if (body.query is None) == (body.queries is None):
        raise InputError(f"expected either query or queries, got {'neither' if body.query is None else 'both'}")
    queries = [body.query] if body.query is not None else body.queries
    if not queries:
        raise EmptyError("queries: expected at least one, got none")
    return queries


def _estimate(body: RouteBody, routes: Sequence[Route], queries: Sequence[str], info: ModelInfo) -> int:
    """Estimated tokens. A query is read once with all routes, or once per label if there are many or examples.

    With independent labels it is read once in any case. If the model embeds, examples are read once each.
    """
    labels = {route.label for route in routes}
    examples = {example for route in routes for example in route.examples}
    nearest, prompt = body.examples in (None, "nearest"), body.examples == "prompt"
    by_vectors = nearest and info.independent_labels and info.embeds
    as_labels = nearest and not by_vectors
    read = labels | examples if as_labels else labels
    together = info.independent_labels or (len(read) <= MAX_LABELS_PER_PASS and not (as_labels and examples))
    passes = 1 if together else len(read)
    shown = estimate_tokens_for(queries, examples) - estimate_tokens_for(queries) if prompt else 0
    once = estimate_tokens_for(list(examples)) if by_vectors else 0
    return estimate_tokens_for(queries, read, passes=passes) + passes * shown + once


@router.post("/route", responses={200: {"model": RouteReply}}, summary="Choose routes for queries")
async def route(body: RouteBody, request: Request) -> Response:
    """Choose among routes described in words. A query is read once with all of them if they fit one pass."""
    queries, routes = _queries(body), routes_of(body)
    scorer = service_of(request).scorer
    decisions = await run_task(
        request,
        router_of(body, routes, scorer).plan(queries, multi=bool(body.multi)),
        texts=len(queries),
        tokens=_estimate(body, routes, queries, scorer.info),
        model=body.model,
    )
    results = [
        Decision(
            name=one.name,
            score=one.score,
            scores=dict(one.scores),
            names=list(one.names),
            abstained=one.abstained,
            readable=one.readable,
        )
        for one in decisions
    ]
    usage = usage_of(stats_of(request.scope))
    return respond(RouteReply(id=request_id(request), model=scorer.info.name, results=results, usage=usage))
