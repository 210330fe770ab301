"""Jobs: work submitted for an id. Its status can be requested by the id until the result expires.

    GLiClassRerankError
    └── UnknownJobError                                 no job with that id, or its result has expired

Without a broker, jobs run in this process (`jobs.local`) and end with it. With a broker they run on workers and survive
the end of any process (`jobs.celery`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import JsonValue

from gliclass_rerank import GLiClassRerankError
from gliclass_rerank_service.jobs.run import JobKind, JobStatus

Executor = Literal["in-process", "celery"]


class UnknownJobError(GLiClassRerankError):
    """There is no job with that id, or its result has expired."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"job {task_id!r:.60}: there is none; its result may have expired, submit it again")


class Jobs(Protocol):
    """Executor of jobs. Thread-safe. With a broker, both calls may block for a while."""

    @property
    def executor(self) -> Executor: ...

    def submit(self, kind: JobKind, payload: Mapping[str, JsonValue]) -> str:
        """Accept a job and return its id.

        Raises:
            InputError: an invalid payload.
            OverloadedError: no more jobs can be accepted now.
            ClosedError: jobs are closed.
            ServiceError: the broker cannot be reached. The job is not accepted.
        """
        ...

    def status(self, task_id: str) -> JobStatus:
        """Return the status of a job.

        Raises:
            UnknownJobError: no such job, or its result has expired.
            ServiceError: the broker cannot be reached.
        """
        ...

    def close(self) -> None:
        """Accept no more jobs and release resources."""
        ...
