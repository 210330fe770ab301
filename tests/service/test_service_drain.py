"""SIGTERM while clients ask: whoever was accepted is answered, whoever comes later is refused, and nobody is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import uvicorn
from conftest import needs_mini
from gliclass_rerank_service import ClosedError, Settings, create_app
from gliclass_rerank_service.server import DrainingServer
from gliclass_rerank_service.service import Service
from serving import PATIENCE, ROOT, GatedScorer, answers_ready, free_port, process, wait_for

from gliclass_rerank import ScoreRequest

BODY = {"query": "how do I reset my password?", "documents": ["Bread rises.", "A new password is sent by mail."] * 8}
KEY = {"Authorization": "Bearer the-key"}


class Client(threading.Thread):
    """Asks again and again over one connection, until it is refused.

    Attributes:
        statuses: of all answers.
        lost: errors of requests that were sent over an established connection and got no answer.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.statuses: list[int] = []
        self.lost: list[str] = []
        self.refused = False

    def run(self) -> None:
        with httpx.Client(base_url=self._url, headers=KEY, timeout=60) as client:
            while not self.refused:
                try:
                    self.statuses.append(client.post("/v2/rerank", json=BODY).status_code)
                except httpx.ConnectError:
                    self.refused = True
                except httpx.TransportError as error:
                    self.lost.append(repr(error))
                    self.refused = True
                else:
                    self.refused = self.statuses[-1] == 503


@needs_mini
@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_request(tmp_path: Path, sent: signal.Signals) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-key\n", "utf-8")
    with process(["--api-key-file", str(keys), "--drain-seconds", "60"]) as (served, url):
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(served.stderr or ()))
        reader.start()
        clients = [Client(url) for _ in range(8)]
        for client in clients:
            client.start()
        wait_for(lambda: all(client.statuses for client in clients))
        served.send_signal(sent)
        assert served.wait(60) == 0
        for client in clients:
            client.join(60)
        reader.join(60)
    statuses = [status for client in clients for status in client.statuses]
    assert set(statuses) <= {200, 503}
    assert [error for client in clients for error in client.lost] == []
    assert all(client.refused for client in clients)
    told = [json.loads(line) for line in log]
    answered = [one for one in told if one.get("route") == "/v2/rerank" and one["status"] == 200]
    assert len(answered) == statuses.count(200)
    assert not any(word in "".join(log) for word in ("password", "Bread", "the-key"))


def test_what_still_waits_when_the_time_is_over_is_told_so() -> None:
    scorer, port = GatedScorer(), free_port()
    app = create_app(scorer, Settings(drain_seconds=0.5))
    service = app.state.service
    server = DrainingServer(uvicorn.Config(app, port=port, log_config=None), service)
    serving = threading.Thread(target=server.run)
    serving.start()
    wait_for(lambda: service.ready)
    scorer.gate.clear()
    scorer.entered.clear()
    first = service.scorer.submit([ScoreRequest("in work", ("label",))])
    assert scorer.entered.wait(30)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(httpx.post(f"http://127.0.0.1:{port}/v2/rerank", json=BODY, timeout=60))
    )
    waiting.start()
    wait_for(lambda: service.in_flight == 1)
    server.handle_exit(signal.SIGTERM, None)
    refused = httpx.post(f"http://127.0.0.1:{port}/v2/rerank", json=BODY, timeout=60)
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    waiting.join(60)
    assert answers[0].status_code == 503
    assert answers[0].json()["error_type"] == "Unhealthy"
    assert isinstance(first.exception(PATIENCE), ClosedError)  # its batch cannot be stopped, and nobody waits for it
    scorer.gate.set()
    serving.join(60)
    assert not serving.is_alive()
    assert "Bread rises." not in scorer.texts


def test_the_time_to_drain_begins_once() -> None:
    service = Service(GatedScorer(), Settings(drain_seconds=8))
    assert service.drain() == 8
    assert service.drain() <= 8
    assert service.draining
    service.close()


def test_closing_waits_for_no_batch_beyond_the_time_to_drain() -> None:
    scorer = GatedScorer()
    service = Service(scorer, Settings(drain_seconds=0))
    scorer.gate.clear()
    running = service.scorer.submit([ScoreRequest("in work", ("label",))])
    assert scorer.entered.wait(PATIENCE)
    job = service.jobs.submit("rerank", {"query": "q", "documents": ["waits"]})
    service.close()
    with pytest.raises(ClosedError):
        running.result(PATIENCE)
    with pytest.raises(ClosedError):
        service.scorer.score([ScoreRequest("late", ("label",))])
    assert service.jobs.status(job).state == "failed"
    scorer.gate.set()


HANGS = """
import re, sys, time
from fakes import OverlapScorer
from gliclass_rerank_service import Settings, create_app
from gliclass_rerank_service.server import serve

class Hangs(OverlapScorer):
    def score(self, requests):
        while any("hang" in request.text for request in requests):
            time.sleep(0.01)
            if sys.argv[3] == "keeps the lock" and app.state.service.draining:
                re.match("(a+)+$", "a" * 60 + "b")  # takes years
        return super().score(requests)

settings = Settings(port=int(sys.argv[1]), drain_seconds=float(sys.argv[2]))
app = create_app(Hangs(), settings)
serve(app, settings)
"""


@pytest.mark.parametrize(
    ("drain_seconds", "signals", "how", "status"),
    [
        ("0.5", 1, "sleeps", 0),
        ("3600", 2, "sleeps", 0),
        ("0.5", 1, "keeps the lock", -signal.SIGALRM),
    ],
)
def test_a_process_ends_though_its_model_hangs(drain_seconds: str, signals: int, how: str, status: int) -> None:
    """After ``drain_seconds``, or at once at the second signal. A request and a job wait for a batch without end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    paths = os.pathsep.join([str(ROOT / "service"), str(ROOT / "tests" / "helpers")])
    command = [sys.executable, "-c", HANGS, str(port), drain_seconds, how]
    body = {"query": "how?", "documents": ["hang"]}
    answers: list[httpx.Response | httpx.TransportError] = []

    def ask() -> None:
        try:
            answers.append(httpx.post(f"{url}/rerank", json=body, timeout=PATIENCE))
        except httpx.TransportError as error:
            answers.append(error)

    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}) as served:
        try:
            wait_for(lambda: served.poll() is not None or answers_ready(url))
            assert httpx.post(f"{url}/jobs/rerank", json=body).status_code == 202
            asking = threading.Thread(target=ask)
            asking.start()
            wait_for(lambda: "gliclass_rerank_in_flight 1.0" in httpx.get(f"{url}/metrics").text)
            for _ in range(signals):
                served.send_signal(signal.SIGTERM)
                if signals > 1:
                    wait_for(lambda: served.poll() is not None or not answers_ready(url))
            assert served.wait(PATIENCE) == status
        finally:
            served.kill()
    asking.join(PATIENCE)
    (answer,) = answers
    if (signals, how) == (1, "sleeps"):
        assert isinstance(answer, httpx.Response)
        assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")
    else:
        assert isinstance(answer, httpx.TransportError)
