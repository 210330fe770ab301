"""Run a task's plan on an event loop: its requests join the common queue, and no thread waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.requests import Request

from gliclass_rerank import GLiClassRerankError, LabelTooLongError
from gliclass_rerank.scoring import Answer, Plan, checked_rows, resume
from gliclass_rerank.types import FloatArray, ScoreRequest
from gliclass_rerank_service.errors import BackendError, ClientGoneError
from gliclass_rerank_service.observability.request_stats import RequestStats, stats_of
from gliclass_rerank_service.queue.errors import DeadlineExceededError
from gliclass_rerank_service.queue.submission import Submission
from gliclass_rerank_service.service import Service, logger, service_of

T = TypeVar("T")
INLINE_TOKENS = 2048  # up to this size a plan runs on the loop, in about a millisecond; a larger one on a thread


@dataclass(frozen=True, slots=True)
class _Asked:
    """Requests of a plan, and their submission."""

    requests: Sequence[ScoreRequest]
    submission: Submission


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    result: T


async def run_task(
    request: Request,
    plan: Plan[T],
    *,
    texts: int,
    tokens: int,
    on_thread: bool = False,
    model: str | None = None,
) -> T:
    """Run a plan for a request. Its score requests are batched with those of others.

    Args:
        request: its deadline applies, and computation stops if its client disconnects.
        plan: not begun.
        texts: number of texts.
        tokens: estimate from the body, not far above the true number. It determines whether the plan is begun, and
            whether it runs on a thread.
        on_thread: run on a thread in any case.
        model: the model named by the client.

    Raises:
        NotFoundError: another model is requested and ``strict_model`` is set.
        ClientGoneError: the client has disconnected.
        DeadlineExceededError, OverloadedError, ClosedError: it was not computed.
        TooLargeError: it exceeds the limits of a request.
        GLiClassRerankError: any error of the plan.
    """
    service, stats = service_of(request), stats_of(request.scope)
    service.check_model(model)
    service.check_texts(texts)
    service.check_tokens(tokens)
    answer: Answer | None = None
    while True:
        if on_thread or tokens > INLINE_TOKENS:
            loop = asyncio.get_running_loop()
            step = await loop.run_in_executor(service.threads, _advance, plan, answer, service, stats)
        else:
            step = _advance(plan, answer, service, stats)
        if isinstance(step, _Done):
            return step.result
        try:
            answer = checked_rows(await _answer(request, service, stats, step.submission), step.requests)
        except LabelTooLongError as error:  # the plan may divide the label; these requests were not scored
            stats.texts -= len(step.requests)
            stats.tokens -= sum(step.submission.costs)
            answer = error
        except GLiClassRerankError as error:
            answer = error


def _advance(plan: Plan[T], answer: Answer | None, service: Service, stats: RequestStats) -> _Asked | _Done[T]:
    """Resume a plan and submit its next requests. If they cannot be submitted, the error is passed to the plan."""
    while True:
        try:
            requests = resume(plan, answer)
        except StopIteration as ended:
            return _Done(ended.value)
        try:
            return _Asked(requests, _submit(requests, service, stats))
        except GLiClassRerankError as error:
            answer = error


def _submit(requests: Sequence[ScoreRequest], service: Service, stats: RequestStats) -> Submission:
    """Count the requests of a plan and queue them."""
    prepared = service.scorer.prepare(requests)
    stats.texts += len(requests)
    stats.tokens += prepared.tokens
    service.check_tokens(stats.tokens)
    return service.scorer.submit(prepared, deadline=_left(service, stats))


def _left(service: Service, stats: RequestStats) -> float:
    return stats.started + service.settings.timeout_seconds - time.monotonic()


async def _answer(
    request: Request, service: Service, stats: RequestStats, submission: Submission
) -> Sequence[FloatArray]:
    """Wait for the first of: the result, the deadline, the client's disconnection."""
    answer, gone = asyncio.wrap_future(submission), asyncio.ensure_future(_disconnected(request))
    waiting: set[asyncio.Future[Any]] = {answer, gone}
    try:
        await asyncio.wait(waiting, timeout=_left(service, stats), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return _result(answer)
        if gone.done():
            raise ClientGoneError("the client has disconnected")
        raise DeadlineExceededError(f"no answer within {service.settings.timeout_seconds:g} s; send less at a time")
    finally:
        gone.cancel()
        answer.cancel()  # also cancels the submission; no effect if it is done
        stats.queue_seconds += submission.queue_seconds
        stats.inference_seconds += submission.inference_seconds


def _result(answer: asyncio.Future[list[FloatArray]]) -> list[FloatArray]:
    error = answer.exception()
    if error is None:
        return answer.result()
    if isinstance(error, GLiClassRerankError):
        raise error
    logger.error("the model failed", exc_info=error)
    raise BackendError(f"the model failed ({type(error).__name__}); see the service's log") from None


async def _disconnected(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
