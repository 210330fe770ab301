"""Errors of the service, their HTTP statuses, and an error body that the clients of all dialects can read.

GLiClassRerankError
├── InputError
│   ├── EmptyError           nothing to score: no documents, no texts
│   └── TooLargeError        more than one request may hold
├── NotFoundError            no such job, or no such model under ``strict_model``
├── BackendError             the model failed with an error from outside this package
└── ClientGoneError          the client has disconnected
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from gliclass_rerank.errors import (
    GLiClassRerankError,
    InputError,
    InvalidTextError,
    LabelTooLongError,
    MissingExtraError,
    ModelError,
    NoPromptsError,
    NoVectorsError,
    ServiceError,
)
from gliclass_rerank_service.queue.errors import (
    ClosedError,
    DeadlineExceededError,
    OverloadedError,
    SubmissionCancelledError,
)

CLIENT_GONE = 499  # nginx's status; appears only in logs and metrics


class EmptyError(InputError):
    """There is nothing to score."""


class TooLargeError(InputError):
    """A request exceeds a limit."""


class NotFoundError(GLiClassRerankError):
    """No job or model of that name exists."""


class BackendError(GLiClassRerankError):
    """The model failed with an error from outside this package."""


class ClientGoneError(GLiClassRerankError):
    """The client has disconnected."""


STATUSES: tuple[tuple[type[GLiClassRerankError], int, str], ...] = (
    (EmptyError, 400, "Empty"),
    (TooLargeError, 413, "Validation"),
    (InvalidTextError, 422, "Tokenizer"),
    (LabelTooLongError, 422, "LabelTooLong"),
    (InputError, 422, "Validation"),
    (NotFoundError, 404, "NotFound"),
    (OverloadedError, 429, "Overloaded"),
    (DeadlineExceededError, 504, "Backend"),
    (ClosedError, 503, "Unhealthy"),
    (SubmissionCancelledError, CLIENT_GONE, "Cancelled"),
    (ClientGoneError, CLIENT_GONE, "Cancelled"),
    (MissingExtraError, 503, "Unhealthy"),
    (ServiceError, 503, "Unhealthy"),
    (NoVectorsError, 422, "NoVectors"),
    (NoPromptsError, 422, "NoPrompts"),
    (ModelError, 424, "Backend"),
    (GLiClassRerankError, 424, "Backend"),
)
"""Class, status and TEI's ``error_type``. The first match counts."""

TYPES: Mapping[int, str] = {
    400: "Validation",
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    413: "Validation",
    422: "Validation",
    429: "Overloaded",
    503: "Unhealthy",
}
"""``error_type`` of refusals without an exception of this package."""


def error_response(
    status: int,
    message: str,
    request_id: str,
    *,
    error_type: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """JSON error ``{id, message, detail, error, error_type}``. Cohere reads ``message``, Jina ``detail``."""
    told = error_type or TYPES.get(status, "Backend")
    body = {"id": request_id, "message": message, "detail": message, "error": message, "error_type": told}
    return Response(json.dumps(body), status, dict(headers or {}), media_type="application/json")


def response_of(error: GLiClassRerankError, request_id: str) -> tuple[Response, str]:
    """Response for an error of this package, and its ``error_type``."""
    status, told = next((status, told) for kind, status, told in STATUSES if isinstance(error, kind))
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    return error_response(status, str(error), request_id, error_type=told, headers=headers), told
