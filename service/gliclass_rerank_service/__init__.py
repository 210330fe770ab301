"""Reranking as a service: one model for many applications, over the wire formats that their clients speak already."""

from gliclass_rerank_service.batching import (
    BatchingScorer,
    BatchingStats,
    ClosedError,
    DeadlineExceededError,
    OverloadedError,
    Submission,
    SubmissionCancelledError,
    estimate_tokens,
)

__all__ = [
    "BatchingScorer",
    "BatchingStats",
    "ClosedError",
    "DeadlineExceededError",
    "OverloadedError",
    "Submission",
    "SubmissionCancelledError",
    "estimate_tokens",
]
