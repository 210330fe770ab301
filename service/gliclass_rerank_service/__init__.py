"""Reranking as a service: one model for many applications, over existing wire formats."""

from gliclass_rerank_service.app import create_app
from gliclass_rerank_service.queue import (
    BatchingScorer,
    BatchingStats,
    ClosedError,
    DeadlineExceededError,
    OverloadedError,
    Submission,
    SubmissionCancelledError,
    estimate_tokens,
)
from gliclass_rerank_service.settings import Settings, read_settings

__all__ = [
    "BatchingScorer",
    "BatchingStats",
    "ClosedError",
    "DeadlineExceededError",
    "OverloadedError",
    "Settings",
    "Submission",
    "SubmissionCancelledError",
    "create_app",
    "estimate_tokens",
    "read_settings",
]
