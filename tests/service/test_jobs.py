"""Jobs in this process: the work equals the library's own, bad payloads are refused before, nothing is unbounded."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from fakes import INFO, OverlapScorer
from gliclass_rerank_service import BatchingScorer, ClosedError, OverloadedError
from gliclass_rerank_service.jobs.base import Jobs, UnknownJobError
from gliclass_rerank_service.jobs.local import LocalJobs
from gliclass_rerank_service.jobs.open import open_jobs
from gliclass_rerank_service.jobs.run import JobStatus, attempt_job, cache_key, checked_payload, run_job
from gliclass_rerank_service.settings import read_settings

from gliclass_rerank import Classifier, InputError, NonFiniteError, Reranker, ScoreRequest
from gliclass_rerank.types import FloatArray

TEXTS = ["bread rises slowly", "the sea is salt", "the bread and the sea"]
LABELS = ["bread rises slowly", "the sea is salt"]
PREDICT: dict[str, Any] = {"inputs": TEXTS, "labels": LABELS}
RERANK: dict[str, Any] = {"query": "the salt sea", "documents": TEXTS}


class FailingScorer:
    """Raises what it is told to."""

    info = INFO

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        raise self._error


class GatedScorer(OverlapScorer):
    """Scores when it is let; a semaphore counts the calls that it may still answer."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        assert self.gate.acquire(timeout=30)
        return super().score(requests)


def ended(jobs: Jobs, task_id: str, seconds: float = 30.0) -> JobStatus:
    """The status of a job when it has ended."""
    until = time.monotonic() + seconds
    while (status := jobs.status(task_id)).state == "processing":
        assert time.monotonic() < until, "the job does not end"
        time.sleep(0.01)
    return status


def until_unknown(jobs: Jobs, task_id: str, seconds: float = 30.0) -> None:
    """Return when nothing is known of a job any more."""
    until = time.monotonic() + seconds
    with suppress(UnknownJobError):
        while jobs.status(task_id):
            assert time.monotonic() < until, "the result does not expire"
            time.sleep(0.001)


def test_predictions_are_the_classifiers() -> None:
    expected = [
        [{"label": kept.label, "score": kept.score} for kept in one.labels]
        for one in Classifier(OverlapScorer()).classify(TEXTS, LABELS)
    ]
    assert run_job(OverlapScorer(), "predict", PREDICT) == expected
    assert run_job(OverlapScorer(), "predict", PREDICT | {"batch_size": "any"}) == expected
    assert run_job(OverlapScorer(), "predict", PREDICT | {"inputs": TEXTS[0]}) == expected[:1]


def test_a_single_label_is_the_best_one() -> None:
    found: Any = run_job(OverlapScorer(), "predict", PREDICT | {"classification_type": "single-label"})
    assert [[one["label"] for one in row] for row in found[:2]] == [[LABELS[0]], [LABELS[1]]]
    assert all(len(row) == 1 for row in found)


def test_thresholds_are_kept_to() -> None:
    found: Any = run_job(OverlapScorer(), "predict", PREDICT | {"threshold": 0.0})
    assert all(len(row) == len(LABELS) for row in found)
    found = run_job(OverlapScorer(), "predict", PREDICT | {"threshold": 1.0})
    assert all(row == [] for row in found)


def test_first_stage_scores_count_in_a_job_as_in_the_reranker() -> None:
    scores = [float(i) for i in range(len(RERANK["documents"]))]
    found: Any = run_job(OverlapScorer(), "rerank", RERANK | {"first_stage_scores": scores})
    expected = Reranker(OverlapScorer()).rank(RERANK["query"], RERANK["documents"], first_stage_scores=scores)
    assert [one["index"] for one in found["results"]] == [one.index for one in expected]
    assert found != run_job(OverlapScorer(), "rerank", RERANK)


