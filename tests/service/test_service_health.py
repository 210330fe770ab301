"""Readiness follows the model, liveness the thread that calls it, and metrics count what runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fakes import OverlapScorer
from gliclass_rerank_service import BatchingScorer, ClosedError, Settings, create_app
from gliclass_rerank_service.observability import health
from gliclass_rerank_service.observability.health import FAILING_SECONDS, Health
from gliclass_rerank_service.queue.inference import LATE_FACTOR, LATE_SECONDS, Inference
from gliclass_rerank_service.queue.submission import Prepared, Submission
from prometheus_client.parser import text_string_to_metric_families
from serving import PATIENCE, GatedScorer, wait_for
from starlette.testclient import TestClient

from gliclass_rerank import InvalidTextError, ScoreRequest
from gliclass_rerank.types import FloatArray

BODY = {"query": "red apple", "documents": ["a red apple", "a secret door"]}
ERRORS = (RuntimeError("device-side assert"), BaseException("a panic"))


class Clock:
    """Stands still until a test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class BreakableScorer(OverlapScorer):
    """Raises ``error`` for texts that contain ``word``; for all of them if it is empty."""

    error: BaseException | None = None
    word = ""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        if self.error is not None and any(self.word in request.text for request in requests):
            raise self.error
        return super().score(requests)


@pytest.fixture(autouse=True)
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(health, "LONGEST_PAUSE", 0.01)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gated(clock: Clock) -> Iterator[tuple[GatedScorer, BatchingScorer, TestClient]]:
    """A service whose model stops at a gate, ready."""
    scorer = GatedScorer()
    batching = BatchingScorer(scorer, clock=clock)
    with TestClient(create_app(batching, Settings())) as client:
        wait_until_ready(client)
        yield scorer, batching, client
        scorer.gate.set()


def wait_until_ready(client: TestClient) -> None:
    wait_for(lambda: client.get("/ready").status_code == 200)


def close_gate(scorer: GatedScorer) -> None:
    scorer.gate.clear()
    scorer.entered.clear()


def samples(client: TestClient) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {one.name: one.value for family in families for one in family.samples}


# Readiness


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_model_that_fails_is_not_ready_until_it_has_recovered(error: BaseException) -> None:
    scorer = BreakableScorer()
    with TestClient(create_app(scorer, Settings())) as client:
        wait_until_ready(client)
        for _ in range(2):
            scorer.error = error
            assert client.post("/rerank", json=BODY).status_code == 424
            wait_for(lambda: client.get("/ready").status_code == 503)
            told = client.get("/ready")
            assert (told.json()["error_type"], told.headers["retry-after"]) == ("Unhealthy", "1")
            assert "the model fails" in told.json()["message"]
            assert client.get("/health").status_code == client.get("/ping").status_code == 200
            assert samples(client)["gliclass_rerank_ready"] == 0
            scorer.error = None
            wait_until_ready(client)  # without another request
            assert samples(client)["gliclass_rerank_ready"] == 1
            assert client.post("/rerank", json=BODY).status_code == 200


def test_a_request_that_breaks_the_model_leaves_the_service_ready(clock: Clock) -> None:
    scorer = BreakableScorer()
    scorer.error, scorer.word = RuntimeError("out of memory"), "secret"
    with TestClient(create_app(BatchingScorer(scorer, clock=clock), Settings())) as client:
        wait_until_ready(client)
        for _ in range(20):
            assert client.post("/rerank", json=BODY).status_code == 424
            assert client.get("/ready").status_code == 200
        assert samples(client)["gliclass_rerank_batch_failures_total"] >= 20


def test_an_input_that_cannot_be_read_is_no_failure_of_the_model(clock: Clock) -> None:
    scorer = BreakableScorer()
    scorer.error = InvalidTextError("nothing is left of it")
    with BatchingScorer(scorer, clock=clock) as batching:
        batching.watch(lambda: pytest.fail("no failure"))
        with pytest.raises(InvalidTextError):
            batching.score([ScoreRequest("a", ("b",))])
        clock.now += 9
        assert (batching.stats().failures, batching.stats().failing_seconds) == (0, 0)


def test_failures_count_from_the_first_one_after_a_success(clock: Clock) -> None:
    scorer, request = BreakableScorer(), [ScoreRequest("a", ("b",))]
    with BatchingScorer(scorer, clock=clock) as batching:
        state = Health(batching)
        assert state.problem() == "the model is starting"
        state.verdict = True
        scorer.error = RuntimeError("again")
        for _ in range(3):
            with pytest.raises(RuntimeError):
                batching.score(request)
            clock.now += FAILING_SECONDS / 3
        assert batching.stats().failing_seconds == pytest.approx(FAILING_SECONDS)
        clock.now += 0.1
        assert state.problem() == "the model fails; see the log"  # though the probe has not ended
        scorer.error = None
        batching.score(request)
        assert batching.stats().failing_seconds == 0
        assert batching.stats().failures == 3
        assert state.problem() is None


