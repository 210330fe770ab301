"""Two middleware layers, in plain ASGI for low overhead.

`Observed` identifies, times, counts and logs each request, and adds response headers. `Guarded` refuses requests:
without a key 401, during shutdown 503, too many 429, too large 413, sent too slowly 408.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gliclass_rerank_service.errors import TYPES, error_response
from gliclass_rerank_service.observability.request_stats import KEY, RequestStats, stats_of
from gliclass_rerank_service.service import Service, logger

OPEN_PATHS = frozenset({"/health", "/ping", "/ready", "/metrics"})
LENGTH = re.compile(r"[0-9]{1,30}")
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class Observed:
    """Identifies, times, counts and logs requests. Only numbers and routes are logged and counted, never texts."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope[KEY] = stats = RequestStats(_request_id(headers.get("x-request-id")))
        status: int | None = None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told = MutableHeaders(scope=message)
                told.update(_told(stats))
                if self._service.draining:
                    told["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            logger.error("unexpected error", exc_info=error, extra={"request_id": stats.id})
            stats.failure = "Backend"
            if status is None:
                response = error_response(500, "internal error; see the service's log", stats.id)
                await response(scope, receive, sending)
        finally:
            self._tell(scope, stats, status or 499, headers)

    def _tell(self, scope: Scope, stats: RequestStats, status: int, headers: Mapping[str, str]) -> None:
        if scope["path"] in OPEN_PATHS:  # monitoring requests are not counted
            return
        route = getattr(scope.get("route"), "path", "unmatched")
        if status >= 400 and stats.failure is None:
            stats.failure = TYPES.get(status, "Backend")
        self._service.metrics.count_request(stats, route, status)
        logger.info(
            "request",
            extra={
                "request_id": stats.id,
                "method": scope["method"],
                "route": route,
                "status": status,
                "texts": stats.texts,
                "tokens": stats.tokens,
                "queue_ms": round(stats.queue_seconds * 1000, 2),
                "inference_ms": round(stats.inference_seconds * 1000, 2),
                "total_ms": round(stats.seconds * 1000, 2),
            },
        )
        if self._service.tracing:
            self._service.tracing.tell(stats, scope["method"], route, status, headers)


class Guarded:
    """Refuses requests without a key or beyond the limits. `OPEN_PATHS` are always open."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := self._refusal(headers):
            status, message, told = refusal
            stats_of(scope).failure = TYPES[status]
            response = error_response(status, message, stats_of(scope).id, headers=told)
            await response(scope, receive, send)
            return
        self._service.in_flight += 1
        try:
            await self._app(scope, _bounded(receive, self._service, stats_of(scope)), send)
        finally:
            self._service.in_flight -= 1

    def _refusal(self, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """Status, message and headers of a request that is refused before its body is read."""
        settings = self._service.settings
        if not self._service.admits(headers.get("authorization")):
            return (
                401,
                "expected a valid API key in the header 'Authorization: Bearer KEY'",
                {"WWW-Authenticate": "Bearer"},
            )
        if self._service.draining:
            return 503, "the service is shutting down; send the request elsewhere", {"Retry-After": "1"}
        if self._service.in_flight >= settings.max_concurrent_requests:
            return (
                429,
                f"{settings.max_concurrent_requests} requests are in progress, the limit; try again later",
                {"Retry-After": "1"},
            )
        announced = headers.get("content-length", "")
        if LENGTH.fullmatch(announced) and int(announced) > settings.max_body_bytes:
            return 413, _too_large(settings.max_body_bytes), {"Connection": "close"}
        return None


def _bounded(receive: Receive, service: Service, stats: RequestStats) -> Receive:
    """``receive`` with limits on the size and time of the body, regardless of the announced length."""
    received, complete = 0, False

    async def receiving() -> Message:
        nonlocal received, complete
        if complete:
            return await receive()
        limit = service.settings.timeout_seconds
        try:
            message = await asyncio.wait_for(receive(), limit - stats.seconds)
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the request was not sent within {limit:g} s", {"Connection": "close"}) from None
        received += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received > service.settings.max_body_bytes:
            raise HTTPException(413, _too_large(service.settings.max_body_bytes), {"Connection": "close"})
        return message

    return receiving


def _too_large(limit: int) -> str:
    return f"expected a body of at most {limit} bytes, got more; divide the request"


def _request_id(given: str | None) -> str:
    return given if given and REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _told(stats: RequestStats) -> dict[str, str]:
    """Response headers as in text-embeddings-inference. Times in milliseconds, tokens estimated."""
    told = {"x-request-id": stats.id}
    if stats.texts:
        total = str(round(stats.seconds * 1000))
        told |= {
            "x-compute-time": total,
            "x-total-time": total,
            "x-compute-tokens": str(stats.tokens),
            "x-queue-time": str(round(stats.queue_seconds * 1000)),
            "x-inference-time": str(round(stats.inference_seconds * 1000)),
        }
    return told
