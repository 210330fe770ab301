"""Errors of the queue.

GLiClassRerankError
├── OverloadedError                                 the queue is full; has the time until a retry
├── DeadlineExceededError (TimeoutError)            no result before the caller's deadline
├── SubmissionCancelledError                        cancelled before it had a result
└── ClosedError                                     the scorer is shut down
"""

from __future__ import annotations

from gliclass_rerank import GLiClassRerankError

UNKNOWN_WAIT = 1.0  # seconds until a retry, before any throughput has been measured


class OverloadedError(GLiClassRerankError):
    """The queue is full. ``retry_after`` is the estimated time until there is room, in seconds."""

    def __init__(self, message: str, retry_after: float = UNKNOWN_WAIT) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceededError(GLiClassRerankError, TimeoutError):
    """No result before the caller's deadline."""


class SubmissionCancelledError(GLiClassRerankError):
    """The submission was cancelled before it had a result."""


class ClosedError(GLiClassRerankError):
    """The scorer is shut down, or was shut down before it computed this submission."""
