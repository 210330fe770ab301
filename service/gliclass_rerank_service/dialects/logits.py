"""`/logits` and `/info`: the service as a `Scorer` for the client `HttpScorer`. `/info` has TEI's keys too."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

import gliclass_rerank
from gliclass_rerank import Example, Logits, ModelInfo, ScoreRequest
from gliclass_rerank.scoring import Plan, labels_share_pass
from gliclass_rerank.types import FloatArray
from gliclass_rerank.unreadable import naming, request_places
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import (
    Items,
    Reply,
    documented,
    respond,
    scoring_router,
)
from gliclass_rerank_service.errors import EmptyError
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

router = scoring_router("logits")
info_router = APIRouter(tags=["operations"], responses=documented(401, 429, 503))

Window = Annotated[list[int], Field(min_length=2, max_length=2)]


class ExampleBody(BaseModel):
    """A solved example."""

    text: str
    labels: Items[str]


class ScoreBody(BaseModel):
    """A text and the labels to score against it, see `gliclass_rerank.ScoreRequest`."""

    text: str
    labels: Items[str]
    prompt: str = ""
    examples: Items[ExampleBody] = []
    long_text: Literal["window", "truncate", "error"] = "window"
    vector: bool = False
    similarity: float = 0.0

    def request(self) -> ScoreRequest:
        """The request for a scorer. Raises `InputError` as `ScoreRequest` does."""
        examples = tuple(Example(one.text, tuple(one.labels)) for one in self.examples)
        labels = tuple(self.labels)
        return ScoreRequest(self.text, labels, self.prompt, examples, self.long_text, self.vector, self.similarity)

    def estimate(self) -> int:
        """Estimated tokens."""
        solved = [text for one in self.examples for text in (one.text, *one.labels)]
        return estimate_tokens_for([self.text], self.labels) + estimate_tokens_for([self.prompt, *solved])


class LogitsBody(BaseModel):
    """Requests for raw logits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"requests": [{"text": "The invoice is wrong.", "labels": ["billing", "tech"]}]}]
        }
    )

    requests: Items[ScoreBody]


class LabelsBody(BaseModel):
    """Labels, and the solved examples they are read with."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"labels": ["billing", "tech"]}]})

    labels: Items[str] = Field(min_length=1)
    examples: Items[ExampleBody] = []


class LabelsReply(Reply):
    """Whether the model reads the labels together."""

    share_pass: bool = Field(description="Whether one pass reads all labels, with a text of any length.")


class LogitsResult(Reply):
    """Raw logits of one request, as float32 values that JSON represents exactly."""

    logits: list[float] = Field(description="One per label, in their order.")
    spans: list[Window] = Field(description="Code points of each window of the text.")
    per_window: list[list[float]] | None = Field(
        default=None, description="Logits of each window, if there are several."
    )
    truncated: bool
    unread_text: bool | None = Field(default=None, description="Whether the model knows no words of the text.")
    unread_labels: list[int] | None = Field(
        default=None, description="Indices of labels of which the model knows no words."
    )
    vector: list[float] | None = Field(default=None, description="Vector of the text, if it was asked for.")


class LogitsReply(Reply):
    """Results in the order of the requests."""

    model: str
    revision: str
    results: list[LogitsResult]


class ModelType(Reply):
    """TEI's description of the model's type."""

    reranker: dict[str, dict[str, Any]]


class GliclassInfo(Reply):
    """Model information for a client that uses the service as a model: the fields of `ModelInfo`, and calibration."""

    name: str
    revision: str
    architecture: str
    backend: str
    device: str
    dtype: str
    kernel: str
    max_length: int
    direction: str
    independent_labels: bool
    embeds: bool
    prompts: bool
    first_stage_weight: float | None
    similarity: dict[str, float]
    calibrated: bool
    calibration: dict[str, dict[str, Any]]
    version: str


class InfoReply(Reply):
    """TEI's keys, and the native ones below `gliclass`."""

    model_id: str
    model_sha: str
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    gliclass: GliclassInfo


@router.post("/logits", responses={200: {"model": LogitsReply}}, summary="Raw logits of texts and labels")
async def logits(body: LogitsBody, request: Request) -> Response:
    """Return the scorer's logits unchanged, without calibration, sorting or filtering."""
    service = service_of(request)
    if not body.requests:
        raise EmptyError("requests: expected at least one, got none")
    rows = await run_task(
        request,
        _plan(body),
        texts=len(body.requests),
        tokens=sum(one.estimate() for one in body.requests),
    )
    info = service.scorer.info
    reply = LogitsReply(model=info.name, revision=info.revision, results=[_result(row) for row in rows])
    return respond(reply, exclude_none=True)


@router.post("/labels", responses={200: {"model": LabelsReply}}, summary="Test whether labels share a pass")
def labels(body: LabelsBody, request: Request) -> LabelsReply:
    """Whether labels share a pass, for a client's router. See `gliclass_rerank.scoring.labels_share_pass`."""
    service = service_of(request)
    asked = ScoreBody(text="labels", labels=body.labels, examples=body.examples)
    service.check_tokens(asked.estimate())
    checked = asked.request()
    return LabelsReply(share_pass=labels_share_pass(service.scorer, checked.labels, checked.examples))


def _plan(body: LogitsBody) -> Plan[list[FloatArray]]:
    requests = [one.request() for one in body.requests]
    with naming(lambda: request_places(requests)):
        return (yield requests)


def _result(row: FloatArray) -> LogitsResult:
    if not isinstance(row, Logits):
        return LogitsResult(logits=row.tolist(), spans=[], truncated=False)
    windows = row.per_window.tolist() if len(row.spans) > 1 else None
    spans = [list(span) for span in row.spans]
    return LogitsResult(
        logits=row.tolist(),
        spans=spans,
        per_window=windows,
        truncated=row.truncated,
        unread_text=row.unread_text or None,
        unread_labels=list(row.unread_labels) or None,
        vector=row.vector.tolist() or None,
    )


@info_router.get("/info", responses={200: {"model": InfoReply}}, summary="Get the model and the limits")
async def info(request: Request) -> Response:
    """Return the model and the limits of the service."""
    service = service_of(request)
    model, settings = service.scorer.info, service.settings
    return respond(
        InfoReply(
            model_id=model.name,
            model_sha=model.revision,
            model_dtype=model.dtype,
            served_model_name=model.name,
            model_type=ModelType(reranker={"id2label": {"0": "relevant"}, "label2id": {"relevant": 0}}),
            max_concurrent_requests=settings.max_concurrent_requests,
            max_input_length=model.max_length,
            max_batch_tokens=settings.queue_batch_tokens,
            max_batch_requests=None,
            max_client_batch_size=settings.max_texts,
            auto_truncate=False,
            tokenization_workers=1,
            version=gliclass_rerank.__version__,
            gliclass=_gliclass(model),
        )
    )


def _gliclass(model: ModelInfo) -> GliclassInfo:
    calibration = {task: calibrator.as_dict() for task, calibrator in model.calibration.items()}
    fields = asdict(model) | {"calibrated": model.calibrated, "calibration": calibration}
    return GliclassInfo(**fields, version=gliclass_rerank.__version__)
