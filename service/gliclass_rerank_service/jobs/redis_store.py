"""JobStore: records of jobs in Redis. Unlike a broker, it distinguishes unknown jobs from waiting ones.

gliclass-rerank:job:ID      hash: kind, sent, starts, payload until the job has ended, then state, result or error
gliclass-rerank:result:KEY  JSON. KEY is `jobs.run.cache_key`, so equal jobs on the same model share a result
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
from gliclass_rerank_service.queue.errors import OverloadedError

PREFIX = "gliclass-rerank"
WAITING_SECONDS = 86_400.0  # after which an unfinished job expires
# 20 retries outlast a restart of Redis with the loading of its file. The service has fewer, since a client waits.
WORKERS_RETRIES, SERVICES_RETRIES, LONGEST_PAUSE = 20, 8, 1.0
CONNECTING_SECONDS, ANSWERING_SECONDS = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A job that a worker begins. ``starts``: how often it was begun, this time included."""

    kind: JobKind
    payload: dict[str, JsonValue]
    starts: int


class JobStore:
    """Records and results of jobs in Redis. Thread-safe. Create a new one after a fork.

    Args:
        url: of a Redis, "redis://host:6379/0".
        ttl_seconds: lifetime of a result after it was computed, or was last found in the cache.
        retries: number of retries of a call, with pauses that grow to a second.

    Raises:
        OptionError: the URL is not that of a Redis. Nothing is connected yet.

    All methods raise `ServiceError` if Redis does not answer. If the connection is refused, this takes as long as the
    pauses: about fifteen seconds for 20 retries and four for 8. Each attempt takes five seconds more if a server
    accepts the connection and does not answer, and two seconds more if the connection attempt gets no answer.
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
        except ValueError:  # the message may contain a password
            raise OptionError("result_url: expected the URL of a Redis, such as redis://localhost:6379/0") from None

    def create(self, job_id: str, kind: JobKind, payload: Mapping[str, JsonValue]) -> None:
        """Record a job before it is sent. From now on it is known."""
        with _told(), self._redis.pipeline() as pipe:
            pipe.hset(
                _job(job_id),
                mapping={"kind": kind, "payload": json.dumps(payload), "sent": repr(time.time()), "starts": "0"},
            )
            pipe.pexpire(_job(job_id), self._waiting)
            pipe.execute()

    def create_done(self, job_id: str, kind: JobKind, key: str) -> bool:
        """Record a job as done if its result is cached, and extend the result's lifetime. False if it is not cached."""
        with _told():
            if not self._redis.pexpire(_result(key), self._ttl):
                return False
            with self._redis.pipeline() as pipe:
                pipe.hset(_job(job_id), mapping={"kind": kind, "state": "done", "result": key})
                pipe.pexpire(_job(job_id), self._ttl)
                pipe.execute()
        return True

    def discard(self, job_id: str) -> None:
        """Delete a job that could not be sent."""
        with _told():
            self._redis.delete(_job(job_id))

    def start(self, job_id: str) -> StartedJob | None:
        """Count a start of a job. None if it has ended or expired."""
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
        """Record the end of a job, and its result under ``key``. Only the first end of a job counts."""
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
        """Status of a job, and for one in progress the time when it was last sent. None if it is unknown or expired."""
        with _told():
            kind, state, error, key, sent = self._fields(job_id, "kind", "state", "error", "result", "sent")
            if state == "done":
                result = self._redis.get(_result(key or ""))
                return None if result is None else (JobStatus("done", json.loads(cast(str, result))), 0.0)
        if state == "failed":
            return JobStatus("failed", error=error), 0.0
        return None if kind is None else (JobStatus("processing"), float(sent or 0))

    def mark_sent(self, job_id: str) -> None:
        """Record that a job was sent again."""
        with _told(), self._redis.pipeline() as pipe:
            pipe.hset(_job(job_id), "sent", repr(time.time()))
            pipe.pexpire(_job(job_id), self._waiting)
            pipe.execute()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    @property
    def _waiting(self) -> int:
        """Lifetime of an unfinished job, in milliseconds."""
        return self._ttl + round(WAITING_SECONDS * 1000)

    def _fields(self, job_id: str, *names: str) -> list[str | None]:
        return cast("list[str | None]", self._redis.hmget(_job(job_id), list(names)))


@contextmanager
def _told() -> Iterator[None]:
    """Convert errors of redis to errors of this package. The message may contain the address, but no password."""
    try:
        yield
    except redis.OutOfMemoryError as error:
        raise OverloadedError("the Redis of the jobs is full; try again when results have expired") from error
    except redis.RedisError as error:
        raise ServiceError(
            f"the Redis of jobs does not answer ({type(error).__name__}: {error}); check that it runs, then try again"
        ) from error


def _job(job_id: str) -> str:
    return f"{PREFIX}:job:{job_id}"


def _result(key: str) -> str:
    return f"{PREFIX}:result:{key}"
