"""serve: run an app with uvicorn and shut down without losing a request.

At SIGTERM or SIGINT the app drains: /ready gives 503, new requests are refused with 503, accepted ones are answered,
and connections close after their answer. When no request has been left for half a second, the sockets close. After
``drain_seconds`` the remaining requests are answered with 503, and the process ends within `ENDING_SECONDS`, even if a
batch or another thread still runs. A second signal ends it at once.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gliclass_rerank_service.service import Service
from gliclass_rerank_service.settings import Settings

QUIET_TICKS = 5  # of a tenth of a second, so that clients that were just answered get a 503, not a closed socket
ENDING_SECONDS = 0.6  # to send the last answers, when the time to drain is over
ALARM_SECONDS = 0.2  # from then until the system ends the process, if no thread of Python gets a turn

logger = logging.getLogger("gliclass_rerank.service")


class ProcessEnd:
    """The end of the process at a fixed time, whatever its threads do.

    Python waits at its end for all threads of executors, and a batch cannot be stopped. So a thread of this class ends
    the process with status 0, without cleaning up. If another thread keeps Python's global lock, SIGALRM ends it.
    """

    def __init__(self) -> None:
        self._begun, self._now = threading.Event(), threading.Event()
        self._seconds = 0.0
        threading.Thread(target=self._wait, name="gliclass-ending", daemon=True).start()

    def within(self, seconds: float) -> None:
        """End in so many seconds. May be called by a signal handler, once."""
        self._seconds = seconds
        self._begun.set()
        if hasattr(signal, "setitimer"):  # Windows has none
            signal.setitimer(signal.ITIMER_REAL, seconds + ALARM_SECONDS)

    def at_once(self) -> None:
        """End now, after `within`. May be called by a signal handler, once."""
        self._now.set()

    def _wait(self) -> None:
        self._begun.wait()
        self._now.wait(self._seconds)
        os._exit(0)


class DrainingServer(uvicorn.Server):
    """A uvicorn server that answers the accepted requests before it ends.

    Args:
        config: of uvicorn.
        service: the app's.
        process_end: ends the process when the time is over. Default: the server ends, but waits for its threads.
    """

    def __init__(self, config: uvicorn.Config, service: Service, *, process_end: ProcessEnd | None = None) -> None:
        super().__init__(config)
        self._service = service
        self._process_end = process_end
        self._signals = 0
        self._quiet_ticks = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. End at the second signal."""
        self._signals += 1
        if self._signals == 1:
            left = self._service.drain()
            if self._process_end:
                self._process_end.within(left + ENDING_SECONDS)
        elif self._signals == 2:
            self.should_exit = self.force_exit = True
            if self._process_end:
                self._process_end.at_once()

    async def on_tick(self, counter: int) -> bool:
        """Whether to end. Called ten times a second."""
        if self._signals:
            self._quiet_ticks = 0 if self._service.in_flight else self._quiet_ticks + 1
            if self._service.drain() < 0:
                logger.warning("the time to drain is over", extra={"unanswered": self._service.in_flight})
                self._service.scorer.abandon()
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
        timeout_graceful_shutdown=1,  # for connections to close; then their tasks are cancelled
    )
    service: Service = app.state.service
    logger.info(
        "serving",
        extra={"model": service.scorer.info.name, "host": settings.host, "port": settings.port},
    )
    DrainingServer(config, service, process_end=ProcessEnd()).run()