@pytest.mark.parametrize("top_n", [None, 0, 1, 2, 9])
def test_rankings_are_the_rerankers(top_n: int | None) -> None:
    expected = Reranker(OverlapScorer()).rank("the salt sea", TEXTS, top_n=top_n or None)
    found: Any = run_job(OverlapScorer(), "rerank", RERANK | {"top_n": top_n})
    assert found["model"] == "overlap"
    assert [(one["index"], one["relevance_score"]) for one in found["results"]] == [
        (ranked.index, ranked.score) for ranked in expected
    ]


def test_documents_and_raw_scores_come_if_asked_for() -> None:
    found: Any = run_job(OverlapScorer(), "rerank", RERANK | {"return_documents": True, "raw_scores": True})
    best = found["results"][0]
    assert best == {"index": 1, "relevance_score": 3.0, "document": {"text": TEXTS[1]}}
    found = run_job(OverlapScorer(), "rerank", RERANK)
    assert "document" not in found["results"][0]


def test_what_is_not_read_is_told() -> None:
    scorer = OverlapScorer(window=2)
    found: Any = run_job(scorer, "rerank", RERANK | {"long_text": "truncate"})
    assert all(one["truncated"] for one in found["results"])
    found = run_job(scorer, "rerank", RERANK)
    assert not any("truncated" in one for one in found["results"])


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        ("predict", {}, "inputs"),
        ("predict", {"inputs": "a"}, "labels"),
        ("predict", PREDICT | {"inputs": []}, "inputs"),
        ("predict", PREDICT | {"labels": []}, "labels"),
        ("predict", PREDICT | {"inputs": ["a", "  "]}, "inputs"),
        ("predict", PREDICT | {"inputs": "a\0b"}, "NUL"),
        ("predict", PREDICT | {"inputs": "a\ud800"}, "inputs"),
        ("predict", PREDICT | {"inputs": 5}, "inputs"),
        ("predict", PREDICT | {"classification_type": "both"}, "classification_type"),
        ("predict", PREDICT | {"threshold": 2}, "threshold"),
        ("predict", PREDICT | {"threshold": float("nan")}, "threshold"),
        ("rerank", {"query": "a", "documents": []}, "documents"),
        ("rerank", RERANK | {"query": ""}, "query"),
        ("rerank", RERANK | {"top_n": -1}, "top_n"),
        ("rerank", RERANK | {"long_text": "cut"}, "long_text"),
        ("rerank", RERANK | {"first_stage_scores": [1.0]}, "first_stage_scores: expected one for each of"),
        ("rerank", RERANK | {"first_stage_scores": ["high"] * len(TEXTS)}, "first_stage_scores"),
        ("guess", {}, "expected one of 'predict', 'rerank'"),
    ],
)
def test_bad_payloads_are_refused_before_they_are_queued(kind: Any, payload: dict[str, Any], said: str) -> None:
    jobs = LocalJobs(FailingScorer(AssertionError("nothing is scored")))
    with pytest.raises(InputError, match=said):
        jobs.submit(kind, payload)
    jobs.close()


def test_the_key_of_a_result_depends_on_what_the_result_does() -> None:
    def key(kind: Any, payload: dict[str, Any]) -> str:
        return cache_key(INFO, kind, checked_payload(kind, payload))

    reordered = dict(reversed(PREDICT.items()))
    same = [PREDICT, reordered, PREDICT | {"threshold": 0.5}, PREDICT | {"batch_size": 3}, PREDICT | {"unknown": 1}]
    assert len({key("predict", payload) for payload in same}) == 1
    others = [PREDICT | {"threshold": 0.6}, PREDICT | {"labels": LABELS[::-1]}, PREDICT | {"inputs": TEXTS[::-1]}]
    assert len({key("predict", payload) for payload in [PREDICT, *others]}) == 4
    assert key("rerank", RERANK) != key("rerank", RERANK | {"top_n": 1})


@pytest.mark.parametrize(
    "other",
    [{"name": "another"}, {"revision": "2"}, {"dtype": "int8"}, {"max_length": 256}],
    ids=lambda other: next(iter(other)),
)
def test_the_key_of_a_result_depends_on_the_model(other: dict[str, Any]) -> None:
    assert cache_key(INFO, "predict", PREDICT) != cache_key(replace(INFO, **other), "predict", PREDICT)


