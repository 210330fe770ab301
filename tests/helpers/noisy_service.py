"""A service whose answers depend on every part of a request, and that fails as it is told to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import uvicorn
from fakes import INFO, windows
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from gliclass_rerank import (
    Logits,
    ModelInfo,
    Scorer,
    ScoreRequest,
)
from gliclass_rerank.calibration.calibrators import IsotonicCalibrator, PlattCalibrator
from gliclass_rerank.scoring import labels_share_pass
from gliclass_rerank.types import FloatArray

KEY = "a-key-of-the-test"


CALIBRATED = replace(
    INFO,
    first_stage_weight=0.25,
    direction="passage-as-label",
    calibration={"relevance": PlattCalibrator(0.7, -0.3), "labels": IsotonicCalibrator((-1.0, 0.5), (-2.0, 1.5))},
)


class NoisyScorer:
    """Logits that depend on every part of a request and use all bits of a float32, in windows of three words.

    Attributes:
        asked: the requests of each call.
    """

    info: ModelInfo = CALIBRATED

    def __init__(self) -> None:
        self.asked: list[list[ScoreRequest]] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.asked.append(list(requests))
        return [self._score(request) for request in requests]

    def _score(self, request: ScoreRequest) -> Logits:
        spans = windows(request.text, 3)
        read = spans[:1] if request.long_text == "truncate" else spans
        seed = np.frombuffer(repr(request).encode(), np.uint8)
        rows = np.random.default_rng(seed).normal(size=(len(read), len(request.labels))).astype(np.float32)
        unread = [i for i, label in enumerate(request.labels) if len(label) % 3 == 0]
        return Logits.over_windows(
            rows,
            read,
            truncated=len(read) < len(spans),
            unread_text=len(request.text) % 2 == 0,
            unread_labels=unread,
        )


Fault = Callable[[Request], "Response | None"]


class Service:
    """``/info``, ``/logits`` and ``/labels`` as the service has them. Each request first suffers the next fault.

    Attributes:
        faults: what happens to the next requests; None lets one through.
        times: when requests came, monotonic clock.
        sizes: of each answered call of ``/logits``, how many requests it had.
    """

    def __init__(self, scorer: Scorer, *, max_client_batch_size: int = 64) -> None:
        self.scorer = scorer
        self.info: dict[str, Any] = {
            "model_id": scorer.info.name,
            "max_client_batch_size": max_client_batch_size,
            "gliclass": {
                **asdict(replace(scorer.info, calibration={})),
                "calibration": {task: made.as_dict() for task, made in scorer.info.calibration.items()},
                "version": "0",
            },
        }
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.times: list[float] = []
        self.sizes: list[int] = []
        self.app = FastAPI()
        self.app.get("/info")(self._info)
        self.app.post("/logits")(self._logits)
        self.app.post("/labels")(self._labels)

    def _fault(self, request: Request) -> Response | None:
        self.times.append(time.monotonic())
        fault = self.faults.pop(0) if self.faults else self.always
        return fault(request) if fault else None

    def _info(self, request: Request) -> Response:
        return self._fault(request) or JSONResponse(self.info)

    async def _labels(self, request: Request) -> Response:
        if failed := self._fault(request):
            return failed
        body = await request.json()
        return JSONResponse({"share_pass": labels_share_pass(self.scorer, body["labels"])})

    async def _logits(self, request: Request) -> Response:
        if failed := self._fault(request):
            return failed
        body = await request.json()
        asked = [
            ScoreRequest(
                one["text"],
                one["labels"],
                prompt=one.get("prompt", ""),
                examples=tuple(one.get("examples", ())),
                long_text=one.get("long_text", "window"),
            )
            for one in body["requests"]
        ]
        rows = await asyncio.to_thread(self.scorer.score, asked)
        self.sizes.append(len(asked))
        info = self.scorer.info
        return JSONResponse({"model": info.name, "revision": info.revision, "results": [*map(_result, rows)]})


def _result(row: FloatArray) -> dict[str, object]:
    result: dict[str, object] = {"logits": row.tolist(), "spans": [], "truncated": False}
    if isinstance(row, Logits):
        result |= {"spans": row.spans, "truncated": row.truncated}
        result |= {"unread_text": row.unread_text, "unread_labels": row.unread_labels}
        if len(row.spans) > 1:
            result["per_window"] = row.per_window.tolist()
    return result


def needs_key(request: Request) -> Response | None:
    return None if request.headers.get("authorization") == f"Bearer {KEY}" else JSONResponse({"message": "key"}, 401)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The URL of an app on a server of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def assert_same(got: Sequence[FloatArray], expected: Sequence[FloatArray]) -> None:
    """Equal bits, and equal memory of the windows."""
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert isinstance(ours, Logits)
        assert isinstance(theirs, Logits)
        assert ours.dtype == np.float32
        assert ours.tobytes() == theirs.tobytes()
        assert ours.per_window.tobytes() == theirs.per_window.tobytes()
        assert ours.per_window.shape == theirs.per_window.shape
        assert (ours.spans, ours.truncated) == (theirs.spans, theirs.truncated)
        assert (ours.unread_text, ours.unread_labels) == (theirs.unread_text, theirs.unread_labels)
