"""`/v1/models`: the served model, for clients of OpenAI and of TypeSafe."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank_service.dialects.common import Reply, documented, respond
from gliclass_rerank_service.service import service_of

router = APIRouter(tags=["operations"], responses=documented(401, 429, 503))
STARTED = datetime.now(timezone.utc)


class OpenAIModel(Reply):
    """A name of the model, as OpenAI lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "gliclass-rerank"


class TypeSafeModel(Reply):
    """A name of the model, as TypeSafe lists it."""

    name: str
    description: str
    release_date: str


class ModelsReply(Reply):
    """OpenAI's list in `data`, and TypeSafe's in `models`. Dates are those of the start of this process."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]
    models: list[TypeSafeModel]


@router.get("/v1/models", responses={200: {"model": ModelsReply}}, summary="List the names of the model")
async def models(request: Request) -> Response:
    """Return the model's name, and the aliases of the setting `model_aliases`."""
    service = service_of(request)
    info = service.scorer.info
    described = f"GLiClass, {info.architecture}, {info.dtype} on {info.device}"
    aliases = [name for name in service.settings.model_aliases if name != info.name]
    told = {info.name: described} | dict.fromkeys(aliases, f"alias of {info.name}")
    day = STARTED.date().isoformat()
    reply = ModelsReply(
        data=[OpenAIModel(id=name, created=int(STARTED.timestamp())) for name in told],
        models=[TypeSafeModel(name=name, description=text, release_date=day) for name, text in told.items()],
    )
    return respond(reply)