@pytest.mark.parametrize(("kind", "payload"), [("predict", PREDICT), ("rerank", RERANK)])
def test_a_job_ends_with_what_its_work_gives(kind: Any, payload: dict[str, Any]) -> None:
    jobs = open_jobs(read_settings(), OverlapScorer())
    assert jobs.executor == "in-process"
    status = ended(jobs, jobs.submit(kind, payload))
    assert status == JobStatus("done", run_job(OverlapScorer(), kind, payload))
    jobs.close()


def test_an_unknown_job_is_told() -> None:
    jobs = LocalJobs(OverlapScorer())
    with pytest.raises(UnknownJobError, match=r"'nobody'.*submit it again"):
        jobs.status("nobody")
    jobs.close()


def test_results_expire_and_not_too_early() -> None:
    jobs = LocalJobs(OverlapScorer(), ttl_seconds=0.2)
    submitted = time.monotonic()
    task_id = jobs.submit("predict", PREDICT)
    until_unknown(jobs, task_id)
    assert time.monotonic() - submitted >= 0.2
    jobs.close()


def test_what_waits_does_not_expire() -> None:
    scorer = GatedScorer()
    jobs = LocalJobs(scorer, ttl_seconds=0.01)
    task_id = jobs.submit("predict", PREDICT)
    time.sleep(0.1)
    assert jobs.status(task_id).state == "processing"
    scorer.gate.release()
    jobs.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NonFiniteError("its weights are NaN"), "its weights are NaN"),
        (ZeroDivisionError("a secret text"), r"internal error \(ZeroDivisionError\)"),
        (BaseException("a secret text"), r"internal error \(BaseException\)"),
    ],
)
def test_a_failure_is_a_status(error: BaseException, said: str, caplog: pytest.LogCaptureFixture) -> None:
    jobs = LocalJobs(FailingScorer(error))
    for _ in range(2):  # the thread goes on
        status = ended(jobs, jobs.submit("predict", PREDICT))
        assert (status.state, status.result) == ("failed", None)
        assert re.fullmatch(f"{said}.*", status.error or "")
    assert "secret" not in (status.error or "") + caplog.text
    jobs.close()


def test_an_interrupt_is_none() -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt_job(FailingScorer(KeyboardInterrupt()), "predict", PREDICT)


def test_few_may_wait() -> None:
    scorer = GatedScorer()
    jobs = LocalJobs(scorer, max_jobs=3)
    taken = [jobs.submit("predict", PREDICT) for _ in range(3)]
    with pytest.raises(OverloadedError, match="jobs full: 3 jobs are waiting, the limit") as raised:
        jobs.submit("predict", PREDICT)
    assert raised.value.retry_after > 0
    scorer.gate.release()
    ended(jobs, taken[0])
    taken.append(jobs.submit("predict", PREDICT))  # there is room again
    scorer.gate.release(3)
    assert [ended(jobs, task_id).state for task_id in taken] == ["done"] * 4
    jobs.close()


def test_few_results_are_kept() -> None:
    jobs = LocalJobs(OverlapScorer(), max_jobs=1, ttl_seconds=3600.0)
    for _ in range(100):
        ended(jobs, jobs.submit("predict", PREDICT))
    with pytest.raises(OverloadedError, match="jobs full: 100 results are kept, the limit") as raised:
        jobs.submit("predict", PREDICT)
    assert 0 <= raised.value.retry_after <= 3600
    jobs.close()


def test_results_that_have_expired_take_no_room() -> None:
    """More jobs than results are kept, and none waits for longer than a result is."""
    jobs = LocalJobs(OverlapScorer(), max_jobs=1, ttl_seconds=0.01)
    for _ in range(150):
        until_unknown(jobs, jobs.submit("predict", PREDICT))
    jobs.close()


