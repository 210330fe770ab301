"""`/health`, `/ping`, `/ready` and `/metrics`: cheap, and open without an API key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank_service.dialects.common import Reply, documented, request_id, respond
from gliclass_rerank_service.errors import error_response
from gliclass_rerank_service.queue.batching_scorer import DIED
from gliclass_rerank_service.service import service_of

router = APIRouter(tags=["operations"])


class Alive(Reply):
    """The process is alive."""

    status: str = "ok"


RESPONSES: dict[int | str, dict[str, Any]] = {200: {"model": Alive}, 503: documented(503)[503]}


@router.get("/health", responses=RESPONSES, summary="Test whether the process is alive")
@router.get("/ping", responses=RESPONSES, summary="Test whether the process is alive")
async def health(request: Request) -> Response:
    """Return 200 while the process can score, also during start and shutdown. See `/ready`.

    503 when the thread that calls the model has ended. Only a restart helps then.
    """
    if service_of(request).scorer.stats().alive:
        return respond(Alive())
    return error_response(503, DIED, request_id(request))


@router.get("/ready", responses=RESPONSES, summary="Test whether the service is ready")
async def ready(request: Request) -> Response:
    """Return 200 while the model answers and the service accepts requests; otherwise 503 with the reason."""
    service = service_of(request)
    problem = "the service is shutting down" if service.draining else service.health.problem()
    if problem is None:
        return respond(Alive(status="ready"))
    return error_response(503, problem, request_id(request), headers={"Retry-After": "1"})


@router.get(
    "/metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
    summary="Get Prometheus metrics",
)
async def metrics(request: Request) -> Response:
    """Return all metrics of this process."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