def test_a_batch_that_does_not_end_makes_the_service_unready(
    gated: tuple[GatedScorer, BatchingScorer, TestClient], clock: Clock
) -> None:
    scorer, batching, client = gated
    close_gate(scorer)
    running = batching.submit([ScoreRequest("a", ("b",))])
    assert scorer.entered.wait(PATIENCE)
    clock.now += LATE_SECONDS
    assert client.get("/ready").status_code == 200
    clock.now += 1
    told = client.get("/ready")
    assert (told.status_code, told.json()["message"]) == (503, "the model has computed one batch for 5 s")
    assert client.get("/health").status_code == 200
    scorer.gate.set()
    running.result(PATIENCE)
    assert client.get("/ready").status_code == 200


def test_a_batch_is_late_by_what_its_tokens_usually_take(clock: Clock) -> None:
    inference = Inference(threading.Lock(), clock=clock, full_tokens=1, on_batch=None)
    submission = Submission(Prepared([ScoreRequest("a", ("b",))], [100]), deadline=None)
    inference.pace.add(100, 2.0)
    inference.since, inference.running = clock.now, {submission: [0]}
    clock.now += 2 * LATE_FACTOR
    assert not inference.late
    clock.now += 0.1
    assert inference.late


# Liveness


def broken(*_: Any) -> None:
    raise KeyError("an error of ours")


def test_a_thread_that_ends_is_told_and_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = GatedScorer()
    batching = BatchingScorer(scorer)
    with TestClient(create_app(batching, Settings())) as client:
        wait_until_ready(client)
        close_gate(scorer)
        running = batching.submit([ScoreRequest("a", ("b",))])
        assert scorer.entered.wait(PATIENCE)
        waiting = batching.submit([ScoreRequest("c", ("d",))])
        monkeypatch.setattr(batching._inference, "_on_batch", broken)
        scorer.gate.set()
        for one in (running, waiting):
            with pytest.raises(ClosedError, match="has ended after an error"):
                one.result(PATIENCE)
        wait_for(lambda: not batching.stats().alive)
        for path in ("/health", "/ping", "/ready"):
            response = client.get(path)
            assert (response.status_code, response.json()["error_type"]) == (503, "Unhealthy")
            assert "restart the service" in response.json()["message"]
        assert client.post("/rerank", json=BODY).status_code == 503


def test_a_thread_that_was_closed_has_not_died() -> None:
    batching = BatchingScorer(OverlapScorer())
    assert batching.close(timeout=PATIENCE)
    assert batching.stats().alive


# Metrics


def test_metrics_count_what_runs_though_its_client_has_left(
    gated: tuple[GatedScorer, BatchingScorer, TestClient], clock: Clock
) -> None:
    scorer, batching, client = gated
    before = samples(client)
    close_gate(scorer)
    running = batching.submit([ScoreRequest("a", ("b",))])
    assert scorer.entered.wait(PATIENCE)
    assert samples(client)["gliclass_rerank_in_flight"] == 0  # it is no HTTP request
    running.cancel()
    clock.now += 3
    during = samples(client)
    assert during["gliclass_rerank_in_flight"] == during["te_queue_size"] == 1
    assert during["gliclass_rerank_queue_tokens"] == sum(running.costs)
    assert during["gliclass_rerank_batch_running_seconds"] == 3
    assert during["gliclass_rerank_busy_seconds_total"] - before["gliclass_rerank_busy_seconds_total"] == 3
    scorer.gate.set()
    wait_for(lambda: not batching.stats().submissions)
    after = samples(client)
    assert after["gliclass_rerank_busy_seconds_total"] == during["gliclass_rerank_busy_seconds_total"]
    for name in ("in_flight", "queue_tokens", "batch_running_seconds"):
        assert after[f"gliclass_rerank_{name}"] == 0


def test_a_submission_that_runs_and_waits_counts_once() -> None:
    scorer = GatedScorer()
    close_gate(scorer)
    with BatchingScorer(scorer, queue_batch_tokens=1) as batching:
        submission = batching.submit([ScoreRequest("a", ("b",)), ScoreRequest("c", ("d",))])
        assert scorer.entered.wait(PATIENCE)
        stats = batching.stats()
        assert (stats.submissions, stats.queue_submissions) == (1, 1)
        assert stats.queue_tokens + stats.running_tokens == sum(submission.costs)
        scorer.gate.set()
