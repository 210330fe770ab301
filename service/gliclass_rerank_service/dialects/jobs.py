"""Jobs: `/predict` with `labels`, `/jobs/rerank`, and `/result/{task_id}`. `/predict` without labels is TEI's.

An accepted job is answered with 202 and its executor. Fetching its result gives 202 while it is processed, then 200 for
a completed and for a failed job, with different `status`. Unknown jobs and expired results are 404.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, JsonValue
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import InputError
from gliclass_rerank.errors import NoPromptsError
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import ErrorBody, Ignored, Items, Reply, respond, scoring_router
from gliclass_rerank_service.dialects.rerank import RerankBody, call_of
from gliclass_rerank_service.dialects.score import PredictBody, PredictReply, predict
from gliclass_rerank_service.errors import NotFoundError
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import Service, service_of

if TYPE_CHECKING:
    from gliclass_rerank_service.jobs.base import Executor
    from gliclass_rerank_service.jobs.run import JobKind, JobStatus

T = TypeVar("T")
router = scoring_router("jobs")
EXAMPLE: JsonDict = {
    "inputs": ["The parcel came broken."],
    "labels": ["complaint", "praise"],
    "classification_type": "multi-label",
}


class AnyPredictBody(PredictBody):
    """A job if it has labels, otherwise TEI's body."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE, {"inputs": ["a query", "a text"]}]})

    labels: Items[str] | None = Field(default=None, description="Labels to classify by. With labels it is a job.")
    classification_type: Literal["single-label", "multi-label"] | None = None
    batch_size: Annotated[Any, Ignored("batches are formed by tokens")] = None
    threshold: float | None = Field(default=None, ge=0, le=1, description="Minimum score of a returned label.")


class Accepted(Reply):
    """A job that waits or is processed."""

    task_id: str
    status: Literal["Processing"] = "Processing"
    executor: Literal["in-process", "celery"]


class Finished(Reply):
    """A job that has ended."""

    task_id: str
    status: Literal["Completed", "Failed"]
    executor: Literal["in-process", "celery"]
    result: JsonValue = Field(default=None, description="Result of a completed job: predictions or a ranking.")
    error: str | None = Field(default=None, description="Error of a failed job.")


ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"model": Accepted, "description": "The job is accepted."}}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody, "description": "No such job, or not any more."}}


@router.post(
    "/predict",
    responses=ACCEPTED | {200: {"model": PredictReply}},
    summary="Submit a classification job, or score TEI's pairs",
)
async def predict_or_submit(body: AnyPredictBody, request: Request) -> Response:
    """Submit a job if there are `labels` (result at `/result/{task_id}`), otherwise return TEI's scores of pairs."""
    if body.labels is None:
        for name in ("classification_type", "threshold"):
            if getattr(body, name) is not None:
                raise InputError(f"{name}: expected labels with it, got none; without labels, pairs are scored")
        return await predict(body, request)
    if body.raw_scores:
        raise InputError("raw_scores: expected none in a job, got true; `/logits` gives logits")
    wanted = {"inputs", "labels", "classification_type", "threshold"}
    inputs = [body.inputs] if isinstance(body.inputs, str) else [one for one in body.inputs if isinstance(one, str)]
    tokens = estimate_tokens_for(inputs, body.labels)
    return await _submit(request, "predict", body.model_dump(include=wanted, exclude_none=True), tokens, body.model)


@router.post("/jobs/rerank", status_code=202, responses=ACCEPTED, summary="Submit a ranking job")
async def submit_rerank(body: RerankBody, request: Request) -> Response:
    """Rank more documents than one request may have. The body is that of `/rerank`, the result that of `/v1/rerank`."""
    call = call_of(body)
    if call.spans is not None and call.spans.wanted:
        raise InputError("relevant_spans: expected none in a job, got some; send the best documents to /v2/rerank")
    info = service_of(request).scorer.info
    if call.instruction and not info.prompts:
        raise NoPromptsError(info.name)
    payload: dict[str, JsonValue] = {"query": call.query, "documents": list(call.passages)}
    if call.top_n is not None:
        payload["top_n"] = call.top_n
    if call.first_stage_scores is not None:
        payload["first_stage_scores"] = list(call.first_stage_scores)
    if call.instruction is not None:
        payload["instruction"] = call.instruction
    payload |= {"long_text": call.long_text, "unreadable": call.unreadable}
    payload |= {"return_documents": call.documents, "raw_scores": call.raw}
    tokens = estimate_tokens_for(call.passages, [call.query, call.instruction or ""])
    return await _submit(request, "rerank", payload, tokens, body.model)


@router.get(
    "/result/{task_id}", responses=ACCEPTED | {200: {"model": Finished}} | NOT_FOUND, summary="Get the result of a job"
)
async def result(task_id: str, request: Request) -> Response:
    """Return 202 while the job is processed, then 200 with its result or its error."""
    service = service_of(request)
    executor, status = await _called(request, lambda: _status(service, task_id))
    if status.state == "processing":
        return respond(Accepted(task_id=task_id, executor=executor), status=202)
    if status.state == "failed":
        return respond(Finished(task_id=task_id, status="Failed", executor=executor, error=status.error))
    return respond(Finished(task_id=task_id, status="Completed", executor=executor, result=status.result))


async def _submit(
    request: Request, kind: JobKind, payload: dict[str, JsonValue], tokens: int, model: str | None
) -> Response:
    service = service_of(request)
    service.check_model(model)
    service.check_job_tokens(tokens)
    executor, task_id = await _called(request, lambda: _submitted(service, kind, payload))
    return respond(Accepted(task_id=task_id, executor=executor), status=202)


async def _called(request: Request, call: Callable[[], T]) -> T:
    """Result of a call that may block on a broker, within the time left to the request."""
    service = service_of(request)
    left = service.settings.timeout_seconds - stats_of(request.scope).seconds
    return await service.job_calls.run(call, seconds=left)


def _submitted(service: Service, kind: JobKind, payload: dict[str, JsonValue]) -> tuple[Executor, str]:
    return service.jobs.executor, service.jobs.submit(kind, payload)


def _status(service: Service, task_id: str) -> tuple[Executor, JobStatus]:
    from gliclass_rerank_service.jobs.base import UnknownJobError

    try:
        return service.jobs.executor, service.jobs.status(task_id)
    except UnknownJobError as error:
        raise NotFoundError(str(error)) from error