def test_few_bytes_are_held() -> None:
    """Of what waits and of results."""
    scorer = GatedScorer()
    jobs = LocalJobs(scorer, max_bytes=500, ttl_seconds=3600.0)
    with pytest.raises(InputError, match=r"at most 500 bytes, got"):
        jobs.submit("predict", PREDICT | {"inputs": ["x" * 500]})
    waiting = jobs.submit("predict", PREDICT | {"inputs": ["x" * 300]})
    with pytest.raises(OverloadedError, match=r"jobs full: 187 bytes do not fit beside \d+ of 500") as raised:
        jobs.submit("predict", PREDICT)
    assert raised.value.retry_after > 0
    scorer.gate.release(1000)
    assert ended(jobs, waiting).state == "done"  # and its payload is held no longer
    large = jobs.submit("predict", PREDICT | {"inputs": ["x"] * 20, "threshold": 0})
    assert re.fullmatch(r"its result has \d+ bytes, and 49\d are free; .*", ended(jobs, large).error or "")
    kept = jobs.submit("predict", PREDICT | {"inputs": ["x"] * 3, "threshold": 0})
    assert ended(jobs, kept).state == "done"
    with pytest.raises(OverloadedError, match=r"jobs full: 187 bytes do not fit beside \d+ of 500"):
        jobs.submit("predict", PREDICT)
    jobs.close()


def test_results_that_have_expired_take_no_bytes() -> None:
    jobs = LocalJobs(OverlapScorer(), max_bytes=500, ttl_seconds=0.01)
    for _ in range(5):
        until_unknown(jobs, jobs.submit("predict", PREDICT | {"inputs": ["x" * 300]}))
    jobs.close()


def test_many_threads_may_submit() -> None:
    jobs = LocalJobs(OverlapScorer(), max_jobs=400)
    found: list[JobStatus] = []

    def work() -> None:
        found.extend(ended(jobs, jobs.submit("predict", PREDICT)) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [JobStatus("done", run_job(OverlapScorer(), "predict", PREDICT))] * 160
    jobs.close()


def test_a_job_that_is_accepted_while_it_closes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread closes it just before the pool is given the job."""
    jobs = LocalJobs(OverlapScorer())
    closing = threading.Thread(target=jobs.close)
    give = ThreadPoolExecutor.submit

    def give_late(pool: ThreadPoolExecutor, *work: Any) -> Any:
        closing.start()
        closing.join(0.3)  # in vain, as long as closing has to wait for the submission
        return give(pool, *work)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", give_late)
    task_id = jobs.submit("predict", PREDICT)
    closing.join(30)
    assert jobs.status(task_id).state in ("done", "failed")


def test_closing_ends_the_job_in_work_and_drops_those_that_wait() -> None:
    scorer = GatedScorer()
    jobs = LocalJobs(scorer)
    long: dict[str, Any] = {"query": "the sea", "documents": TEXTS * 1000}
    working, waiting = jobs.submit("rerank", long), jobs.submit("predict", PREDICT)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    while True:  # it refuses from the moment on that it is closed
        try:
            jobs.submit("predict", PREDICT)
        except ClosedError:
            break
    scorer.gate.release(1)  # the step in work; no other is begun
    closing.join(30)
    assert not closing.is_alive()
    assert "shut down" in (jobs.status(working).error or "")
    assert "shut down" in (jobs.status(waiting).error or "")
    assert len(scorer.calls) <= 1


def test_a_large_job_fits_in_a_small_queue_beside_others() -> None:
    inner = GatedScorer()
    long: dict[str, Any] = {"query": "the salt sea", "documents": TEXTS * 100}
    with BatchingScorer(inner, queue_batch_tokens=50, max_queue_tokens=100) as scorer:
        jobs = LocalJobs(scorer)
        others = [scorer.submit([ScoreRequest("the sea " * 20, ("salt",))]) for _ in range(2)]
        task_id = jobs.submit("rerank", long)
        inner.gate.release(10_000)
        assert ended(jobs, task_id).state == "done"
        assert all(len(other.result(30)) == 1 for other in others)
        jobs.close()
    assert ended(jobs, task_id).result == run_job(OverlapScorer(), "rerank", long)
