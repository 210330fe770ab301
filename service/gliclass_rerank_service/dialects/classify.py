"""`/classify`: the native format, and vLLM's for a body with `input`, which needs labels here too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from types import NoneType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import Classification, Classifier, InputError, Scorer
from gliclass_rerank.scoring import Plan
from gliclass_rerank.tasks.classify import ClassifyOptions
from gliclass_rerank_service.admission import BYTES, estimate_tokens_for, sizes_in
from gliclass_rerank_service.dialects.common import (
    ACTIVATION,
    Flag,
    Items,
    LongTextOption,
    Reply,
    Share,
    UnreadableOption,
    Usage,
    VllmBody,
    first_wrong_only,
    request_id,
    respond,
    scoring_router,
    usage_of,
)
from gliclass_rerank_service.errors import EmptyError
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

router = scoring_router("classify")
AnyLabels = list[Any] | dict[str, Any]
Thresholds = Annotated[dict[str, Share], first_wrong_only(Share)]
EXAMPLE: JsonDict = {
    "text": "The parcel came broken.",
    "labels": {"tone": ["calm", "angry"], "topic": ["delivery", "price"]},
}


class ClassifyBody(VllmBody):
    """Arguments of `gliclass_rerank.Classifier.classify`, or vLLM's `input` with labels."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    text: str | None = None
    texts: Items[str] | None = None
    input: str | Items[str] | None = Field(
        default=None, description="vLLM's name for text or texts. The answer has vLLM's format."
    )
    labels: AnyLabels | None = Field(
        default=None, description="Names, nested objects of names, or a list with one of these per text."
    )
    multi_label: Flag | None = Field(
        default=None, description="Whether any number of labels may apply (true, the default), or exactly one."
    )
    threshold: Share | Thresholds | None = Field(
        default=None, description="Minimum score of a label, or an object with one per label. Default: 0.5."
    )
    prompt: str | Items[str | None] | None = None
    examples: list[Any] | None = Field(
        default=None, description='Solved examples {"text", "labels"}, or a list of them per text.'
    )
    top_k: int | None = Field(default=None, ge=1)
    hierarchical: Flag | None = Field(default=None, description="Also return all scores in the nesting of the labels.")
    aggregate: Literal["max", "mean", "first"] | None = None
    long_text: LongTextOption = None
    unreadable: UnreadableOption = None


class LabelFound(Reply):
    """A label that applies."""

    label: str
    score: float
    index: int
    window: tuple[int, int] | None


class Classified(Reply):
    """The labels that apply to one text, and the scores of all labels in the order given."""

    labels: list[LabelFound]
    scores: list[float]
    truncated: bool
    tree: dict[str, Any] | None
    readable: bool = Field(description="Whether the model knows words of the text and of every label.")


class ClassifyReply(Reply):
    """One result per text, in their order."""

    id: str
    model: str
    results: list[Classified]
    usage: Usage


class VllmClass(Reply):
    """vLLM's result: the best label, and the probabilities of all in the order given.

    They sum to 1, unless `multi_label` allows any number of labels.
    """

    index: int
    label: str
    probs: list[float]
    num_classes: int


class VllmReply(Reply):
    """vLLM's list of results."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[VllmClass]
    usage: Usage


def plan_of(
    body: ClassifyBody, texts: Sequence[str], scorer: Scorer, *, multi_label: bool, threshold: float | dict[str, float]
) -> Plan[list[Classification]]:
    """The plan described by a body."""
    options = ClassifyOptions(
        multi_label=multi_label,
        threshold=threshold,
        top_k=body.top_k,
        hierarchical=bool(body.hierarchical),
        aggregate=body.aggregate or "max",
        long_text=body.long_text or "window",
        unreadable=body.unreadable or "flag",
    )
    return Classifier(scorer).plan(texts, body.labels or [], options, prompt=body.prompt, examples=body.examples)


def _texts(body: ClassifyBody) -> list[str]:
    given = [value for value in (body.text, body.texts, body.input) if value is not None]
    if len(given) != 1:
        raise InputError(f"expected one of the fields text, texts and input, got {len(given)} of them")
    texts = [given[0]] if isinstance(given[0], str) else given[0]
    if not texts:
        raise EmptyError("texts: expected at least one, got none")
    for name in ACTIVATION:
        if getattr(body, name) is False:
            raise InputError(f"{name}: expected true, got false; `/logits` gives logits")
    if body.input is not None:
        _refuse_ours(body)
    if not body.labels:
        raise InputError("labels: expected at least one, got none; the model has no labels of its own")
    return texts


def _refuse_ours(body: ClassifyBody) -> None:
    """Refuse the options of the native format that vLLM's has no room for: it has the best label and all scores."""
    for name in ("threshold", "top_k", "hierarchical"):
        if getattr(body, name) not in (None, False):
            raise InputError(f"{name}: expected none with input, got one; send text or texts instead of input")


def _estimate(body: ClassifyBody, texts: Sequence[str]) -> int:
    """Estimated tokens: labels, prompt and examples with each text, or each text with its own."""
    tokens = estimate_tokens_for(texts)
    for value, own in (
        (body.labels, _all_are(body.labels, (list, dict))),
        (body.prompt, isinstance(body.prompt, list)),
        (body.examples, _all_are(body.examples, (list, NoneType))),
    ):
        sizes = list(sizes_in(value))
        tokens += (sum(sizes) // BYTES + len(sizes)) * (1 if own else len(texts))
    return tokens


def _all_are(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value is a list with one element per text; otherwise it applies to all texts."""
    return isinstance(value, list) and all(isinstance(one, kinds) for one in value)


@router.post("/classify", responses={200: {"model": ClassifyReply | VllmReply}}, summary="Choose labels for texts")
async def classify(body: ClassifyBody, request: Request) -> Response:
    """Classify texts by labels given in words, flat or nested, for all texts or per text."""
    texts = _texts(body)
    from_vllm = body.input is not None
    multi = body.multi_label if body.multi_label is not None else not from_vllm
    # vLLM's format always has the best label, whatever its score.
    threshold = 0.0 if from_vllm else 0.5 if body.threshold is None else body.threshold
    scorer = service_of(request).scorer
    plan = plan_of(body, texts, scorer, multi_label=multi, threshold=threshold)
    found = await run_task(request, plan, texts=len(texts), tokens=_estimate(body, texts), model=body.model)
    model, usage = scorer.info.name, usage_of(stats_of(request.scope))
    if from_vllm:
        data = [_vllm(one, i) for i, one in enumerate(found)]
        return respond(VllmReply(id=request_id(request), created=int(time.time()), model=model, data=data, usage=usage))
    results = [Classified.model_validate(asdict(one)) for one in found]
    return respond(ClassifyReply(id=request_id(request), model=model, results=results, usage=usage))


def _vllm(found: Classification, index: int) -> VllmClass:
    return VllmClass(index=index, label=found.labels[0].label, probs=list(found.scores), num_classes=len(found.scores))
