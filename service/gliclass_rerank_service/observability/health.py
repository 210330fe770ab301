"""Health: whether the model answers. The verdict is that of a probe, a small request that every model can score.

A probe runs at the start, and after each failure of the model until one succeeds. So a request that makes the model
fail does not make the service unready, and an instance that gets no traffic sees when its model has recovered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from gliclass_rerank import ScoreRequest
from gliclass_rerank_service.queue.batching_scorer import DIED, BatchingScorer
from gliclass_rerank_service.queue.errors import ClosedError, OverloadedError

PROBE = ScoreRequest("What is this passage about?", ("a test of the model",))
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0  # seconds between two probes; each pause is twice the one before
FAILING_SECONDS = 4.0  # without a success, when the probe itself is still waiting


class Health:
    """The state of a scorer.

    Args:
        scorer: watched, and probed by `watch`.

    Attributes:
        verdict: what the last probe said. None before the first one.
    """

    def __init__(self, scorer: BatchingScorer) -> None:
        self._scorer = scorer
        self.verdict: bool | None = None

    def problem(self) -> str | None:
        """Why the model cannot be expected to answer, in words for an operator. None if it can."""
        now = self._scorer.stats()
        if not now.alive:
            return DIED
        if self.verdict is None:
            return "the model is starting"
        if not self.verdict or now.failing_seconds > FAILING_SECONDS:
            return "the model fails; see the log"
        if now.late:
            return f"the model has computed one batch for {now.running_seconds:.0f} s"
        return None

    async def watch(self, *, on_failure: Callable[[BaseException, float], None]) -> None:
        """Probe the model until it succeeds, then wait for its next failure. Returns when the scorer is closed.

        Args:
            on_failure: called with the error of a failed probe and the seconds until the next. Of consecutive failures,
                only those with the number 1, 2, 4, 8, and so on are reported.
        """
        loop, failed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(failed.set)

        self._scorer.watch(wake)
        try:
            while await self._probe_until_success(on_failure):
                await failed.wait()
                failed.clear()
        finally:
            self._scorer.watch(None)

    async def _probe_until_success(self, on_failure: Callable[[BaseException, float], None]) -> bool:
        """Whether the model has succeeded. False if the scorer was closed."""
        pause, failures = FIRST_PAUSE, 0
        while True:
            try:
                prepared = await asyncio.to_thread(self._scorer.prepare, [PROBE])  # it may load the model
                await asyncio.wrap_future(self._scorer.submit(prepared))
            except ClosedError:
                return False
            except OverloadedError:
                pass  # says nothing of the model
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # panics of tokenizers and onnxruntime are not subclasses of Exception
                self.verdict = False
                failures += 1
                if failures.bit_count() == 1:
                    on_failure(error, pause)
            else:
                self.verdict = True
                return True
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
