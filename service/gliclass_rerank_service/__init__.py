"""Reranking as a service: one model for many applications, over existing wire formats."""

from gliclass_rerank_service.app import create_app
from gliclass_rerank_service.queue.batching_scorer import BatchingScorer
from gliclass_rerank_service.queue.errors import (
    ClosedError,
    DeadlineExceededError,
    OverloadedError,
    SubmissionCancelledError,
)
from gliclass_rerank_service.queue.stats import BatchingStats
from gliclass_rerank_service.queue.submission import Submission, estimate_tokens
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
