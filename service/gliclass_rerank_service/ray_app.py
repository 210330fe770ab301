"""The service on Ray Serve: the same app as an ingress over replicas of the model. Needs the extra "ray".

    gliclass-rerank serve --ray --model mini --max-replicas 4
    serve run gliclass_rerank_service.ray_app:build model=mini ray_max_replicas=4

One ingress takes all requests and batches them, as the service does without Ray; `RayScorer` cuts a batch into parts,
and Ray spreads these over the replicas, so that all of them work on it. Ray adds and removes replicas by the number of
parts that wait for them. A replica that dies loses no request: its parts are scored again by another one, since scores
depend on nothing else. (They are those of the model in one process, but for the last bits of a float, which change with
what is computed together.)

Settings are those of the service. A replica scores ``threads`` batches at a time, one by default, and asks Ray for as
many CPUs, and for a GPU where ``device`` is one; ``queue_batch_tokens`` is meant for each replica. Jobs without a
broker run in the ingress. `serve run` has options of its own for host and port, and at its end requests that still
wait for a batch are lost; `serve --ray` waits for them.
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

from gliclass_rerank import GLiClassRerankError, ModelInfo, ScoreRequest, ServiceError, load_scorer
from gliclass_rerank.scorers.batch_plan import chunked
from gliclass_rerank.scorers.load import URL
from gliclass_rerank.types import FloatArray
from gliclass_rerank_service.app import create_app
from gliclass_rerank_service.observability.logs import configure_logging
from gliclass_rerank_service.queue import estimate_tokens
from gliclass_rerank_service.settings import Settings, read_settings

REPLICAS, INGRESS = "scorer", "ingress"  # names of the deployments, and of their applications under `serve --ray`
PARTS = 8  # that a full batch has for each replica: enough to keep all busy to its end, and to see who has too much
LOADING_SECONDS = 600.0  # for the first replica to be there
ATTEMPTS = 5
PAUSE = 0.2  # seconds before a part is sent again, and longer each time
OPEN_REQUESTS = 64  # room beside those that are scored, for who looks at health and metrics
LOST = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError)
"""What Ray raises where a replica died; the call may be made again."""

Outcome = list[FloatArray] | GLiClassRerankError


class ScorerReplica:
    """One model in a process of its own, loaded once."""

    def __init__(self, settings: Settings) -> None:
        self._scorer = load_scorer(
            settings.model,
            backend=settings.backend,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads or (None if URL.match(settings.model) else 1),  # a replica has one core
        )

    async def info(self) -> ModelInfo:
        """What the model says of itself."""
        return self._scorer.info

    async def score(self, requests: Sequence[ScoreRequest], revision: str) -> Outcome:
        """Score on a thread. An error of ours is returned, since Ray would wrap it when it is raised.

        A replica that was started after the model had been replaced answers with an error: what it scores must not be
        mixed with what others do.
        """
        if revision != self._scorer.info.revision:
            return ServiceError(
                f"expected revision {revision} of the model, got {self._scorer.info.revision} in a replica that was "
                "started later; start the service anew"
            )
        try:
            return list(await asyncio.to_thread(self._scorer.score, requests))
        except GLiClassRerankError as error:
            return error


class RayScorer:
    """A `Scorer` over replicas: a batch is divided into parts that are scored at the same time.

    Not to be called on an event loop's thread.

    Args:
        replicas: handle of the deployment of `ScorerReplica`.
        part_tokens: estimated tokens of a part; a request above it is a part by itself.
        timeout: seconds for one call of `score`.

    Raises:
        ServiceError: no replica comes up.
    """

    def __init__(self, replicas: DeploymentHandle[ScorerReplica], *, part_tokens: int, timeout: float) -> None:
        self._replicas = replicas
        self._part_tokens = part_tokens
        self._timeout = timeout
        try:
            self._info: ModelInfo = replicas.info.remote().result(timeout_s=LOADING_SECONDS)
        except TimeoutError:
            raise ServiceError(
                f"no replica of the model came up within {LOADING_SECONDS:g} s; see ray status"
            ) from None

    @property
    def info(self) -> ModelInfo:
        """What the first replica says of its model; those of another revision do not score."""
        return self._info

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Score like any scorer.

        Raises:
            ServiceError: replicas did not answer in time, or died again and again.
            GLiClassRerankError: whatever a replica's scorer raises.
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
        assert isinstance(response, DeploymentResponse)  # and no stream, since none was asked for
        return response

    def _answer(
        self, part: Sequence[ScoreRequest], response: DeploymentResponse[Outcome], ends_by: float
    ) -> list[FloatArray]:
        """Wait for the rows of a part; if its replica has died, send it again."""
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
        raise ServiceError(f"{ATTEMPTS} replicas of the model died over the same texts, or one after the other")


def build(arguments: Mapping[str, str]) -> Application:
    """Make the application for `serve run gliclass_rerank_service.ray_app:build NAME=VALUE ...`.

    Args:
        arguments: fields of `Settings`; the environment and its file fill in the others.

    Raises:
        OptionError: an unknown field or an impossible value.
    """
    settings = _portable(read_settings(flags=arguments))
    return _ingress(settings).bind(_replicas(settings))


def serve_on_ray(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT comes; then refuse what is new, answer what was accepted, and end.

    Joins the cluster that ``RAY_ADDRESS`` names, or starts one on this machine that ends with the service. Blocks;
    called on the main thread, or no signal reaches it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    settings = _portable(settings)
    ray.init()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
        serve.run(_replicas(settings), name=REPLICAS, route_prefix=None)
        serve.run(_ingress(settings, REPLICAS).bind(), name=INGRESS, blocking=True)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the end
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
        # One batch is out at a time, and with few replicas one of them may get all of it.
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
    """The app as a deployment; one replica, since it is where all requests are batched. It needs no CPU for itself."""
    deployment = serve.deployment(
        name=INGRESS,
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=settings.max_concurrent_requests + OPEN_REQUESTS,
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    return deployment(serve.ingress(_app_of(settings, replicas_application))())


def _app_of(settings: Settings, replicas_application: str | None) -> Callable[[], FastAPI]:
    """What makes the app where it runs."""
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
    """The same settings for a process in another folder: with whole paths, and of no class made on the spot."""
    fields = dict(settings)
    if Path(settings.model).is_dir():
        fields["model"] = str(Path(settings.model).absolute())
    if settings.api_key_file is not None:
        fields["api_key_file"] = settings.api_key_file.absolute()
    return Settings.model_construct(**fields)
