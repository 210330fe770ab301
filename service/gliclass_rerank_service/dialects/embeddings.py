"""`/v1/embeddings` (OpenAI) and `/embed` (TEI): vectors of texts, float32 of length 1, from a model that gives them.

A field that asks for other vectors is honoured or refused, never ignored.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, RootModel, WithJsonSchema
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError, to_json
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import InputError
from gliclass_rerank.errors import NoVectorsError
from gliclass_rerank.scoring import Plan, vectors_plan
from gliclass_rerank.types import FloatArray, LongText
from gliclass_rerank.unreadable import numbered
from gliclass_rerank.validation import check_texts
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import (
    REFUSALS,
    Body,
    Flag,
    Ignored,
    Items,
    Reply,
    Usage,
    documented,
    scoring_router,
    usage_of,
)
from gliclass_rerank_service.errors import EmptyError
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

router = scoring_router("embed")
NO_VECTORS: dict[int | str, dict[str, Any]] = {
    422: documented(422)[422] | {"description": f"{REFUSALS[422]} Or the model gives no vectors of texts."}
}
Encode = Callable[[FloatArray], bytes]
OPENAI_EXAMPLE: JsonDict = {"model": "mini", "input": ["Bakers rise early.", "It rains."]}
TEI_EXAMPLE: JsonDict = {"inputs": ["Bakers rise early.", "It rains."]}


def _no_token_ids(value: object) -> object:
    """Refuse token ids in one sentence. OpenAI accepts them, and LangChain's `OpenAIEmbeddings` sends them."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, list) or type(first) is int:
        raise PydanticCustomError(
            "token_ids",
            "expected a text or a list of texts, got token ids, which are those of another model; send the text "
            "(LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)",
        )
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Texts = Annotated[str | Items[str], BeforeValidator(_no_token_ids)]
Direction = Annotated[
    Literal["left", "right"],
    BeforeValidator(_lower),
    WithJsonSchema({"type": "string", "enum": ["left", "right", "Left", "Right"]}),
]
Dimensions = Annotated[
    int | None, Field(ge=1, description="Only the model's own number of dimensions. Vectors cannot be shortened.")
]
LongTextOption = Annotated[
    LongText | None,
    Field(
        description="Ours. Treatment of a text that is too long for one pass. window, the default: it is read in "
        "windows, and its vector is their mean. truncate: only its beginning is read. error: the request is refused."
    ),
]


class EmbeddingsBody(Body):
    """OpenAI's body."""

    model_config = ConfigDict(json_schema_extra={"examples": [OPENAI_EXAMPLE]})

    input: Texts
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="float, the default: numbers. base64: the bytes of little-endian float32."
    )
    dimensions: Dimensions = None
    user: Annotated[Any, Ignored("it names a caller")] = None
    long_text: LongTextOption = None


class Embedding(Reply):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsReply(Reply):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class EmbedBody(Body):
    """TEI's body."""

    model_config = ConfigDict(json_schema_extra={"examples": [TEI_EXAMPLE]})

    inputs: Texts
    normalize: Flag | None = Field(default=None, description="Only true. All vectors have length 1.")
    truncate: Flag | None = Field(
        default=None, description="Read only the beginning of a long text. Default: all of it is read, in windows."
    )
    truncation_direction: Direction | None = Field(default=None, description="With `truncate`, only right.")
    prompt_name: str | None = Field(default=None, description="Only null. The model has no named prompts.")
    dimensions: Dimensions = None
    long_text: LongTextOption = Field(default=None, description="Ours, see /v1/embeddings. Precedes `truncate`.")

    def treatment(self) -> LongText:
        """Treatment of long texts.

        Raises:
            InputError: a field asks for vectors that the service does not give.
        """
        if self.normalize is False:
            raise InputError("normalize: expected true, got false; all vectors of this service have length 1")
        if self.prompt_name is not None:
            raise InputError("prompt_name: expected none, got one; put the prompt itself before the text")
        treatment = self.long_text or ("truncate" if self.truncate else "window")
        if treatment == "truncate" and self.truncation_direction == "left":
            raise InputError(
                "truncation_direction: expected right, got left; only the beginning of a text can be read alone"
            )
        return treatment


class EmbedReply(RootModel[list[list[float]]]):
    """Vectors in the order of the texts."""


def as_numbers(vector: FloatArray) -> bytes:
    """A vector as JSON numbers, which represent it exactly."""
    return to_json(vector.tolist())


def as_base64(vector: FloatArray) -> bytes:
    """A vector as OpenAI's client decodes it, a JSON string."""
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())


def plan_of(
    texts: str | Sequence[str], encode: Encode, *, long_text: LongText, dimensions: int | None
) -> Plan[list[bytes]]:
    """Embed texts, and write each vector as JSON.

    A large plan runs on a thread. Writing all vectors by one call afterwards would hold up the event loop.

    Raises:
        InputError: a text that cannot be encoded, or another number of ``dimensions`` than the model's.
        UnreadableTextError: a text of which the vocabulary covers (almost) nothing.
    """
    checked = check_texts(texts, "input", or_one=True)
    named = [("input", texts)] if isinstance(texts, str) else numbered("input", checked)
    vectors = yield from vectors_plan(checked, lambda: named, long_text=long_text)
    if dimensions not in (None, len(vectors[0])):
        raise InputError(
            f"dimensions: expected {len(vectors[0])}, got {dimensions}; the vectors of this model cannot be shortened"
        )
    return [encode(vector) for vector in vectors]


async def _embed(
    request: Request,
    texts: str | Sequence[str],
    encode: Encode,
    *,
    long_text: LongText,
    dimensions: int | None,
    model: str | None,
) -> list[bytes]:
    info = service_of(request).scorer.info
    if not info.embeds:
        raise NoVectorsError(info.name)
    given = [texts] if isinstance(texts, str) else texts
    if not given:
        raise EmptyError("input: expected at least one text, got none")
    plan = plan_of(texts, encode, long_text=long_text, dimensions=dimensions)
    return await run_task(request, plan, texts=len(given), tokens=estimate_tokens_for(given), model=model)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


@router.post("/v1/embeddings", responses=NO_VECTORS | {200: {"model": EmbeddingsReply}}, summary="Embed texts")
async def embeddings(body: EmbeddingsBody, request: Request) -> Response:
    """Return the vectors of texts in OpenAI's format."""
    vectors = await _embed(
        request,
        body.input,
        as_base64 if body.encoding_format == "base64" else as_numbers,
        long_text=body.long_text or "window",
        dimensions=body.dimensions,
        model=body.model,
    )
    data = [b'{"object":"embedding","index":%d,"embedding":%b}' % item for item in enumerate(vectors)]
    model, usage = service_of(request).scorer.info.name, usage_of(stats_of(request.scope))
    told = b",".join(data), to_json(model), to_json(usage)
    return _json(b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % told)


@router.post("/embed", responses=NO_VECTORS | {200: {"model": EmbedReply}}, summary="Embed texts")
async def embed(body: EmbedBody, request: Request) -> Response:
    """Return the vectors of texts in TEI's format, a bare list."""
    vectors = await _embed(
        request,
        body.inputs,
        as_numbers,
        long_text=body.treatment(),
        dimensions=body.dimensions,
        model=body.model,
    )
    return _json(b"[%b]" % b",".join(vectors))
