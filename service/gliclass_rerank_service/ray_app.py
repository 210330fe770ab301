"""The service on Ray Serve: the same app as an ingress over replicas of the model. Needs the extra "ray".

    gliclass-rerank serve --ray --model mini --max-replicas 4
    serve run gliclass_rerank_service.ray_app:build model=mini ray_max_replicas=4

One ingress receives all requests and batches them, as the service does without Ray. `RayScorer` divides a batch into
parts, and Ray distributes them over the replicas. Ray adds and removes replicas by the number of parts that wait for
them. No request is lost when a replica dies: its parts are scored again by another one, with the same result up to the
last bits of a float. (These bits vary with the composition of a batch.)

Settings are those of the service. A replica scores ``threads`` batches at a time, one by default. It requests as many
CPUs of Ray, and a GPU if ``device`` is one. ``queue_batch_tokens`` applies to each replica. Jobs without a broker run
in the ingress. `serve run` has its own options for host and port. At its end requests that still wait for a batch are
lost, while `serve --ray` answers them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, HTTPOptions
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from gliclass_rerank import GLiClassRerankError, ModelInfo, ScoreRequest, ServiceError
from gliclass_rerank.scorers.batch_plan import chunked
from gliclass_rerank.scorers.remote.connect import URL
from gliclass_rerank.types import FloatArray
from gliclass_rerank_service.app import create_app
from gliclass_rerank_service.observability.logs import configure_logging
from gliclass_rerank_service.queue.submission import estimate_tokens
from gliclass_rerank_service.settings import Settings, load_model, read_settings

REPLICAS, INGRESS = "scorer", "ingress"  # names of the deployments, and of their applications under `serve --ray`
PARTS = 8  # parts of a full batch for each replica, enough to balance their load
LOADING_SECONDS = 600.0  # limit for the start of the first replica
ATTEMPTS = 5
PAUSE = 0.2  # seconds before a part is sent again, and longer each time
OPEN_REQUESTS = 64  # room for requests of health and metrics
LOST = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError)
"""Errors that Ray raises when a replica died. The call may be repeated."""

Outcome = list[FloatArray] | GLiClassRerankError


class ScorerReplica:
    """One model in its own process, loaded once."""

    def __init__(self, settings: Settings) -> None:
        if not settings.threads and not URL.match(settings.model):
            settings = settings.model_copy(update={"threads": 1})  # a replica has one core
        self._scorer = load_model(settings)

    async def info(self) -> ModelInfo:
        """Information about the model."""
        return self._scorer.info

    async def score(self, requests: Sequence[ScoreRequest], revision: str) -> Outcome:
        """Score on a thread. Errors of this package are returned, since Ray would wrap a raised one.

        A replica started after a change of the model returns an error, so that scores of two revisions are never mixed.
        """
        if revision != self._scorer.info.revision:
            return ServiceError(
                f"expected revision {revision} of the model, got {self._scorer.info.revision} in a replica that was "
                "started later; restart the service"
            )
        try:
            return list(await asyncio.to_thread(self._scorer.score, requests))
        except GLiClassRerankError as error:
            return error


class RayScorer:
    """A `Scorer` over replicas. A batch is divided into parts that are scored at the same time.

    Must not be called on an event loop's thread.

    Args:
        replicas: handle of the deployment of `ScorerReplica`.
        part_tokens: estimated tokens of a part. A larger request is a part by itself.
        timeout: seconds for one call of `score`.

    Raises:
        ServiceError: no replica starts in time.
    """

    def __init__(self, replicas: DeploymentHandle[ScorerReplica], *, part_tokens: int, timeout: float) -> None:
        self._replicas = replicas
        self._part_tokens = part_tokens
        self._timeout = timeout
        try:
            self._info: ModelInfo = replicas.info.remote().result(timeout_s=LOADING_SECONDS)
        except TimeoutError:
            raise ServiceError(
                f"no replica of the model started within {LOADING_SECONDS:g} s; see ray status"
            ) from None

    @property
    def info(self) -> ModelInfo:
        """Model information of the first replica. Replicas of another revision do not score."""
        return self._info

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Score like any scorer.

        Raises:
            ServiceError: replicas did not answer in time, or died repeatedly.
            GLiClassRerankError: any error of a replica's scorer.
        """
        ends_by = time.monotonic() + self._timeout
        costs = map(estimate_tokens, requests)
        parts = list(chunked(requests, costs, max_items=len(requests) or 1, max_size=self._part_tokens))
        responses = [self._send(part) for part in parts]
        rows: list[FloatArray] = []
        for part, response in zip(parts, responses, strict=True):
            rows += self._answer(part, response, ends_by)
        return rows

    def _send(self, part: Sequence[ScoreRequest]) -> DeploymentResponse[Outcome]:
        response = self._replicas.score.remote(part, self._info.revision)
        assert isinstance(response, DeploymentResponse)  # a stream must be requested
        return response

    def _answer(
        self, part: Sequence[ScoreRequest], response: DeploymentResponse[Outcome], ends_by: float
    ) -> list[FloatArray]:
        """Wait for the rows of a part, and send it again if its replica has died."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                outcome = response.result(timeout_s=max(0.0, ends_by - time.monotonic()))
            except LOST:
                time.sleep(PAUSE * attempt)
                response = self._send(part)
            except TimeoutError:
                raise ServiceError(f"the model's replicas did not answer within {self._timeout:g} s") from None
            else:
                if isinstance(outcome, GLiClassRerankError):
                    raise outcome
                return outcome
        raise ServiceError(f"{ATTEMPTS} replicas of the model died in one call; see ray status")


def build(arguments: Mapping[str, str]) -> Application:
    """Create the application for `serve run gliclass_rerank_service.ray_app:build NAME=VALUE ...`.

    Args:
        arguments: fields of `Settings`. The others come from the environment and its file.

    Raises:
        OptionError: an unknown field or an impossible value.
    """
    settings = _portable(read_settings(flags=arguments))
    return _ingress(settings).bind(_replicas(settings))


def serve_on_ray(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then refuse new requests, answer the accepted ones, and end.

    Joins the cluster of ``RAY_ADDRESS``, or starts one on this machine that ends with the service. Blocks. Call it on
    the main thread, the only one that receives signals.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports to Ray's developers
    # Ray kills a proxy that is not ready within 5 s. On a busy machine it takes longer.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    settings = _portable(settings)
    ray.init()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
        serve.run(_replicas(settings), name=REPLICAS, route_prefix=None)
        serve.run(_ingress(settings, REPLICAS).bind(), name=INGRESS, blocking=True)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the shutdown
        serve.delete(INGRESS)  # its requests still need the replicas
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _replicas(settings: Settings) -> Application:
    deployment = serve.deployment(
        name=REPLICAS,
        ray_actor_options={
            "num_cpus": settings.threads or 1,
            "num_gpus": 1 if settings.device.startswith("cuda") else 0,
        },
        # One batch is computed at a time, and with few replicas one of them may get all of it.
        max_ongoing_requests=PARTS * settings.ray_max_replicas,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.ray_min_replicas,
            max_replicas=settings.ray_max_replicas,
            target_ongoing_requests=settings.ray_target_ongoing_requests,
        ),
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    application: Application = deployment(ScorerReplica).bind(settings)
    return application


def _ingress(settings: Settings, replicas_application: str | None = None) -> serve.Deployment:
    """The app as a deployment of one replica, since it batches all requests. It reserves no CPU."""
    deployment = serve.deployment(
        name=INGRESS,
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=settings.max_concurrent_requests + OPEN_REQUESTS,
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    return deployment(serve.ingress(_app_of(settings, replicas_application))())


def _app_of(settings: Settings, replicas_application: str | None) -> Callable[[], FastAPI]:
    """A function that creates the app in the ingress process."""
    batch_tokens = settings.queue_batch_tokens * settings.ray_max_replicas

    def make_app() -> FastAPI:
        configure_logging(settings.log_level)
        replicas = serve.get_deployment_handle(REPLICAS, replicas_application)
        with ThreadPoolExecutor(1) as thread:  # Ray refuses to wait for a replica on the loop's thread
            scorer = thread.submit(
                RayScorer,
                replicas,
                part_tokens=max(1, settings.queue_batch_tokens // PARTS),
                timeout=settings.timeout_seconds,
            ).result()
        return create_app(scorer, settings.model_copy(update={"queue_batch_tokens": batch_tokens}))

    return make_app


def _portable(settings: Settings) -> Settings:
    """The settings for a process in another folder: with absolute paths, as an instance of `Settings` itself."""
    fields = dict(settings)
    if Path(settings.model).is_dir():
        fields["model"] = str(Path(settings.model).absolute())
    if settings.api_key_file is not None:
        fields["api_key_file"] = settings.api_key_file.absolute()
    return Settings.model_construct(**fields)
