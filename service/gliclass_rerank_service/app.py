"""create_app: a scorer in, a FastAPI application out."""

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
from gliclass_rerank_service.dialects import check, classify, jobs, logits, operations, rerank, route, score
from gliclass_rerank_service.errors import error_response, response_of
from gliclass_rerank_service.observability.middleware import Guarded, Observed
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import Service, logger
from gliclass_rerank_service.settings import Settings, read_settings

SHOWN_PROBLEMS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a model that did not answer is asked again


def create_app(scorer: Scorer, settings: Settings | None = None) -> FastAPI:
    """Serve a scorer in every dialect.

    Args:
        scorer: what scores. What is no `BatchingScorer` becomes one; the app closes it when its lifespan ends, after
            the accepted requests are computed.
        settings: limits, keys and so on; by default what the environment says.

    Returns:
        An ASGI application. Its ``state.service`` is the `Service` that all requests share.

    Raises:
        OptionError: a setting that cannot be used.
        MissingExtraError: a setting needs what is not installed.
    """
    service = Service(scorer, settings or read_settings())
    app = FastAPI(
        title="gliclass-rerank",
        version=gliclass_rerank.__version__,
        description="Reranking, routing, fact-checking and classification with one small GLiClass model, over the "
        "wire formats of Cohere, Jina, Voyage, TEI, infinity and vLLM.",
        lifespan=_lifespan,
    )
    app.state.service = service
    for family in (rerank, score, classify, route, check, jobs, logits, operations):
        app.include_router(family.router)
    app.include_router(logits.info_router)
    app.add_exception_handler(GLiClassRerankError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_refused)
    app.add_middleware(Guarded, service=service)
    app.add_middleware(Observed, service=service)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    warming = asyncio.ensure_future(_warm(service))
    yield
    await asyncio.to_thread(service.close)
    warming.cancel()
    with suppress(asyncio.CancelledError):
        await warming


async def _warm(service: Service) -> None:
    """Let the model answer once, however often that takes; until then the service is alive, and not ready."""
    pause = FIRST_PAUSE
    while not service.draining:
        try:
            await asyncio.to_thread(service.warm)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers and onnxruntime panic with what is no Exception
            logger.error("the model does not answer; asked again in %g s", pause, exc_info=error)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GLiClassRerankError)
    stats = stats_of(request.scope)
    response, stats.failure = response_of(error, stats.id)
    return response


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail, stats_of(request.scope).id, headers=error.headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """400 for what is no JSON, 422 for JSON that is no valid body; what was sent is not repeated."""
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
