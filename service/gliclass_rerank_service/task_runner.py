"""run_scored: the library's tasks on an event loop, without a thread that waits for each.

A task is pure, asks its scorer once or a few times, and is pure again. So it is run with a scorer that notes the first
question and stops it; the loop awaits the answer; the task is run again and given the answer. What runs twice is the
cheap part. A hundred waiting requests are a hundred futures, and no threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from gliclass_rerank import Example, GLiClassRerankError, InputError, LabelTooLongError, ModelInfo, Scorer, ScoreRequest
from gliclass_rerank.errors import UnreadableTextError
from gliclass_rerank.scoring import labels_share_pass
from gliclass_rerank.types import FloatArray
from gliclass_rerank_service.errors import BackendError, ClientGoneError
from gliclass_rerank_service.observability.request_stats import RequestRecord, record_of
from gliclass_rerank_service.queue import DeadlineExceededError, Submission, estimate_tokens
from gliclass_rerank_service.service import Service, logger, service_of

T = TypeVar("T")
INLINE_TOKENS = 16_384  # of a request that is prepared on the loop, in a millisecond or so; larger ones on a thread


class _AsksError(BaseException):
    """Stops a task at a question that has no answer yet. No `Exception`, so that no task takes it for a failure."""

    def __init__(self, requests: Sequence[ScoreRequest]) -> None:
        super().__init__()
        self.requests = tuple(requests)


@dataclass(slots=True)
class _Replayed:
    """A `Scorer` in front of another, which knows the answers to the first questions, some of them an error.

    It stops at the next question.
    """

    scorer: Scorer
    answers: Sequence[Sequence[FloatArray] | InputError]
    asked: int = 0

    @property
    def info(self) -> ModelInfo:
        return self.scorer.info

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """See `gliclass_rerank.scoring.labels_share_pass`."""
        return labels_share_pass(self.scorer, labels, examples)

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        if not requests:
            return []
        if self.asked == len(self.answers):
            raise _AsksError(requests)
        self.asked += 1
        answer = self.answers[self.asked - 1]
        if isinstance(answer, InputError):  # the task knows its place in the request, or divides and asks again
            raise answer
        return answer


async def run_scored(
    request: Request,
    work: Callable[[Scorer], T],
    *,
    count: int,
    tokens: int,
    on_thread: bool = False,
    model: str | None = None,
) -> T:
    """Run ``work`` for a request; what it scores is batched with what others score.

    Args:
        request: whose deadline counts, and whose client must stay: if it leaves, nothing more is computed for it.
        work: pure but for its scorer; it may be called several times.
        count: how many texts it handles.
        tokens: what it will ask for at first, estimated from the body and not above what it really is by much, so
            that nothing too large is built. Many tokens are handled on a thread.
        on_thread: whether it is handled on a thread in any case.
        model: what the client calls the model.

    Raises:
        NotFoundError: another model is wanted, and that matters.
        ClientGoneError: the client has left.
        DeadlineExceededError, OverloadedError, ClosedError: it was not computed.
        TooLargeError: it asks for more than one request may.
        GLiClassRerankError: whatever ``work`` raises.
    """
    service, record = service_of(request), record_of(request.scope)
    service.check_model(model)
    service.check_passages(count)
    service.check_tokens(tokens)
    answers: list[Sequence[FloatArray] | InputError] = []

    def attempt() -> T | Submission:
        try:
            return work(_Replayed(service.scorer, answers))
        except _AsksError as asked:
            return _submit(asked.requests, service, record)

    while True:
        if on_thread or tokens > INLINE_TOKENS:
            outcome = await asyncio.get_running_loop().run_in_executor(service.threads, attempt)
        else:
            outcome = attempt()
        if not isinstance(outcome, Submission):
            return outcome
        try:
            answers.append(await _answer(request, service, record, outcome))
        except UnreadableTextError as error:
            answers.append(error)
        except LabelTooLongError as error:
            answers.append(error)
            record.passages -= len(outcome.requests)
            record.tokens -= sum(map(estimate_tokens, outcome.requests))


def _submit(requests: Sequence[ScoreRequest], service: Service, record: RequestRecord) -> Submission:
    """Count what a request asks for, and queue it."""
    record.passages += len(requests)
    record.tokens += sum(map(estimate_tokens, requests))
    service.check_tokens(record.tokens)
    return service.scorer.submit(requests, deadline=_left(service, record))


def _left(service: Service, record: RequestRecord) -> float:
    return record.started + service.settings.timeout_seconds - time.monotonic()


async def _answer(
    request: Request, service: Service, record: RequestRecord, submission: Submission
) -> Sequence[FloatArray]:
    """Wait for the first of: the answer, the deadline, the client's leaving."""
    answer, gone = asyncio.wrap_future(submission), asyncio.ensure_future(_disconnected(request))
    waiting: set[asyncio.Future[Any]] = {answer, gone}
    try:
        await asyncio.wait(waiting, timeout=_left(service, record), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return _result(answer)
        if gone.done():
            raise ClientGoneError("the client has left")
        limit = service.settings.timeout_seconds
        raise DeadlineExceededError(
            f"expected an answer within {limit:g} s, and there is none yet; send less at a time"
        )
    finally:
        gone.cancel()
        answer.cancel()  # and with it the submission; nothing happens if it is done
        record.queue_seconds += submission.queue_seconds
        record.inference_seconds += submission.inference_seconds


def _result(answer: asyncio.Future[list[FloatArray]]) -> list[FloatArray]:
    error = answer.exception()
    if error is None:
        return answer.result()
    if isinstance(error, GLiClassRerankError):
        raise error
    logger.error("the model failed", exc_info=error)
    raise BackendError(f"the model failed ({type(error).__name__}); the service's log has more") from None


async def _disconnected(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
