"""Jobs in this process: run one after the other, lost at its end."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from gliclass_rerank import Scorer, ScoreRequest
from gliclass_rerank.scorers.batch_plan import request_chunks
from gliclass_rerank.types import FloatArray
from gliclass_rerank_service.errors import TooLargeError
from gliclass_rerank_service.jobs.base import Executor, UnknownJobError
from gliclass_rerank_service.jobs.run import JobKind, JobStatus, attempt_job, checked_payload
from gliclass_rerank_service.queue.errors import ClosedError, OverloadedError

KEPT_PER_WAITING = 100  # stored results for each job that may wait
# A step of a job: large enough for full batches, small enough to fit in the queue beside other callers.
STEP_REQUESTS = 64
STEP_CHARACTERS = 60_000
LONGEST_PAUSE = 1.0  # seconds before a step is tried again
SHUT_DOWN = "the service was shut down before the job was done; submit it again"
PROCESSING = JobStatus("processing")


@dataclass(slots=True)
class _Held:
    """A job that is processed, or whose result is stored."""

    size: int  # bytes of the payload while it is processed, then of the result
    status: JobStatus = PROCESSING  # without its result, which is kept as JSON
    result: bytes = b"null"
    expires: float | None = field(default=None)  # monotonic clock; None while it is processed


class LocalJobs:
    """Jobs in this process, one after the other, since one alone keeps the scorer busy. They are lost at its end.

    Args:
        scorer: scores large jobs in steps, so that a `BatchingScorer` serves others in between.
        max_jobs: largest number of jobs that wait or run. A hundred times as many results are stored.
        max_bytes: limit of their payloads and the results together, as JSON. A job whose result does not fit has
            failed.
        ttl_seconds: lifetime of a result.
    """

    executor: Executor = "in-process"

    def __init__(
        self, scorer: Scorer, *, max_jobs: int = 100, max_bytes: int = 256 * 2**20, ttl_seconds: float = 3600.0
    ) -> None:
        self._closing = threading.Event()
        self._scorer = scorer
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._unfinished = 0
        self._bytes = 0  # of all that is held
        self._last_seconds = 1.0  # that a job took; a guess before the first
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gliclass-jobs")

    def submit(self, kind: JobKind, payload: Mapping[str, JsonValue]) -> str:
        """See `Jobs.submit`."""
        checked = checked_payload(kind, payload)
        size = len(_as_json(checked))
        if size > self._max_bytes:
            raise TooLargeError(f"expected a job of at most {self._max_bytes} bytes, got {size}; divide it")
        task_id = uuid.uuid4().hex
        with self._lock:
            if self._closing.is_set():
                raise ClosedError("the service is shutting down and accepts no jobs; send them elsewhere")
            self._forget_expired()
            self._check_room(size)
            self._held[task_id] = _Held(size)
            self._bytes += size
            self._unfinished += 1
            self._thread.submit(self._run, task_id, kind, checked)
        return task_id

    def status(self, task_id: str) -> JobStatus:
        """See `Jobs.status`."""
        with self._lock:
            self._forget_expired()
            if task_id not in self._held:
                raise UnknownJobError(task_id)
            held = self._held[task_id]
            status, result = held.status, held.result
        return JobStatus("done", json.loads(result)) if status.state == "done" else status

    def close(self) -> None:
        """Refuse new jobs, stop the running job after its present step, and cancel waiting ones. All of these fail."""
        with self._lock:
            self._closing.set()
        self._thread.shutdown(cancel_futures=True)
        with self._lock:
            for held in self._held.values():
                if held.status.state == "processing":
                    held.status = JobStatus("failed", error=SHUT_DOWN)

    def _run(self, task_id: str, kind: JobKind, payload: Mapping[str, JsonValue]) -> None:
        started = time.monotonic()
        status = attempt_job(self._scorer, kind, payload, score=self._score)
        result = _as_json(status.result)
        ended = time.monotonic()
        with self._lock:
            self._forget_expired()
            self._bytes -= self._held[task_id].size
            if self._bytes + len(result) > self._max_bytes:
                status = JobStatus("failed", error=_no_room(len(result), self._max_bytes - self._bytes))
                result = b"null"
            self._held[task_id] = _Held(len(result), replace(status, result=None), result, ended + self._ttl)
            self._bytes += len(result)
            self._unfinished -= 1
            self._last_seconds = ended - started

    def _score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Score in steps. `ClosedError` once this is closed."""
        rows: list[FloatArray] = []
        for step in request_chunks(requests, max_requests=STEP_REQUESTS, max_characters=STEP_CHARACTERS):
            rows += self._score_step(step)
        return rows

    def _score_step(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        """Score, and try again while the scorer's queue is full."""
        while not self._closing.is_set():
            try:
                return self._scorer.score(requests)
            except OverloadedError as error:
                self._closing.wait(min(error.retry_after, LONGEST_PAUSE))
        raise ClosedError(SHUT_DOWN)

    def _check_room(self, size: int) -> None:
        if self._unfinished >= self._max_jobs:
            raise OverloadedError(
                f"jobs full: {self._max_jobs} jobs are waiting, the limit; try again later",
                self._last_seconds,
            )
        if len(self._held) >= KEPT_PER_WAITING * self._max_jobs:
            raise OverloadedError(
                f"jobs full: {len(self._held)} results are kept, the limit; try again when some expire",
                self._until_one_expires(),
            )
        if self._bytes + size > self._max_bytes:
            raise OverloadedError(
                f"jobs full: {size} bytes do not fit beside {self._bytes} of {self._max_bytes}; try again when jobs "
                "have ended or results expire",
                self._last_seconds if self._unfinished else self._until_one_expires(),
            )

    def _until_one_expires(self) -> float:
        """Seconds until the first result expires. At least one must be stored."""
        oldest = min(held.expires for held in self._held.values() if held.expires is not None)
        return max(0.0, oldest - time.monotonic())

    def _forget_expired(self) -> None:
        now = time.monotonic()
        for task_id in [task_id for task_id, held in self._held.items() if held.expires and held.expires <= now]:
            self._bytes -= self._held.pop(task_id).size


def _as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _no_room(size: int, room: int) -> str:
    return f"its result has {size} bytes, and {room} are free; divide it, or submit it again later"
