"""Shared parts of all dialects: strict JSON, tolerant fields, documented errors, replies."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, from_json
from pydantic_core.core_schema import no_info_before_validator_function
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank_service.admission import MOST_PARTS, check_structure
from gliclass_rerank_service.observability.request_stats import RequestStats, stats_of

T = TypeVar("T")
Items = Annotated[list[T], Field(fail_fast=True)]
"""A list whose validation stops at the first wrong element: a long list could give a million errors with its texts."""


def first_wrong_only(kind: Any) -> BeforeValidator:
    """Validator of the values of a mapping that stops at the first wrong one, as `Items` does for a list."""
    adapter = TypeAdapter[Any](kind)

    def check(value: object) -> object:
        for one in value.values() if isinstance(value, dict) else ():
            adapter.validate_python(one)
        return value

    return BeforeValidator(check)


class StrictRequest(Request):
    """A request whose JSON must follow the standard: no NaN, no lone surrogates, limited depth."""

    async def json(self) -> Any:
        body = await self.body()
        if len(body) > MOST_PARTS:  # a smaller body cannot have more parts
            check_structure(body)
        try:
            return from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class StrictRoute(APIRoute):
    """A route that reads its body with `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the base class, called with a `StrictRequest`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


class ErrorBody(BaseModel):
    """Error response, with the field names that the clients of all dialects read."""

    id: str = Field(description="ID of the request, as in the header x-request-id.")
    message: str
    detail: str
    error: str
    error_type: str = Field(
        description="Validation, Tokenizer, LabelTooLong, NoVectors, NoPrompts, Empty, Overloaded, Backend, ..."
    )


REFUSALS: Mapping[int, str] = {
    400: "The body is not JSON, or there is nothing to score.",
    401: "The API key is missing or unknown.",
    404: "The request names another model, and `strict_model` is set.",
    408: "The body was sent too slowly.",
    413: "The request has too many bytes, elements, texts or tokens. Divide it.",
    422: "A field is missing or has an impossible value, or a text cannot be read.",
    424: "The model failed.",
    429: "The service is too busy. Retry after the seconds in `Retry-After`.",
    503: "The service is starting or shutting down, or its model is unavailable.",
    504: "The request was not finished in time.",
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation, for OpenAPI. All of them without arguments."""
    told = statuses or tuple(REFUSALS)
    return {
        status: {"model": ErrorBody, "description": REFUSALS[status]}
        | ({"headers": RETRY_AFTER} if status in (429, 503) else {})
        for status in told
    }


def scoring_router(tag: str) -> APIRouter:
    """A router for scoring operations."""
    return APIRouter(route_class=StrictRoute, tags=[tag], responses=documented())


class Body(BaseModel):
    """A request's body. Unknown fields are ignored, since clients send fields of other services."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), allow_inf_nan=False)

    model: str | None = Field(default=None, description="Any name. The answer names the model that was used.")


class Reply(BaseModel):
    """A response's body."""

    model_config = ConfigDict(protected_namespaces=())


class Usage(Reply):
    """Estimated tokens, labels included."""

    total_tokens: int
    prompt_tokens: int


def usage_of(stats: RequestStats) -> Usage:
    """Tokens used by a request so far."""
    return Usage(total_tokens=stats.tokens, prompt_tokens=stats.tokens)


def respond(reply: BaseModel, *, exclude_none: bool = False, status: int = 200) -> Response:
    """A reply as JSON."""
    return Response(reply.model_dump_json(exclude_none=exclude_none), status, media_type="application/json")


def request_id(request: Request) -> str:
    """ID of the request."""
    return stats_of(request.scope).id


def _flag(value: object) -> object:
    """Accept booleans sent as strings, as RAGFlow and others do."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


Flag = Annotated[
    bool,
    Strict(),
    BeforeValidator(_flag),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["true", "false"]}]}),
]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
LongTextOption = Annotated[
    Literal["window", "truncate", "error"] | None,
    Field(
        description="Ours. Treatment of a text that is too long for one pass. window, the default: it is read in "
        "windows, of which the best counts. truncate: only its beginning is read. error: the request is refused."
    ),
]
UnreadableOption = Annotated[
    Literal["flag", "error"] | None,
    Field(
        description="Ours. Treatment of a text of which the model knows no words. flag, the default: `readable` is "
        "false in the answer. error: the request is refused."
    ),
]


@dataclass(frozen=True, slots=True)
class Ignored:
    """Marks a field that has no effect, and says why. docs/service.md lists these fields."""

    why: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"description": f"Ignored: {self.why}."}


@dataclass(frozen=True, slots=True)
class Refused:
    """Marks a field that is refused, unless it is null, empty or ``allowed``, and says why. Listed as `Ignored`."""

    why: str
    allowed: tuple[bool, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": [None, *self.allowed], "description": f"Refused: {self.why}."}

    def _check(self, value: object) -> None:
        given = _flag(value)
        if given not in (None, "", [], {}) and not (isinstance(given, bool) and given in self.allowed):
            expected = " or ".join(("none", *(str(one).lower() for one in self.allowed)))
            raise PydanticCustomError("refused", f"expected {expected}, got another value: {self.why}")


Whole = Annotated[Any, Ignored("nothing is cut: long texts are read to their end, in windows")]
Turns = Annotated[Any, Ignored("callers take turns, and none goes first")]


ACTIVATION = ("use_activation", "activation", "softmax")  # names of one option, the newest first


class VllmBody(Body):
    """Fields that vLLM's requests have in common."""

    use_activation: Flag | None = Field(default=None, description="vLLM's. False: raw logits.")
    activation: Flag | None = Field(default=None, description="Older name of use_activation.")
    softmax: Flag | None = Field(default=None, description="Older name of use_activation.")
    truncate_prompt_tokens: Whole = None
    truncation_side: Whole = None
    priority: Turns = None
    user: Annotated[Any, Ignored("it names a caller")] = None
    request_id: Annotated[Any, Ignored("the header x-request-id gives the answer its id")] = None
    cache_salt: Annotated[Any, Ignored("a cache changes no answer")] = None
    mm_processor_kwargs: Annotated[Any, Ignored("it is about images, which are refused")] = None
    chat_template: Annotated[None, Refused("the model has no chat template")] = None
    chat_template_kwargs: Annotated[
        None, Refused("the model has no chat template; `instruction` or `prompt` says what to judge")
    ] = None

    @property
    def unscaled(self) -> bool:
        """Whether raw logits are asked for."""
        return False in (self.use_activation, self.activation, self.softmax)
