"""create_app: build the FastAPI application of a scorer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import gliclass_rerank
from gliclass_rerank import GLiClassRerankError, Scorer
from gliclass_rerank_service.compression import Decompressed
from gliclass_rerank_service.dialects import check, classify, embeddings, jobs, logits, rerank, route, score
from gliclass_rerank_service.dialects.decisions import models
from gliclass_rerank_service.dialects.decisions import routes as decisions
from gliclass_rerank_service.dialects.decisions.wire import DecisionWire
from gliclass_rerank_service.errors import error_response, response_of
from gliclass_rerank_service.observability import operations
from gliclass_rerank_service.observability.middleware import Guarded, Observed
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import Service, logger
from gliclass_rerank_service.settings import Settings, read_settings

SHOWN_PROBLEMS = 5


def create_app(scorer: Scorer, settings: Settings | None = None) -> FastAPI:
    """Serve a scorer in every dialect.

    Args:
        scorer: wrapped in a `BatchingScorer` unless it is one. The app closes it when its lifespan ends, after the
            accepted requests are computed.
        settings: limits, keys and so on. Default: `read_settings()`, from the environment and its file.

    Returns:
        An ASGI application. Its ``state.service`` is the `Service` shared by all requests.

    Raises:
        OptionError: a setting that cannot be used.
        MissingExtraError: a setting needs a package that is not installed.
    """
    service = Service(scorer, settings or read_settings())
    app = FastAPI(
        title="gliclass-rerank",
        version=gliclass_rerank.__version__,
        description="Reranking, routing, fact-checking, classification, decisions and embeddings with one small "
        "GLiClass model, over the wire formats of Cohere, Jina, Voyage, TEI, infinity, vLLM, TypeSafe and OpenAI.",
        lifespan=_lifespan,
    )
    app.state.service = service
    for family in (rerank, score, classify, route, check, decisions, models, embeddings, jobs, logits, operations):
        app.include_router(family.router)
    app.include_router(logits.info_router)
    app.add_exception_handler(GLiClassRerankError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_refused)
    app.add_middleware(Decompressed, max_bytes=service.settings.max_body_bytes)
    app.add_middleware(Guarded, service=service)
    app.add_middleware(Observed, service=service)
    app.add_middleware(DecisionWire)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    watching = asyncio.ensure_future(service.health.watch(on_failure=_tell_of_failure))
    yield
    await asyncio.to_thread(service.close)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


def _tell_of_failure(error: BaseException, pause: float) -> None:
    logger.error("the model does not answer; next attempt in %g s", pause, exc_info=error)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GLiClassRerankError)
    stats = stats_of(request.scope)
    response, stats.failure = response_of(error, stats.id)
    return response


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail, stats_of(request.scope).id, headers=error.headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """400 for invalid JSON, 422 for an invalid body. The response does not repeat the input."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    no_json = any(problem["type"] == "json_invalid" for problem in problems)
    if no_json:
        message = f"expected JSON: {problems[0].get('ctx', {}).get('error', 'it cannot be read')}"
    else:
        told = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in problems[:SHOWN_PROBLEMS]]
        message = "; ".join(told) + (
            "" if isinstance(error.body, dict | list) else "; is the header Content-Type application/json?"
        )
    return error_response(400 if no_json else 422, message, stats_of(request.scope).id)
