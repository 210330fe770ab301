"""serve: run an app with uvicorn and shut down without losing a request.

At SIGTERM or SIGINT the app drains: /ready gives 503, new requests are refused with 503, accepted ones are answered,
and connections close after their answer. When no request has been left for half a second, the sockets close. After
``drain_seconds`` the remaining requests are answered with 503 first. A second signal ends it at once.
"""

from __future__ import annotations

import logging
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gliclass_rerank_service.service import Service
from gliclass_rerank_service.settings import Settings

QUIET_TICKS = 5  # of a tenth of a second, so that clients that were just answered get a 503, not a closed socket
ENDING_SECONDS = 5  # for the running batch, when the time to drain is over

logger = logging.getLogger("gliclass_rerank.service")


class DrainingServer(uvicorn.Server):
    """A uvicorn server that answers the accepted requests before it ends."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._ends_by: float | None = None
        self._quiet_ticks = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. End at the second signal."""
        if self._service.draining:
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        self._ends_by = time.monotonic() + self._service.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Whether to end. Called ten times a second."""
        if self._ends_by is not None:
            self._quiet_ticks = 0 if self._service.in_flight else self._quiet_ticks + 1
            if time.monotonic() > self._ends_by:
                self._service.scorer.close(drain=False, timeout=0)
                self.should_exit = True
            self.should_exit |= self._quiet_ticks >= QUIET_TICKS
        return await super().on_tick(counter)


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until a signal arrives. Blocks. Call it on the main thread, the only one that receives signals."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=ENDING_SECONDS,
    )
    service: Service = app.state.service
    logger.info(
        "serving",
        extra={"model": service.scorer.info.name, "host": settings.host, "port": settings.port},
    )
    DrainingServer(config, service).run()
