"""What is measured of one request: handlers fill in what only they know, the middleware tells it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.types import Scope

KEY = "gliclass_rerank"


@dataclass(slots=True)
class RequestStats:
    """One request.

    Attributes:
        id: what the client, the log and the traces call it.
        started: monotonic clock, seconds.
        texts: texts that were scored.
        tokens: tokens of them, labels included; estimated where the model is elsewhere.
        queue_seconds, inference_seconds: as a `Submission` tells them, summed where there were several.
        failure: TEI's ``error_type``, where it failed.
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
        """Time since it started."""
        return time.monotonic() - self.started


def stats_of(scope: Scope) -> RequestStats:
    """The stats that the middleware has put into an ASGI scope."""
    stats: RequestStats = scope[KEY]
    return stats
