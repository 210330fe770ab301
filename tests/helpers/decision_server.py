"""Yes-or-no questions as TypeSafe and OpenAI document them, without a model; it can also be made to fail."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from openai_server import Fault, refusal
from pydantic import BaseModel, ConfigDict, Field


class Noul(BaseModel):
    """TypeSafe's question, whose instructions llama.cpp requires."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["noul"]
    instructions: Annotated[str, Field(min_length=1)]


class SystemoneBody(BaseModel):
    """What this server understands of a request; it refuses all else."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    state: Annotated[str, Field(min_length=1)]
    questions: Annotated[dict[str, Noul], Field(min_length=1)]


class Predicate(BaseModel):
    """OpenAI's question."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["predicate"]
    name: str | None = None
    instructions: Annotated[str, Field(min_length=1)]


class DecisionsBody(BaseModel):
    """What this server understands of a request; it refuses all else."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    input: Annotated[str, Field(min_length=1)]
    questions: Annotated[list[Predicate], Field(min_length=1)]


class DecisionServer:
    """``/v1/systemone``, ``/v1/decisions`` and ``/v1/models``; each request first suffers the next fault, if any.

    Attributes:
        models: names that it goes by.
        lists: how it tells them: as OpenAI ("data"), as TypeSafe ("models"), or not at all (None).
        most_questions: of one request; more are refused with `too_many`.
        too_many: status and message of that refusal.
        sure: probabilities by text and last line of the question; others are made of a digest.
        faults: what happens to the next requests; None lets one through.
        always: what happens to all others.
        change: changes the body of each answer, before it is sent.
        times: when requests came, monotonic clock.
        asked: text and questions of each request that was answered.
        keys: authorization of each request.
        most: requests that were under way at a time.
    """

    def __init__(self) -> None:
        self.models = ["tiny"]
        self.lists: Literal["data", "models"] | None = "data"
        self.most_questions, self.too_many = 400, (413, "too many questions")
        self.sure: dict[tuple[str, str], Any] = {}
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.change: Any = None
        self.times: list[float] = []
        self.asked: list[tuple[str, list[str]]] = []
        self.keys: list[str | None] = []
        self.most, self._now, self._lock = 0, 0, threading.Lock()
        self.app = FastAPI()
        self.app.get("/v1/models")(self._models)
        self.app.post("/v1/systemone")(self._systemone)
        self.app.post("/v1/decisions")(self._decisions)

    def probability(self, text: str, instructions: str) -> Any:
        """What it answers: given, or else made of all that is asked, in steps of 1/256."""
        given = self.sure.get((text, instructions.rpartition("\n")[2]))
        return hashlib.sha256(f"{text}\n{instructions}".encode()).digest()[0] / 256 if given is None else given

    def _models(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization"))
        if self.lists is None:
            return refusal(404, "Not Found")
        key = "id" if self.lists == "data" else "name"
        return JSONResponse({self.lists: [{key: name} for name in self.models]})

    def _systemone(self, request: Request, body: SystemoneBody) -> Response:
        asked = {name: one.instructions for name, one in body.questions.items()}
        answers = {name: {"type": "noul", "noul": self.probability(body.state, one)} for name, one in asked.items()}
        return self._answer(request, body.model, body.state, list(asked.values()), answers)

    def _decisions(self, request: Request, body: DecisionsBody) -> Response:
        answers = [
            {"type": "predicate", "name": one.name, "probability": self.probability(body.input, one.instructions)}
            for one in body.questions
        ]
        return self._answer(request, body.model, body.input, [one.instructions for one in body.questions], answers)

    def _answer(self, request: Request, model: str, text: str, asked: list[str], answers: Any) -> Response:
        self.times.append(time.monotonic())
        self.keys.append(request.headers.get("authorization"))
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            fault = self.faults.pop(0) if self.faults else self.always
            refused = fault(request) if fault else None
            if refused is None and model not in self.models:
                refused = JSONResponse(
                    {"detail": {"error_type": "api_usage_error", "message": f"no model {model}"}}, 400
                )
            if refused is None and len(asked) > self.most_questions:
                status, message = self.too_many
                refused = JSONResponse({"detail": [{"loc": ["body"], "msg": message, "type": "too_long"}]}, status)
            if refused is not None:
                return refused
            self.asked.append((text, asked))
            usage = {"input_tokens": 1, "output_tokens": 0}
            told = {"model": model, "answers": answers, "usage": usage}
            return JSONResponse(self.change(told) if self.change else told)
        finally:
            with self._lock:
                self._now -= 1
