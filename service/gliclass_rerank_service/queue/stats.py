"""Counters and throughput of a `BatchingScorer`."""

from __future__ import annotations

from dataclasses import dataclass

MEMORY = 0.9  # decay of the mean throughput per batch


@dataclass(frozen=True, slots=True)
class BatchingStats:
    """Counters of a `BatchingScorer`.

    Attributes:
        queue_tokens: estimated tokens that wait, without those being computed.
        queue_submissions: submissions with waiting requests.
        batches: successful calls of the inner scorer.
        requests: requests that it scored.
        tokens: estimated tokens that it scored.
        tokens_per_second: mean throughput while it computes, mostly of the last ten batches; None before the first.
        running_tokens: estimated tokens of the batch that is computed.
        running_abandoned: submissions in it that have ended, since their caller left or their deadline has passed.
        submissions: submissions that wait or are computed.
        running_seconds: age of the present call of the inner scorer; 0 while none runs.
        late: whether that is far longer than other calls took for as many tokens.
        busy_seconds: time of all calls, successful or not, the present one included. It never falls.
        failures: calls that failed for another reason than their input.
        failing_seconds: time since the first failure after the last success; 0 if there is none.
        alive: whether the thread that scores runs, or was ended by `BatchingScorer.close`.
    """

    queue_tokens: int
    queue_submissions: int
    batches: int
    requests: int
    tokens: int
    tokens_per_second: float | None
    running_tokens: int
    running_abandoned: int
    submissions: int
    running_seconds: float
    late: bool
    busy_seconds: float
    failures: int
    failing_seconds: float
    alive: bool


@dataclass(slots=True)
class Pace:
    """Mean throughput, mostly of the last ten batches."""

    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.tokens = MEMORY * self.tokens + tokens
        self.seconds = MEMORY * self.seconds + max(seconds, 1e-6)

    @property
    def tokens_per_second(self) -> float | None:
        """None before the first batch."""
        return self.tokens / self.seconds if self.tokens else None

    def seconds_for(self, tokens: int) -> float | None:
        """Expected time of so many tokens. None before the first batch."""
        return tokens * self.seconds / self.tokens if self.tokens else None
