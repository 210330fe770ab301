"""Messages between a service and its `HttpScorer`: ``GET /info``, ``POST /logits`` and ``POST /labels``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np

from gliclass_rerank.calibration.file import calibrator_from_dict
from gliclass_rerank.errors import CheckpointError, ServiceError
from gliclass_rerank.types import NO_VECTOR, Direction, Example, FloatArray, Logits, ModelInfo, ScoreRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """Information about a service.

    Attributes:
        model: its model, with backend "http" and the service's URL as the device.
        max_requests: largest number of requests per call.
    """

    model: ModelInfo
    max_requests: int


def request_body(requests: Sequence[ScoreRequest]) -> bytes:
    """The body of ``POST /logits``."""
    return json.dumps({"requests": [_as_dict(request) for request in requests]}, ensure_ascii=False).encode()


def read_info(body: bytes, url: str) -> ServiceInfo:
    """Read the response of ``GET /info``.

    Raises:
        ServiceError: it is no response of a gliclass-rerank service.
    """
    return parse_response(lambda: _info(json.loads(body), url), f"{url}/info", "what gliclass-rerank says of its model")


def read_logits(body: bytes, requests: Sequence[ScoreRequest], model: ModelInfo) -> list[Logits]:
    """Read the response of ``POST /logits`` to these requests, with the original float32 bits and windows.

    Raises:
        ServiceError: it does not match these requests, or is of another model than ``model``.
    """
    where = f"{model.device}/logits"
    answer = parse_response(lambda: dict(json.loads(body)), where, "an object")
    revision = answer.get("revision")
    if revision != model.revision:
        raise ServiceError(
            f"{model.device} has changed its model: expected {model.name} at revision {model.revision}, "
            f"got {answer.get('model')} at {revision}; load the scorer again"
        )
    return parse_response(
        lambda: [_logits(row, asked) for row, asked in zip(answer["results"], requests, strict=True)],
        where,
        f"logits of {len(requests)} requests",
    )


def labels_body(labels: Sequence[str], examples: Sequence[Example]) -> bytes:
    """The body of ``POST /labels``."""
    shown = [{"text": example.text, "labels": example.labels} for example in examples]
    return json.dumps({"labels": labels, "examples": shown}, ensure_ascii=False).encode()


def read_share_pass(body: bytes, where: str) -> bool:
    """Read the response of ``POST /labels``.

    Raises:
        ServiceError: it is no response of a gliclass-rerank service.
    """
    return parse_response(lambda: bool(json.loads(body)["share_pass"]), where, "whether labels share a pass")


def parse_response(read: Callable[[], T], where: str, what: str) -> T:
    """Return the result of ``read``, or raise `ServiceError` if it cannot parse the response."""
    try:
        return read()
    except (ValueError, TypeError, LookupError, AttributeError, CheckpointError) as error:
        raise ServiceError(f"{where}: expected {what}, got something else ({type(error).__name__}: {error})") from error


def _as_dict(request: ScoreRequest) -> dict[str, object]:
    body: dict[str, object] = {"text": request.text, "labels": request.labels, "long_text": request.long_text}
    if request.vector:
        body["vector"] = True
    if request.similarity:
        body["similarity"] = request.similarity
    if request.prompt:
        body["prompt"] = request.prompt
    if request.examples:
        body["examples"] = [{"text": example.text, "labels": example.labels} for example in request.examples]
    return body


def _info(answer: Any, url: str) -> ServiceInfo:
    said = answer["gliclass"]
    if said.get("direction") not in get_args(Direction):
        raise ValueError(f"direction {said.get('direction')!r}")
    weight = said.get("first_stage_weight")
    model = ModelInfo(
        name=str(said["name"]),
        revision=str(said["revision"]),
        architecture=str(said["architecture"]),
        backend="http",
        device=url,
        dtype=str(said["dtype"]),
        max_length=int(said["max_length"]),
        direction=said["direction"],
        first_stage_weight=None if weight is None else float(weight),
        similarity={task: float(weight) for task, weight in said.get("similarity", {}).items()},
        calibration={
            task: calibrator_from_dict(value, f"{url}/info, {task}") for task, value in said["calibration"].items()
        },
        kernel=str(said.get("kernel", "")),
        independent_labels=bool(said.get("independent_labels", False)),
        embeds=bool(said.get("embeds", False)),
        prompts=bool(said.get("prompts", False)),
    )
    return ServiceInfo(model, max(1, int(answer["max_client_batch_size"])))


def _logits(row: Any, request: ScoreRequest) -> Logits:
    """One result. Logits without windows stay without."""
    values = _array(row["logits"], (len(request.labels),))
    spans = tuple((int(start), int(end)) for start, end in row["spans"])
    if not spans:
        return values.view(Logits)
    windows = _array(row["per_window"], (len(spans), len(values))) if len(spans) > 1 else values[np.newaxis]
    return Logits.over_windows(
        windows,
        spans,
        truncated=bool(row["truncated"]),
        unread_text=bool(row.get("unread_text", False)),
        unread_labels=_places(row.get("unread_labels", ()), len(values)),
        vector=_array(row["vector"], (len(row["vector"]),)) if request.vector else NO_VECTOR,
    )


def _places(given: Any, count: int) -> tuple[int, ...]:
    places = tuple(int(place) for place in given)
    if not all(0 <= place < count for place in places):
        raise ValueError(f"unread_labels {places}, and there are {count} labels")
    return places


def _array(values: Any, shape: tuple[int, ...]) -> FloatArray:
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused below
        array = np.array(values, np.float64).astype(np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"shape {array.shape} instead of {shape}, or numbers that are not finite")
    return array
