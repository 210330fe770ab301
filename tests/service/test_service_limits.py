"""What the service refuses, and how: errors that every client reads, keys, limits, deadlines, clients that left."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkpoints import build_independent
from fakes import OverlapScorer
from fastapi import routing
from fastapi.exceptions import RequestValidationError
from gliclass_rerank_service import BatchingScorer, Settings, create_app, task_runner
from gliclass_rerank_service.service import Service
from serving import GatedScorer, post, running, wait_for
from starlette.testclient import TestClient

from gliclass_rerank import ScoreRequest, load_scorer

BODY = {"query": "red apple", "documents": ["a red apple", "a door"]}
BODY_FIELDS = {"id", "message", "detail", "error", "error_type"}
JSON = {"Content-Type": "application/json"}


def check_refused(response: Any, status: int, error_type: str) -> str:
    """The body that satisfies every client, of this kind; returns its message."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == BODY_FIELDS
    assert body["error_type"] == error_type
    assert body["message"] == body["detail"] == body["error"] != ""
    assert body["id"] == response.headers["x-request-id"]
    message: str = body["message"]
    return message


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    settings = Settings(max_texts=8, max_request_tokens=500)
    with TestClient(create_app(OverlapScorer(embeds=True), settings)) as made:
        yield made


# Requests that cannot be answered.


