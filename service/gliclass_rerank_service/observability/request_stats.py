"""Measurements of one request, filled in by the handlers and reported by the middleware."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.types import Scope

KEY = "gliclass_rerank"


@dataclass(slots=True)
class RequestStats:
    """Measurements of one request.

    Attributes:
        id: the request's name for the client, the log and the traces.
        started: monotonic clock, seconds.
        texts: texts that were scored.
        tokens: their tokens, labels included. Estimated for a remote model.
        queue_seconds, inference_seconds: as of `Submission`, summed over all submissions.
        failure: TEI's ``error_type`` if it failed.
    """

    id: str
    started: float = field(default_factory=time.monotonic)
    texts: int = 0
    tokens: int = 0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0
    failure: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self.started


def stats_of(scope: Scope) -> RequestStats:
    """The stats that the middleware has stored in an ASGI scope."""
    stats: RequestStats = scope[KEY]
    return stats
