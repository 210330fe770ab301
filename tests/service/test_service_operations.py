"""What operators see: metrics, headers, logs, traces, readiness, settings, OpenAPI."""

from __future__ import annotations

import http.server
import inspect
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import INFO, ConstantScorer, OverlapScorer
from gliclass_rerank_service import Settings, create_app, read_settings
from gliclass_rerank_service.observability import health
from gliclass_rerank_service.observability.logs import JsonFormatter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from serving import GatedScorer, wait_for
from starlette.testclient import TestClient
from typer.testing import CliRunner

from gliclass_rerank import OptionError
from gliclass_rerank.calibration.calibrators import PlattCalibrator
from gliclass_rerank.cli.main import app as command_line
from gliclass_rerank.cli.serve import serve
from gliclass_rerank.cli.worker import worker

BODY = {"query": "red apple", "documents": ["a red apple", "a secret door"]}
PATHS = {
    "/rerank", "/v1/rerank", "/v2/rerank", "/score", "/predict", "/classify", "/route", "/check", "/logits", "/info",
    "/labels", "/v1/embeddings", "/embed", "/jobs/rerank", "/result/{task_id}", "/health", "/ping", "/ready",
    "/metrics", "/v1/systemone", "/v1/decisions", "/v1/models",
}  # fmt: skip


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(create_app(OverlapScorer(embeds=True), Settings())) as made:
        yield made


# Metrics and headers.