@pytest.mark.parametrize(
    ("path", "body", "status", "error_type"),
    [
        ("/v2/rerank", BODY | {"documents": []}, 400, "Empty"),
        ("/v2/rerank", {"query": "a"}, 400, "Empty"),
        ("/rerank", {"query": "a", "texts": []}, 400, "Empty"),
        ("/rerank", {"query": "a", "texts": ["a"], "documents": ["a"]}, 422, "Validation"),
        ("/v2/rerank", {"documents": ["a"]}, 422, "Validation"),
        ("/v2/rerank", BODY | {"query": "  "}, 422, "Tokenizer"),
        ("/v2/rerank", BODY | {"documents": ["a", "b\0"]}, 422, "Tokenizer"),
        ("/v2/rerank", BODY | {"documents": ["a", 3]}, 422, "Validation"),
        ("/v2/rerank", BODY | {"documents": [{"title": "a"}]}, 422, "Validation"),
        ("/v2/rerank", BODY | {"top_n": -1}, 422, "Validation"),
        ("/v2/rerank", BODY | {"return_documents": "perhaps"}, 422, "Validation"),
        ("/v2/rerank", BODY | {"relevant_spans": {"mode": "enabled", "threshold": 2}}, 422, "Validation"),
        ("/v2/rerank", BODY | {"long_text": "cut"}, 422, "Validation"),
        ("/v2/rerank", BODY | {"documents": ["a"] * 9}, 413, "Validation"),
        ("/v2/rerank", BODY | {"documents": ["many words " * 300]}, 413, "Validation"),
        ("/v2/rerank", [BODY], 422, "Validation"),
        ("/score", {"queries": ["a", "b"], "documents": ["c"]}, 422, "Validation"),
        ("/score", {"queries": "a"}, 422, "Validation"),
        ("/score", {"queries": "a", "documents": []}, 400, "Empty"),
        ("/predict", {"inputs": []}, 400, "Empty"),
        ("/predict", {"inputs": "alone"}, 422, "Validation"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation"),
        ("/classify", {"text": "a", "texts": ["b"], "labels": ["c"]}, 422, "Validation"),
        ("/classify", {"text": "a"}, 422, "Validation"),
        ("/classify", {"texts": [], "labels": ["c"]}, 400, "Empty"),
        ("/classify", {"text": "a", "labels": ["c", 3]}, 422, "Tokenizer"),
        ("/classify", {"text": "a", "labels": ["c"], "hierarchical": True}, 422, "Validation"),
        ("/classify", {"text": "a", "labels": ["c"], "examples": ["b"]}, 422, "Validation"),
        ("/route", {"query": "a", "routes": []}, 422, "Validation"),
        ("/route", {"query": "a", "queries": ["b"], "routes": {"c": ""}}, 422, "Validation"),
        ("/route", {"queries": [], "routes": {"c": ""}}, 400, "Empty"),
        ("/check", {"answer": "a", "evidence": []}, 400, "Empty"),
        ("/check", {"answer": "", "evidence": "b"}, 422, "Tokenizer"),
        ("/v1/embeddings", {"input": ["a"] * 9}, 413, "Validation"),
        ("/embed", {"inputs": ["a"] * 9}, 413, "Validation"),
        ("/embed", {"inputs": "many words " * 300}, 413, "Validation"),
        ("/logits", {"requests": []}, 400, "Empty"),
        ("/logits", {"requests": [{"text": "a", "labels": []}]}, 422, "Validation"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_said(
    client: TestClient, path: str, body: Any, status: int, error_type: str
) -> None:
    check_refused(client.post(path, json=body), status, error_type)


MANY = 2000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/rerank", {"query": "a", "documents": [1] * MANY}),
        ("/v2/rerank", {"query": "a", "documents": [{"a": [1]}] * MANY, "rank_fields": [1] * MANY}),
        ("/rerank", {"query": "a", "texts": [1] * MANY}),
        ("/score", {"queries": [1] * MANY, "documents": [[]] * MANY, "text_1": [1] * MANY, "text_2": [1] * MANY}),
        ("/predict", {"inputs": [[1] * MANY] * 2}),
        ("/predict", {"inputs": [1] * MANY, "labels": [1] * MANY}),
        ("/classify", {"texts": [1] * MANY, "input": [1] * MANY, "prompt": [1] * MANY}),
        ("/classify", {"text": "a", "labels": ["b"], "threshold": {str(i): "x" for i in range(MANY)}}),
        ("/route", {"queries": [1] * MANY, "routes": {str(i): 1 for i in range(MANY)}}),
        ("/route", {"query": "a", "routes": [{"name": "b", "examples": [1] * MANY}] * 2}),
        ("/check", {"answer": "a", "evidence": [1] * MANY, "keep": [1] * MANY}),
        ("/v1/embeddings", {"input": ["a", *[1] * MANY]}),
        ("/embed", {"inputs": [1] * MANY}),
        ("/logits", {"requests": [{"labels": [1] * MANY, "examples": [{"labels": [1] * MANY}] * 2}] * 2}),
    ],
)
def test_of_many_wrong_elements_the_first_is_told_and_no_other(
    client: TestClient, path: str, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error for each would be what a small body stops the service with."""
    counts: list[int] = []

    class CountedError(RequestValidationError):
        def __init__(self, errors: Sequence[Any], **options: Any) -> None:
            super().__init__(errors, **options)
            counts.append(len(errors))

    monkeypatch.setattr(routing, "RequestValidationError", CountedError)
    check_refused(client.post(path, json=body), 422, "Validation")
    assert counts
    assert counts[0] <= 12


WORDS = "is it so " * 50  # 450 bytes; a hundred times as many are beyond the 500 tokens of this service


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/check", {"answer": "It is so. " * 100, "evidence": ["a"] * 8}),
        ("/v2/rerank", {"query": WORDS, "documents": ["a"] * 8}),
        ("/score", {"queries": WORDS, "documents": ["a"] * 8}),
        ("/score", {"queries": [WORDS] * 8, "documents": ["a"] * 8}),
        ("/predict", {"inputs": [[WORDS, "a"]] * 8}),
        ("/classify", {"texts": ["a"] * 8, "labels": [WORDS]}),
        ("/classify", {"text": "a", "labels": {"b" * 100: [str(i) for i in range(50)]}}),
        ("/classify", {"texts": ["a"] * 8, "labels": ["b"], "prompt": WORDS}),
        ("/classify", {"texts": ["a"] * 8, "labels": ["b"], "examples": [{"text": WORDS, "labels": ["b"]}]}),
        ("/route", {"queries": ["a"] * 8, "routes": {"b": WORDS}}),
        ("/route", {"query": WORDS, "routes": {f"r{i}": "" for i in range(40)}}),  # read one by one
        ("/route", {"query": WORDS, "routes": [{"name": "b", "examples": [f"e{i}" for i in range(8)]}]}),
        ("/logits", {"requests": [{"text": "a", "labels": ["b"], "prompt": WORDS}] * 8}),
        ("/v1/embeddings", {"input": [WORDS] * 8}),
        ("/embed", {"inputs": [WORDS] * 8}),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_built(client: TestClient, path: str, body: Any) -> None:
    """Both sides count; nothing of it comes so far as to be counted by what it really is."""
    before = client.get("/metrics").text.count("te_request_count{")
    response = client.post(path, json=body)
    assert "tokens" in check_refused(response, 413, "Validation")
    assert "x-compute-tokens" not in response.headers
    assert client.get("/metrics").text.count("te_request_count{") == before


def test_sentences_are_counted_before_they_are_scored(client: TestClient) -> None:
    spans = {"mode": "enabled"}
    short = {"query": "q " * 50, "documents": ["It is. " * 2], "relevant_spans": spans}
    assert client.post("/v2/rerank", json=short).status_code == 200
    response = client.post("/v2/rerank", json=short | {"documents": ["It is. " * 40]})
    assert "tokens" in check_refused(response, 413, "Validation")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/rerank", BODY | {"documents": ["a red apple " * 20] * 2}),
        ("/check", {"answer": "It is so. " * 4, "evidence": ["It is so. " * 4] * 3}),
        ("/route", {"queries": ["a red apple"] * 4, "routes": {f"r{i}": "red" for i in range(20)}}),
        ("/classify", {"texts": ["a red apple"] * 8, "labels": [["red", "green"]] * 8}),
        ("/v1/embeddings", {"input": ["a red apple"] * 8}),
    ],
)
def test_what_is_handled_on_a_thread_is_answered_alike(path: str, body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for inline in (10**6, 0):
        monkeypatch.setattr(task_runner, "INLINE_TOKENS", inline)
        with TestClient(create_app(OverlapScorer(embeds=True), Settings())) as made:
            response = made.post(path, json=body, headers={"x-request-id": "r"})
            assert response.status_code == 200
            answers.append({key: value for key, value in response.json().items() if key != "created"})
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b'{"query": "a", "documents": ["b"], "x": NaN}',
        b'{"query": "a", "documents": ["b"], "x": Infinity}',
        b'{"query": "\\ud800", "documents": ["b"]}',
        b'{"query": "a", "documents": ["\xff"]}',
        b'{"query": "a", "documents": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5000 + b"}",
        b'{"query": "a", "documents": ["b"]} and more',
    ],
)
def test_what_is_no_json_is_400(client: TestClient, raw: bytes) -> None:
    check_refused(client.post("/v2/rerank", content=raw, headers=JSON), 400, "Validation")


def test_nothing_at_all_is_422(client: TestClient) -> None:
    check_refused(client.post("/v2/rerank"), 422, "Validation")


def test_numbers_beyond_all_floats_do_no_harm(client: TestClient) -> None:
    raw = b'{"query": "a", "documents": ["b"], "relevant_spans": {"mode": "enabled", "threshold": 1e999}}'
    check_refused(client.post("/v2/rerank", content=raw, headers=JSON), 422, "Validation")
    raw = b'{"query": "a", "rank_fields": ["x"], "documents": [{"x": 1e999}]}'
    check_refused(client.post("/v2/rerank", content=raw, headers=JSON), 422, "Validation")


def test_another_content_type_is_named(client: TestClient) -> None:
    message = check_refused(client.post("/v2/rerank", content=json.dumps(BODY)), 422, "Validation")
    assert "Content-Type" in message


def test_the_message_does_not_repeat_what_was_sent(client: TestClient) -> None:
    body = BODY | {"documents": [{"text": ["my secret"]}], "top_n": "my secret"}
    assert "secret" not in check_refused(client.post("/v2/rerank", json=body), 422, "Validation")


def test_unknown_paths_and_methods_have_the_same_body(client: TestClient) -> None:
    check_refused(client.get("/nothing"), 404, "NotFound")
    response = client.get("/v2/rerank")
    check_refused(response, 405, "MethodNotAllowed")
    assert response.headers["allow"] == "POST"


def test_another_model_is_refused_only_where_that_is_wanted() -> None:
    with TestClient(create_app(OverlapScorer(), Settings(strict_model=True))) as client:
        check_refused(client.post("/v2/rerank", json=BODY | {"model": "other"}), 404, "NotFound")
        for name in ("overlap", None, ""):
            assert client.post("/v2/rerank", json=BODY | {"model": name}).status_code == 200


# Keys.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text("# ours\n\nfirst-key\n  second-key  \n", "utf-8")
    with TestClient(create_app(OverlapScorer(), Settings(api_key_file=file, api_keys="third-key, fourth-key"))) as made:  # type: ignore[arg-type]
        yield made


@pytest.mark.parametrize("shown", ["Bearer first-key", "bearer second-key", "third-key", "Bearer  fourth-key "])
def test_a_key_opens_in_every_form_that_clients_send(guarded: TestClient, shown: str) -> None:
    assert guarded.post("/v2/rerank", json=BODY, headers={"Authorization": shown}).status_code == 200


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer ", "first-ke", "Bearer first-key2", "# ours", "Basic first-key"]
)
def test_without_a_key_there_is_nothing_but_operations(guarded: TestClient, shown: str | None) -> None:
    headers = {} if shown is None else {"Authorization": shown}
    for path in ("/v2/rerank", "/logits", "/predict", "/nothing"):
        response = guarded.post(path, json=BODY, headers=headers)
        check_refused(response, 401, "Unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/info", "/docs", "/openapi.json", "/result/x"):
        check_refused(guarded.get(path, headers=headers), 401, "Unauthorized")
    for path in ("/health", "/ping", "/ready", "/metrics"):
        assert guarded.get(path, headers=headers).status_code in (200, 503)


def test_a_file_without_keys_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# none yet\n", "utf-8")
    for named in (file, tmp_path / "absent.txt"):
        with pytest.raises(ValueError, match="api_key_file"):
            create_app(OverlapScorer(), Settings(api_key_file=named))


# Bodies that are too large, or too slow.


def send(url: str, head: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(30)
    connection.sendall(
        f"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n\r\n".encode()
    )
    return connection


def test_a_large_body_is_refused_while_it_is_sent() -> None:
    with running(create_app(OverlapScorer(), Settings(max_body_bytes=10_000))) as url:
        connection = send(url, "Transfer-Encoding: chunked")
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
        sent = 0
        while sent < 30:  # never ended, so that no answer could wait for the end
            try:
                connection.sendall(chunk)
            except ConnectionError:
                break
            sent += 1
        answer = connection.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 413")
        announced = send(url, "Content-Length: 99999999999")
        assert announced.recv(65536).decode().startswith("HTTP/1.1 413")
        fitting = httpx.post(f"{url}/v2/rerank", json=BODY | {"pad": " " * 9_000})
        assert fitting.status_code == 200


def test_a_slow_body_is_refused() -> None:
    with running(create_app(OverlapScorer(), Settings(timeout_seconds=0.3))) as url:
        connection = send(url, "Content-Length: 100")
        assert connection.recv(65536).decode().startswith("HTTP/1.1 408")


# Time, load, and clients that leave.


def occupied(app: Any, scorer: GatedScorer) -> threading.Thread:
    """Let one request wait in the model, with the gate closed."""
    scorer.gate.clear()
    scorer.entered.clear()
    service: Service = app.state.service
    thread = threading.Thread(target=lambda: service.scorer.score([_request("first")]))
    thread.start()
    assert scorer.entered.wait(30)
    return thread


def asked(url: str) -> threading.Thread:
    """A client that waits for its answer."""
    thread = threading.Thread(target=httpx.post, args=(f"{url}/v2/rerank",), kwargs={"json": BODY, "timeout": 30})
    thread.start()
    return thread


def _request(text: str) -> ScoreRequest:
    return ScoreRequest(text, ("label",))


def test_what_takes_too_long_is_504_and_never_computed() -> None:
    scorer = GatedScorer()
    app = create_app(scorer, Settings(timeout_seconds=0.3))
    with running(app) as url:
        first = occupied(app, scorer)
        check_refused(httpx.post(f"{url}/v2/rerank", json=BODY, timeout=30), 504, "Backend")
        scorer.gate.set()
        first.join()
        assert len(app.state.service.scorer.score([_request("later")])) == 1  # without a deadline
    assert "a door" not in scorer.texts
    assert "later" in scorer.texts


def test_nothing_is_computed_for_a_client_that_has_left() -> None:
    scorer = GatedScorer()
    app = create_app(scorer, Settings())
    service: Service = app.state.service
    with running(app) as url:
        first = occupied(app, scorer)
        body = json.dumps(BODY)
        connection = send(url, f"Content-Length: {len(body)}")
        connection.sendall(body.encode())
        wait_for(lambda: service.scorer.stats().queue_submissions == 1)
        connection.close()
        wait_for(lambda: service.scorer.stats().queue_submissions == 0)
        wait_for(lambda: service.in_flight == 0)
        scorer.gate.set()
        first.join()
    assert "a door" not in scorer.texts


def test_a_full_queue_is_429_with_the_time_to_wait() -> None:
    scorer = GatedScorer()
    app = create_app(scorer, Settings(max_queue_tokens=20))
    service: Service = app.state.service
    with running(app) as url:
        first = occupied(app, scorer)
        waiting = [asked(url) for _ in range(2)]
        wait_for(lambda: service.scorer.stats().queue_submissions == 2)
        response = httpx.post(f"{url}/v2/rerank", json=BODY, timeout=30)
        check_refused(response, 429, "Overloaded")
        assert int(response.headers["retry-after"]) >= 1
        scorer.gate.set()
        for thread in (first, *waiting):
            thread.join()


def test_no_more_requests_are_held_than_may_be() -> None:
    scorer = GatedScorer()
    app = create_app(scorer, Settings(max_concurrent_requests=1))
    with running(app) as url:
        first = occupied(app, scorer)
        held = asked(url)
        wait_for(lambda: app.state.service.in_flight == 1)
        response = httpx.post(f"{url}/v2/rerank", json=BODY, timeout=30)
        check_refused(response, 429, "Overloaded")
        assert response.headers["retry-after"] == "1"
        assert httpx.get(f"{url}/health").status_code == 200
        scorer.gate.set()
        first.join()
        held.join()


def test_a_request_that_fails_unexpectedly_is_held_no_longer() -> None:
    app = create_app(OverlapScorer(), Settings(max_concurrent_requests=1))

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError

    with TestClient(app) as client:
        for _ in range(2):
            check_refused(client.get("/broken"), 500, "Backend")
        assert client.post("/v2/rerank", json=BODY).status_code == 200
    assert app.state.service.in_flight == 0


def test_hundreds_of_requests_wait_without_a_thread_each() -> None:
    scorer = GatedScorer()
    app = create_app(scorer, Settings())
    service: Service = app.state.service

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = [asyncio.ensure_future(client.post("/v2/rerank", json=BODY)) for _ in range(300)]
            while service.scorer.stats().queue_submissions < 300:
                await asyncio.sleep(0.01)
            threads = threading.active_count()
            scorer.gate.set()
            return [threads, *(response.status_code for response in await asyncio.gather(*asked))]

    first = occupied(app, scorer)
    before = threading.active_count()
    threads, *statuses = asyncio.run(ask())
    first.join()
    service.close()
    assert threads <= before + 1
    assert statuses == [200] * 300


def test_a_model_that_panics_fails_its_request_alone() -> None:
    class Panic(BaseException):
        pass

    class Panicking(OverlapScorer):
        def score(self, requests: Any) -> Any:
            if any("door" in request.text for request in requests):
                raise Panic("a door is in it")
            return super().score(requests)

    with TestClient(create_app(Panicking(), Settings())) as client:
        message = check_refused(client.post("/v2/rerank", json=BODY), 424, "Backend")
        assert "door" not in message
        assert client.post("/v2/rerank", json=BODY | {"documents": ["apple"]}).status_code == 200


def test_a_batching_scorer_is_used_as_it_is() -> None:
    batching = BatchingScorer(OverlapScorer(), max_queue_tokens=7)
    app = create_app(batching, Settings())
    assert app.state.service.scorer is batching
    with TestClient(app) as client:
        assert client.post("/v2/rerank", json=BODY).status_code == 200
    with pytest.raises(Exception, match="closed"):
        batching.score([_request("x")])


def test_examples_count_once_where_they_are_compared_by_vectors(tmp_path: Path) -> None:
    routes = [{"name": f"way {i}", "examples": [f"a question {i}"]} for i in range(40)]
    body, settings = {"queries": ["a question of music"] * 2, "routes": routes}, Settings(max_request_tokens=900)
    with TestClient(create_app(OverlapScorer(), settings)) as joint:  # a pass for each query and example
        check_refused(joint.post("/route", json=body), 413, "Validation")
    with TestClient(create_app(load_scorer(build_independent(tmp_path)), settings)) as independent:
        post(independent, "/route", **body)
