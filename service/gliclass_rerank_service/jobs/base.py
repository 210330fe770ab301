"""Jobs: work that is submitted for an id, by which its status is asked until the result expires.

    GLiClassRerankError
    └── UnknownJobError                                 no job of that id, or its result has expired

Without a broker they run in this process (`jobs.local`) and end with it. With one they run on workers and outlive every
process (`jobs.celery`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import JsonValue

from gliclass_rerank import GLiClassRerankError
from gliclass_rerank_service.jobs.run import JobKind, JobStatus

Executor = Literal["in-process", "celery"]


class UnknownJobError(GLiClassRerankError):
    """There is no job of that id, or its result has expired."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"job {task_id!r:.60}: there is none; its result may have expired, submit it again")


class Jobs(Protocol):
    """Where jobs go. Safe to call from many threads; both calls may block for a while where a broker is involved."""

    @property
    def executor(self) -> Executor: ...

    def submit(self, kind: JobKind, payload: Mapping[str, JsonValue]) -> str:
        """Accept a job and return its id.

        Raises:
            InputError: a payload that is none.
            OverloadedError: no more jobs can be taken now.
            ClosedError: jobs are closed.
            ServiceError: the broker cannot be reached; the job is not accepted.
        """
        ...

    def status(self, task_id: str) -> JobStatus:
        """Say how far a job is.

        Raises:
            UnknownJobError: no such job, or its result has expired.
            ServiceError: the broker cannot be reached.
        """
        ...

    def close(self) -> None:
        """Accept nothing more, and let go of what is held."""
        ...
