"""`/health`, `/ping`, `/ready` and `/metrics`: cheap, and open without an API key."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank_service.dialects.common import Reply, documented, request_id, respond
from gliclass_rerank_service.errors import error_response
from gliclass_rerank_service.service import service_of

router = APIRouter(tags=["operations"])


class Alive(Reply):
    """The process is alive."""

    status: str = "ok"


@router.get("/health", responses={200: {"model": Alive}}, summary="Test whether the process is alive")
@router.get("/ping", responses={200: {"model": Alive}}, summary="Test whether the process is alive")
async def health() -> Response:
    """Return 200 while the process is alive, also during start and shutdown. See `/ready`."""
    return respond(Alive())


@router.get(
    "/ready",
    responses={200: {"model": Alive}, 503: documented(503)[503]},
    summary="Test whether the service is ready",
)
async def ready(request: Request) -> Response:
    """Return 200 from the first successful model call until the service begins to shut down."""
    if service_of(request).ready:
        return respond(Alive(status="ready"))
    return error_response(503, "the service is starting or ending", request_id(request), headers={"Retry-After": "1"})


@router.get(
    "/metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
    summary="Get Prometheus metrics",
)
async def metrics(request: Request) -> Response:
    """Return all metrics of this process."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
