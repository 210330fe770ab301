"""`/v1/systemone` and `/v1/decisions`. The second takes both formats and tells them apart by their fields."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Discriminator, Tag
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import Decider, GLiClassRerankError
from gliclass_rerank.scoring import MAX_LABELS_PER_PASS
from gliclass_rerank.tasks.decide.answers import Answer
from gliclass_rerank.tasks.decide.questions import Question
from gliclass_rerank.tasks.decide.state import Json, text_of
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import REFUSALS, StrictRoute, documented, respond
from gliclass_rerank_service.dialects.decisions.openai import DecisionsBody, DecisionsReply, openai_reply
from gliclass_rerank_service.dialects.decisions.systemone import SystemoneBody, SystemoneReply, systemone_reply
from gliclass_rerank_service.dialects.decisions.wire import (
    DECISIONS_PATH,
    SYSTEMONE_PATH,
    Format,
    OpenAIError,
    Problem,
    SystemoneError,
    error_reply,
)
from gliclass_rerank_service.errors import TYPES, response_of
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

SHOWN_PROBLEMS = 5
TAGS = ("systemone", "openai")


def _format_of(body: object) -> Format:
    """The format of a body of `/v1/decisions`: a state is TypeSafe's, an input OpenAI's."""
    return "systemone" if isinstance(body, Mapping) and "state" in body and "input" not in body else "openai"


class DecisionRoute(StrictRoute):
    """A route whose errors have the format of the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the base class, with errors as responses."""
        handler = super().get_route_handler()

        async def handled(request: Request) -> Response:
            wire: Format = "systemone" if request.url.path == SYSTEMONE_PATH else "openai"
            stats = stats_of(request.scope)
            try:
                return await handler(request)
            except RequestValidationError as error:
                if request.url.path == DECISIONS_PATH:
                    wire = _format_of(error.body)
                problems = _problems(error)
                stats.failure = "Validation"
                return error_reply(wire, 422, "; ".join(map(_told, problems)), problems)
            except HTTPException as error:
                stats.failure = TYPES.get(error.status_code, "Validation")
                return error_reply(wire, error.status_code, error.detail, headers=error.headers)

        return handled


def _problems(error: RequestValidationError) -> list[Problem]:
    """The first wrong fields, without what was sent."""
    return [
        {
            "loc": [part for i, part in enumerate(one["loc"]) if i != 1 or part not in TAGS],
            "msg": f"{one['msg']}: {one['ctx']['error']}" if one["type"] == "json_invalid" else one["msg"],
            "type": one["type"],
        }
        for one in error.errors()[:SHOWN_PROBLEMS]
    ]


def _told(problem: Problem) -> str:
    return f"{'.'.join(map(str, problem['loc'][1:])) or 'body'}: {problem['msg']}"


def _documented(reply: Any, error: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The response and the errors of an operation, for OpenAPI."""
    answers: dict[int | str, dict[str, Any]] = {200: {"model": reply}}
    return answers | {status: told | {"model": error} for status, told in documented().items()}


router = APIRouter(route_class=DecisionRoute, tags=["decisions"])
EitherBody = Annotated[
    Annotated[SystemoneBody, Tag("systemone")] | Annotated[DecisionsBody, Tag("openai")],
    Discriminator(lambda body: _format_of(body) if isinstance(body, Mapping) else "openai"),
    Body(),
]


@router.post(
    SYSTEMONE_PATH,
    responses=_documented(SystemoneReply, SystemoneError),
    summary="Answer questions about a state",
)
async def systemone(body: SystemoneBody, request: Request) -> Response:
    """Answer questions in TypeSafe's format: yes or no (`noul`), one of several options, or a level."""
    return await _answered(body, request)


@router.post(
    DECISIONS_PATH,
    responses=_documented(DecisionsReply | SystemoneReply, OpenAIError)
    | {422: {"model": SystemoneError, "description": f"TypeSafe's format. {REFUSALS[422]}"}},
    summary="Answer questions about an input",
)
async def decisions(body: EitherBody, request: Request) -> Response:
    """Answer questions in OpenAI's format. A body with `state` has TypeSafe's, as in `/v1/systemone`."""
    return await _answered(body, request)


async def _answered(body: SystemoneBody | DecisionsBody, request: Request) -> Response:
    """Answer, in the format of the body."""
    service, stats = service_of(request), stats_of(request.scope)
    is_openai = isinstance(body, DecisionsBody)
    try:
        state = body.state() if isinstance(body, DecisionsBody) else body.state
        answers = await _decide(request, state, body.asked(), body.model)
    except GLiClassRerankError as error:
        response, stats.failure = response_of(error, stats.id)
        told = {name: value for name, value in response.headers.items() if name == "retry-after"}
        return error_reply("openai" if is_openai else "systemone", response.status_code, str(error), headers=told)
    model = service.scorer.info.name
    if isinstance(body, DecisionsBody):
        return respond(openai_reply(model, body, list(answers.values()), stats))
    return respond(systemone_reply(model, answers, stats))


async def _decide(request: Request, state: Json, asked: dict[str, Question], model: str) -> dict[str, Answer]:
    scorer, text = service_of(request).scorer, text_of(state, "state")
    labels = [question.labels for question in asked.values()]
    plan = Decider(scorer).plan(text, asked)
    # A text is read once, or by models without independent labels once per question, or per option of a long one.
    passes = (
        1
        if scorer.info.independent_labels
        else sum(1 if len(own) <= MAX_LABELS_PER_PASS else len(own) for own in labels)
    )
    tokens = estimate_tokens_for([text], [label for own in labels for label in own], passes=passes)
    return await run_task(request, plan, texts=1, tokens=tokens, model=model)
