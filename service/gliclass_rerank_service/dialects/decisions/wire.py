"""Errors and headers of the two formats.

TypeSafe: ``{"detail": [{"loc", "msg", "type"}]}`` with 422, else ``{"detail": {"error_type", "message"}}``.
OpenAI: ``{"error": {"message", "type", "param", "code"}}``, and 400 where TypeSafe has 422.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Format = Literal["systemone", "openai"]
Problem = Mapping[str, Any]
"""A wrong field: "loc", its path, "msg" and "type"."""

SYSTEMONE_PATH, DECISIONS_PATH = "/v1/systemone", "/v1/decisions"
SYSTEMONE_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "authentication_error",
    404: "not_found_error",
    413: "max_tokens_exceeded",
    429: "rate_limit_error",
}
OPENAI_CODES: Mapping[int, str] = {
    401: "invalid_api_key",
    404: "model_not_found",
    413: "max_tokens_exceeded",
    429: "rate_limit_exceeded",
}
OURS = {"message", "error_type"}  # keys of the service's own error body


class WrongField(BaseModel):
    """A wrong field of a request."""

    loc: list[str | int]
    msg: str
    type: str


class Failure(BaseModel):
    """An error that is not a field's."""

    error_type: str
    message: str


class SystemoneError(BaseModel):
    """TypeSafe's error body."""

    detail: list[WrongField] | Failure


class OpenAIFailure(BaseModel):
    """The error."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """OpenAI's error body, with TypeSafe's beside it if the request does not tell which one is meant."""

    error: OpenAIFailure
    detail: list[WrongField] | Failure | None = None


def error_body(
    wire: Format | None, status: int, message: str, problems: Sequence[Problem] = ()
) -> tuple[int, dict[str, Any]]:
    """Status and body of an error.

    Args:
        wire: the format, or None for a body of both.
        status: the service's status.
        message: what went wrong.
        problems: wrong fields, where they are known.
    """
    if wire == "systemone":
        return status, _systemone(status, message, problems)
    if wire == "openai":
        return 400 if status == 422 else status, _openai(status, message, problems)
    return status, _openai(status, message, problems) | _systemone(status, message, problems)


def _systemone(status: int, message: str, problems: Sequence[Problem]) -> dict[str, Any]:
    if status == 422:
        told = [{key: one[key] for key in ("loc", "msg", "type")} for one in problems]
        return {"detail": told or [{"loc": ["body"], "msg": message, "type": "value_error"}]}
    kind = SYSTEMONE_TYPES.get(status, "server_error" if status >= 500 else "api_usage_error")
    return {"detail": {"error_type": kind, "message": message}}


def _openai(status: int, message: str, problems: Sequence[Problem]) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    path = [str(part) for part in problems[0]["loc"][1:]] if problems else []
    param = ".".join(path) or None
    return {"error": {"message": message, "type": kind, "param": param, "code": OPENAI_CODES.get(status)}}


class DecisionWire:
    """Gives responses of the decision paths TypeSafe's header of the request's id, and errors the format of the path.

    Errors come from other layers in the service's own format: a missing key, too many requests, a wrong method.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["path"] not in (SYSTEMONE_PATH, DECISIONS_PATH):
            return self._app(scope, receive, send)
        started: Message | None = None
        content = b""

        async def sending(message: Message) -> None:
            nonlocal started, content
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if identity := headers.get("x-request-id"):
                    headers["x-typesafe-request-id"] = identity
                if message["status"] >= 400:
                    started = message
                    return
            elif started is not None:
                content += message.get("body", b"")
                if message.get("more_body"):
                    return
                content = _translated(scope["path"], started, content)
                await send(started)
                message = {"type": "http.response.body", "body": content}
            await send(message)

        return self._app(scope, receive, sending)


def _translated(path: str, start: Message, content: bytes) -> bytes:
    """An error's body in the format of a path. ``start`` gets its length. Other bodies are returned as they are."""
    if "json" not in Headers(scope=start).get("content-type", ""):
        return content
    ours = json.loads(content)
    if not isinstance(ours, dict) or not ours.keys() >= OURS:
        return content
    wire: Format | None = "systemone" if path == SYSTEMONE_PATH else None
    start["status"], body = error_body(wire, start["status"], ours["message"])
    told = json.dumps(body).encode()
    MutableHeaders(scope=start)["content-length"] = str(len(told))
    return told


def error_reply(
    wire: Format, status: int, message: str, problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """An error as a response."""
    status, body = error_body(wire, status, message, problems)
    return Response(json.dumps(body), status, dict(headers or {}), media_type="application/json")
