"""Chat completions with log-probabilities over a `TinyChat`, as OpenAI documents them; it can also be made to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from tiny_chat import CONTEXT, TinyChat

Fault = Callable[[Request], "Response | None"]


class Message(BaseModel):
    """One of a chat."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]  # as the templates of some models have it: no "system"
    content: str


class ChatBody(BaseModel):
    """What this server understands of a request; it refuses all else, as OpenAI's does."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    messages: list[Message]
    max_tokens: Literal[1] | None = None
    max_completion_tokens: Literal[1] | None = None
    temperature: float = 1.0
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0


class ChatServer:
    """``GET /v1/models`` and ``POST /v1/chat/completions``; each request first suffers the next fault, if one is left.

    Attributes:
        models: names that it goes by.
        lists: whether it tells them; some servers do not.
        faults: what happens to the next requests; None lets one through.
        always: what happens to all others.
        times: when questions came, monotonic clock.
        asked: the questions that were answered.
        keys: authorization of each request.
        most: questions that were under way at a time.
    """

    def __init__(self, chat: TinyChat) -> None:
        self.chat, self.tokens = chat, chat.tokens
        self.models, self.lists = ["tiny"], True
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.times: list[float] = []
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.most, self._now, self._lock = 0, 0, threading.Lock()
        self.app = FastAPI()
        self.app.get("/v1/models")(self._models)
        self.app.post("/v1/chat/completions")(self._complete)

    def _models(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization"))
        if not self.lists:
            return refusal(404, "Not Found")
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in self.models]
        return JSONResponse({"object": "list", "data": [one | {"max_model_len": CONTEXT} for one in data]})

    def _complete(self, request: Request, body: ChatBody) -> Response:
        self.times.append(time.monotonic())
        self.keys.append(request.headers.get("authorization"))
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            fault = self.faults.pop(0) if self.faults else self.always
            return (fault(request) if fault else None) or self._answer(body)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, body: ChatBody) -> Response:
        messages = [one.model_dump() for one in body.messages]
        length = len(self.chat.prompt_ids(messages))
        if body.model not in self.models:
            return refusal(404, f"The model `{body.model}` does not exist.", "model_not_found")
        if length >= CONTEXT:
            return refusal(
                400,
                f"This model's maximum context length is {CONTEXT} tokens, got {length}.",
                "context_length_exceeded",
            )
        exact = self.chat.first(messages)
        listed = [self._token(i, exact[i]) for i in exact.argsort()[::-1][: max(1, body.top_logprobs)]]
        self.asked.append(messages[-1]["content"])
        content = {"content": [listed[0] | {"top_logprobs": listed if body.top_logprobs else []}], "refusal": None}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": listed[0]["token"], "refusal": None},
            "logprobs": content if body.logprobs else None,
            "finish_reason": "length",
        }
        usage = {"prompt_tokens": length, "completion_tokens": 1, "total_tokens": length + 1}
        told = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": body.model}
        return JSONResponse(told | {"choices": [choice], "usage": usage})

    def _token(self, i: int, log_probability: float) -> dict[str, object]:
        token = self.tokens[i]
        return {"token": token, "logprob": float(log_probability), "bytes": list(token.encode())}


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Response:
    """An error as OpenAI's."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status, {name.replace("_", "-"): value for name, value in headers.items()})


def says(status: int, message: str = "no", **headers: str) -> Fault:
    """Answer with an error instead."""
    return lambda _: refusal(status, message, **headers)


def begins(*tokens: tuple[str, object]) -> Fault:
    """Answer with these first tokens and log-probabilities instead; without any, if there are none."""
    listed = [{"token": token, "logprob": value, "bytes": None} for token, value in tokens]
    told = {"content": [listed[0] | {"top_logprobs": listed}]} if listed else None
    return lambda _: JSONResponse({"choices": [{"index": 0, "message": {"content": "?"}, "logprobs": told}]})
