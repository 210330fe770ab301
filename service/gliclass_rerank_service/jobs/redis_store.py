"""JobStore: what Redis knows of jobs. It tells what is unknown from what waits, which a broker cannot.

gliclass-rerank:job:ID      hash: kind, payload until it has ended, sent, starts; then state, result or error
gliclass-rerank:result:KEY  JSON; KEY is `job_work.cache_key`, so equal jobs on the same model share a result
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import redis
from pydantic import JsonValue
from redis.backoff import EqualJitterBackoff
from redis.retry import Retry

from gliclass_rerank import OptionError, ServiceError
from gliclass_rerank_service.jobs.run import JobKind, JobStatus
from gliclass_rerank_service.queue import OverloadedError

PREFIX = "gliclass-rerank"
WAITING_SECONDS = 86_400.0  # after which a job that nobody has run is forgotten
# A Redis that restarts is back after 20, and has read its file; somebody waits for what the service asks.
WORKERS_RETRIES, SERVICES_RETRIES, LONGEST_PAUSE = 20, 8, 1.0
CONNECTING_SECONDS, ANSWERING_SECONDS = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A job that a worker begins. ``starts``: how often it was begun, this time included."""

    kind: JobKind
    payload: dict[str, JsonValue]
    starts: int


class JobStore:
    """Records and results of jobs in Redis. Safe to call from many threads; made anew after a fork.

    Args:
        url: of a Redis, "redis://host:6379/0".
        ttl_seconds: how long a result is kept after it was made, or was last found in the cache.
        retries: how often a call is tried again, with pauses that grow to a second.

    Raises:
        OptionError: the URL is none of a Redis. Nothing is connected yet.

    All methods raise `ServiceError` if Redis does not answer. Where nothing listens, that takes as long as the pauses,
    about fifteen seconds for 20 retries and four for 8; where something listens and is silent, each attempt takes five
    seconds more, and two where nothing comes back at all.
    """

    def __init__(self, url: str, *, ttl_seconds: float, retries: int = WORKERS_RETRIES) -> None:
        self._ttl = max(1, round(ttl_seconds * 1000))
        errors: list[type[Exception]] = [redis.ConnectionError, redis.TimeoutError]
        try:
            self._redis: redis.Redis = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=ANSWERING_SECONDS,
                socket_connect_timeout=CONNECTING_SECONDS,
                retry=Retry(EqualJitterBackoff(cap=LONGEST_PAUSE, base=0.05), retries),
                retry_on_error=errors,
            )
        except ValueError:  # its message may show a password
            raise OptionError("result_url: expected the URL of a Redis, such as redis://localhost:6379/0") from None

    def create(self, job_id: str, kind: JobKind, payload: Mapping[str, JsonValue]) -> None:
        """Record a job before it is sent: from now on it is known."""
        with _told(), self._redis.pipeline() as pipe:
            pipe.hset(
                _job(job_id),
                mapping={"kind": kind, "payload": json.dumps(payload), "sent": repr(time.time()), "starts": "0"},
            )
            pipe.pexpire(_job(job_id), self._waiting)
            pipe.execute()

    def create_done(self, job_id: str, kind: JobKind, key: str) -> bool:
        """Record a job as done if the cache has its result, which is then kept anew; False if it has not."""
        with _told():
            if not self._redis.pexpire(_result(key), self._ttl):
                return False
            with self._redis.pipeline() as pipe:
                pipe.hset(_job(job_id), mapping={"kind": kind, "state": "done", "result": key})
                pipe.pexpire(_job(job_id), self._ttl)
                pipe.execute()
        return True

    def discard(self, job_id: str) -> None:
        """Forget a job that could not be sent."""
        with _told():
            self._redis.delete(_job(job_id))

    def start(self, job_id: str) -> StartedJob | None:
        """Count that a worker begins a job; None if there is nothing to do: it has ended, or is forgotten."""
        with _told():
            kind, payload, state = self._fields(job_id, "kind", "payload", "state")
            if kind is None or payload is None or state is not None:
                return None
            with self._redis.pipeline() as pipe:
                pipe.hincrby(_job(job_id), "starts", 1)
                pipe.pexpire(_job(job_id), self._waiting)
                starts = pipe.execute()[0]
        return StartedJob(cast(JobKind, kind), json.loads(payload), int(starts))

    def finish(self, job_id: str, status: JobStatus, key: str) -> None:
        """Record how a job ended, and its result under ``key``. The first end of a job counts."""
        with _told(), self._redis.pipeline() as pipe:
            if status.state == "done":
                pipe.set(_result(key), json.dumps(status.result), px=self._ttl)
            pipe.hsetnx(_job(job_id), "state", status.state)
            pipe.hsetnx(_job(job_id), "result", key)
            pipe.hsetnx(_job(job_id), "error", status.error or "")
            pipe.hdel(_job(job_id), "payload")
            pipe.pexpire(_job(job_id), self._ttl)
            pipe.execute()

    def status(self, job_id: str) -> tuple[JobStatus, float] | None:
        """How far a job is, and for one that is processed when it was last sent; None if it is unknown or expired."""
        with _told():
            kind, state, error, key, sent = self._fields(job_id, "kind", "state", "error", "result", "sent")
            if state == "done":
                result = self._redis.get(_result(key or ""))
                return None if result is None else (JobStatus("done", json.loads(cast(str, result))), 0.0)
        if state == "failed":
            return JobStatus("failed", error=error), 0.0
        return None if kind is None else (JobStatus("processing"), float(sent or 0))

    def mark_sent(self, job_id: str) -> None:
        """Note that a job was sent once more."""
        with _told(), self._redis.pipeline() as pipe:
            pipe.hset(_job(job_id), "sent", repr(time.time()))
            pipe.pexpire(_job(job_id), self._waiting)
            pipe.execute()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    @property
    def _waiting(self) -> int:
        """How long a job is kept that has not ended, in milliseconds."""
        return self._ttl + round(WAITING_SECONDS * 1000)

    def _fields(self, job_id: str, *names: str) -> list[str | None]:
        return cast("list[str | None]", self._redis.hmget(_job(job_id), list(names)))


@contextmanager
def _told() -> Iterator[None]:
    """Errors of redis as ours; theirs may show where it is, but no password."""
    try:
        yield
    except redis.OutOfMemoryError as error:
        raise OverloadedError("the Redis of the jobs is full; come again when results have expired") from error
    except redis.RedisError as error:
        raise ServiceError(
            f"the Redis of jobs does not answer ({type(error).__name__}: {error}); check that it runs, then try again"
        ) from error


def _job(job_id: str) -> str:
    return f"{PREFIX}:job:{job_id}"


def _result(key: str) -> str:
    return f"{PREFIX}:result:{key}"