def samples(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_metrics_have_teis_names_and_count(client: TestClient) -> None:
    wait_for(lambda: client.get("/ready").status_code == 200)
    before = samples(client)
    for _ in range(3):
        assert client.post("/v2/rerank", json=BODY).status_code == 200
    client.post("/rerank", json={"query": "a", "texts": ["one"]})
    client.post("/rerank", json={"query": "a", "texts": []})
    client.post("/nothing")
    now = samples(client)
    assert now["te_request_count", (("method", "batch"),)] == 3
    assert now["te_request_count", (("method", "single"),)] == 1
    assert now["te_request_success", (("method", "batch"),)] == 3
    assert now["te_request_failure", (("err", "empty"),)] == 1
    assert now["te_request_failure", (("err", "notfound"),)] == 1
    for name in ("te_request_duration", "te_request_queue_duration", "te_request_inference_duration"):
        assert now[f"{name}_count", ()] == 4
    for name in ("te_batch_next_size", "te_batch_next_tokens", "gliclass_rerank_batch_duration"):
        assert now[f"{name}_count", ()] - before[f"{name}_count", ()] == 4
    assert now["te_batch_next_size_sum", ()] - before["te_batch_next_size_sum", ()] == 7
    assert now["te_queue_size", ()] == now["gliclass_rerank_queue_tokens", ()] == 0
    assert now["gliclass_rerank_responses_total", (("route", "/v2/rerank"), ("status", "200"))] == 3
    assert now["gliclass_rerank_responses_total", (("route", "unmatched"), ("status", "404"))] == 1
    assert now["gliclass_rerank_texts_total", ()] - before["gliclass_rerank_texts_total", ()] == 7


def test_requests_in_flight_are_told_while_they_are() -> None:
    scorer = GatedScorer()
    app = create_app(scorer, Settings())
    with TestClient(app) as client, ThreadPoolExecutor(1) as thread:
        wait_for(lambda: client.get("/ready").status_code == 200)
        scorer.gate.clear()
        asked = thread.submit(client.post, "/v2/rerank", json=BODY)
        wait_for(lambda: app.state.service.in_flight == 1)
        assert samples(client)["gliclass_rerank_in_flight", ()] == 1
        scorer.gate.set()
        assert asked.result(30).status_code == 200
        assert samples(client)["gliclass_rerank_in_flight", ()] == 0


def test_two_apps_in_one_process_count_apart(client: TestClient) -> None:
    client.post("/v2/rerank", json=BODY)
    with TestClient(create_app(OverlapScorer(), Settings())) as other:
        assert ("te_request_count", (("method", "batch"),)) not in samples(other)


def test_headers_tell_times_and_tokens(client: TestClient) -> None:
    response = client.post("/v2/rerank", json=BODY, headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == response.json()["id"] == "mine-1"
    times = {name: int(response.headers[f"x-{name}-time"]) for name in ("compute", "total", "queue", "inference")}
    assert times["compute"] == times["total"] >= max(times["queue"], times["inference"]) - 1
    assert int(response.headers["x-compute-tokens"]) == response.json()["usage"]["total_tokens"]
    odd = client.post("/v2/rerank", json=BODY, headers={"x-request-id": "a b\tc"})
    assert odd.headers["x-request-id"] == odd.json()["id"] != "a b\tc"
    assert "x-compute-time" not in client.get("/info").headers


# Readiness.


def test_ready_means_that_the_model_has_answered() -> None:
    scorer = GatedScorer()
    scorer.gate.clear()
    with TestClient(create_app(scorer, Settings())) as client:
        assert client.get("/health").status_code == client.get("/ping").status_code == 200
        response = client.get("/ready")
        assert response.status_code == 503
        assert response.json()["error_type"] == "Unhealthy"
        scorer.gate.set()
        wait_for(lambda: client.get("/ready").status_code == 200)
        client.app.state.service.draining = True  # type: ignore[attr-defined]
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        refused = client.post("/v2/rerank", json=BODY)
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"


@pytest.mark.parametrize("error", [OptionError("a secret"), ZeroDivisionError("a secret"), BaseException("a secret")])
def test_a_model_that_fails_at_first_is_ready_when_it_answers(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(OverlapScorer):
        failures = 2

        def score(self, requests: Any) -> Any:
            if self.failures:
                self.failures -= 1
                raise error
            return super().score(requests)

    monkeypatch.setattr(health, "FIRST_PAUSE", 0.01)
    with TestClient(create_app(Late(), Settings())) as client:
        wait_for(lambda: client.get("/ready").status_code == 200)
    told = [JsonFormatter().format(one) for one in caplog.records if "does not answer" in one.getMessage()]
    assert len(told) == 2
    assert all(type(error).__name__ in line and "secret" not in line for line in told)


def test_a_model_that_cannot_answer_is_never_ready() -> None:
    class Broken(ConstantScorer):
        def score(self, requests: Any) -> Any:
            raise OptionError("no weights")

    with TestClient(create_app(Broken(0.0), Settings())) as client:
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200


# Logs.


def test_logs_are_json_and_hold_no_text(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/v2/rerank", json=BODY, headers={"x-request-id": "r1", "authorization": "Bearer my-own-key"})
    client.post("/v2/rerank", json=BODY | {"documents": ["a secret\0"]})
    client.post("/v2/rerank", content=b'{"query": "a secret', headers={"content-type": "application/json"})
    client.get("/result/secret")
    told = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    mine = [one for one in told if one["logger"] == "gliclass_rerank.service" and one["message"] == "request"]
    assert [one["status"] for one in mine] == [200, 422, 400, 404]
    first = mine[0]
    assert (first["request_id"], first["method"], first["route"]) == ("r1", "POST", "/v2/rerank")
    assert (first["texts"], first["level"]) == (2, "info")
    assert first["total_ms"] >= first["inference_ms"] >= 0
    assert mine[3]["route"] == "/result/{task_id}"
    ours = json.dumps([one for one in told if one["logger"].startswith(("gliclass", "uvicorn", "fastapi"))])
    assert not any(word in ours for word in ("secret", "apple", "my-own-key"))


def test_an_unexpected_error_is_told_without_its_message() -> None:
    class Broken(PlattCalibrator):
        def _mapped(self, logits: Any) -> Any:
            raise ValueError("secret")

    scorer = OverlapScorer()
    scorer.info = replace(INFO, calibration={"relevance": Broken(1.0, 0.0)})
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    lines: list[str] = []
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("gliclass_rerank.service")
    logger.addHandler(handler)
    try:
        with TestClient(create_app(scorer, Settings())) as client:
            response = client.post("/v2/rerank", json=BODY)
    finally:
        logger.removeHandler(handler)
    assert response.status_code == 500
    assert response.json()["error_type"] == "Backend"
    told = next(one for one in map(json.loads, lines) if one["message"] == "unexpected error")
    assert told["error"] == "ValueError"
    assert any("rerank.py" in frame for frame in told["frames"])


# Traces.


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    received: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:  # the base class names it so
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_traces_go_to_a_collector_with_queue_and_inference_below_the_request() -> None:
    Collector.received = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    trace = "0af7651916cd43dd8448eb211c80319c"
    with TestClient(create_app(OverlapScorer(), Settings(otlp_endpoint=endpoint))) as client:
        client.post("/v2/rerank", json=BODY, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    server.shutdown()
    spans = [
        span for one in Collector.received for resource in one.resource_spans for scope in resource.scope_spans
        for span in scope.spans
    ]  # fmt: skip
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"POST /v2/rerank", "queue", "inference"}
    request = by_name["POST /v2/rerank"]
    assert request.trace_id.hex() == trace
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    for name in ("queue", "inference"):
        span = by_name[name]
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    assert "apple" not in str(spans)


# Settings.


def test_flags_go_before_environment_before_file_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service.toml"
    file.write_text('port = 1\nhost = "h"\nmax_texts = 3\napi_keys = ["k1", "k2"]\n', "utf-8")
    monkeypatch.setenv("GLICLASS_RERANK_PORT", "2")
    monkeypatch.setenv("GLICLASS_RERANK_MAX_TEXTS", "4")
    monkeypatch.setenv("GLICLASS_RERANK_BROKER_URL", "")
    read = read_settings(file, {"port": 5, "host": None})
    assert (read.port, read.max_texts, read.host, read.model) == (5, 4, "h", "mini")
    assert [key.get_secret_value() for key in read.api_keys] == ["k1", "k2"]
    assert read.broker_url is None
    monkeypatch.setenv("GLICLASS_RERANK_CONFIG", str(file))
    monkeypatch.setenv("GLICLASS_RERANK_API_KEY", "alone")
    named = read_settings()
    assert (named.port, named.host) == (2, "h")
    assert [key.get_secret_value() for key in named.api_keys] == ["alone"]
    assert "alone" not in repr(named)


@pytest.mark.parametrize(
    ("several", "single", "keys"),
    [
        ("", "secret", ["secret"]),
        ("a, b", "secret", ["a", "b", "secret"]),
        ("a,", "", ["a"]),
        ("", "", ["of the file"]),
        (None, None, ["of the file"]),
    ],
)
def test_keys_of_both_variables_count(
    several: str | None, single: str | None, keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty variable is as one that is not set, since compose files cannot leave one out."""
    file = tmp_path / "service.toml"
    file.write_text('api_keys = ["of the file"]\n', "utf-8")
    for name, value in (("API_KEYS", several), ("API_KEY", single)):
        if value is not None:
            monkeypatch.setenv(f"GLICLASS_RERANK_{name}", value)
    assert [key.get_secret_value() for key in read_settings(file).api_keys] == keys


@pytest.mark.parametrize("value", [",", " ", " , ,"])
@pytest.mark.parametrize("name", ["GLICLASS_RERANK_API_KEYS", "GLICLASS_RERANK_API_KEY"])
def test_a_variable_without_a_key_opens_nothing(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match="api_keys"):
        read_settings()


def test_an_empty_key_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text('api_keys = [""]\n', "utf-8")
    with pytest.raises(OptionError, match="api_keys"):
        read_settings(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "prot"),
        ("port = -1", "port"),
        ("port = ", "TOML"),
        ('log_level = "loud"', "log_level"),
        ('passage_cache = "much"', "passage_cache.*500MB"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "service.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(OptionError, match=says):
        read_settings(file)
    with pytest.raises(OptionError, match="absent"):
        read_settings(tmp_path / "absent.toml")


def test_errors_of_settings_show_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLICLASS_RERANK_API_KEYS", "my-own-key")
    monkeypatch.setenv("GLICLASS_RERANK_PORT", "x")
    with pytest.raises(OptionError) as raised:
        read_settings()
    assert "my-own-key" not in str(raised.value)


def test_the_command_names_its_options_and_refuses_bad_ones() -> None:
    told = CliRunner().invoke(command_line, ["serve", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--model", "--host", "--port", "--api-key-file", "--config", "--threads", "--passage-cache"):
        assert option in told
    refused = CliRunner().invoke(command_line, ["serve", "--port", "99999"])
    assert isinstance(refused.exception, OptionError)


@pytest.mark.parametrize(("command", "own"), [(serve, {"ray"}), (worker, {"processes"})])
def test_options_of_the_commands_are_settings_by_their_names(command: Callable[..., None], own: set[str]) -> None:
    options = inspect.signature(command).parameters.keys() - {"context", "config"}
    assert options - Settings.model_fields.keys() == own


# OpenAPI.


def test_every_operation_is_described_with_its_errors_and_examples(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == PATHS
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert operation["description"], path
            if method != "post":
                continue
            statuses = set(operation["responses"])
            assert {"400", "401", "408", "413", "422", "424", "429", "503", "504"} <= statuses, path
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            for reference in [one["$ref"] for one in body.get("oneOf", [body])]:
                schema = described["components"]["schemas"][reference.rsplit("/", 1)[1]]
                assert schema["examples"], path
                for example in schema["examples"]:
                    assert client.post(path, json=example).status_code in (200, 202), (path, example)
    retry = described["paths"]["/rerank"]["post"]["responses"]["429"]["headers"]
    assert "Retry-After" in retry
    assert client.get("/docs").status_code == 200
