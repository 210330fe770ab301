"""Decisions over HTTP: answers of the library in both formats, refusals in each format, compressed bodies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from fakes import OverlapScorer
from gliclass_rerank_service import Settings, create_app
from starlette.testclient import TestClient

from gliclass_rerank import Choice, Decider, Noul, Score
from gliclass_rerank.tasks.decide.answers import ChoiceAnswer, NoulAnswer, ScoreAnswer

STATE = "the invoice was paid twice and the parcel never came"
QUESTIONS: dict[str, Any] = {
    "paid. twice?": {"type": "noul", "instructions": "paid", "criteria": {"true": "twice", "false": None}},
    "🙂": {"type": "choice", "instructions": ["the"], "criteria": {"invoice": None, "parcel": {"k": "came"}}},
    "level": {"type": "score", "criteria": ["nothing", {"paid": ["twice"]}]},
}
SYSTEMONE: dict[str, Any] = {"model": "jev-latest", "state": STATE, "questions": QUESTIONS}
PREDICATE = {"type": "predicate", "instructions": "paid"}
OPENAI: dict[str, Any] = {"model": "any", "input": STATE, "questions": [PREDICATE]}
FAILURE = {"error_type", "message"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(OverlapScorer(), Settings(max_request_tokens=20_000, max_body_bytes=200_000))) as made:
        yield made


def answers(client: TestClient, path: str, body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()["answers"]


def refused(client: TestClient, path: str, body: Any, status: int) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    return response.json()


# TypeSafe's format.


@pytest.mark.parametrize("path", ["/v1/systemone", "/v1/decisions"])
def test_systemone_gives_the_deciders_answers(client: TestClient, path: str) -> None:
    response = client.post(path, json=SYSTEMONE | {"x_trace_id": "t", "seed": 7})
    assert response.status_code == 200, response.text
    expected = Decider(OverlapScorer()).decide(
        STATE,
        {
            "paid. twice?": Noul("paid", "twice"),
            "🙂": Choice(["the"], {"invoice": None, "parcel": {"k": "came"}}),
            "level": Score(None, ["nothing", {"paid": ["twice"]}]),
        },
    )
    noul, choice, score = expected.values()
    assert isinstance(noul, NoulAnswer)
    assert isinstance(choice, ChoiceAnswer)
    assert isinstance(score, ScoreAnswer)
    assert response.json() == {
        "model": "overlap",
        "answers": {
            "paid. twice?": {"type": "noul", "noul": noul.probability},
            "🙂": {
                "type": "choice",
                "choice": choice.choice,
                "probabilities": dict(choice.probabilities),
                "confidence": choice.confidence,
            },
            "level": {
                "type": "score",
                "score": score.score,
                "legend": {"0": "nothing", "1": {"paid": ["twice"]}},
                "probabilities": {"0": score.probabilities[0], "1": score.probabilities[1]},
                "confidence": score.confidence,
            },
        },
        "usage": {"input_tokens": response.json()["usage"]["input_tokens"], "output_tokens": 0},
    }
    assert response.json()["usage"]["input_tokens"] > 0
    assert response.headers["x-typesafe-request-id"] == response.headers["x-request-id"] != ""


def test_states_may_be_objects_and_messages(client: TestClient) -> None:
    choice = {"q": {"type": "choice", "criteria": {"user: paid": None, "parcel": None}}}
    messages = [{"role": "user", "content": "paid"}]
    found = answers(client, "/v1/systemone", SYSTEMONE | {"state": messages, "questions": choice})
    assert found == answers(client, "/v1/systemone", SYSTEMONE | {"state": "user: paid", "questions": choice})
    assert found["q"]["choice"] == "user: paid"
    assert answers(client, "/v1/systemone", SYSTEMONE | {"state": {"a": 1}, "questions": choice})


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in SYSTEMONE.items() if key != name}


def one(question: Any) -> dict[str, Any]:
    return SYSTEMONE | {"questions": {"q": question}}


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        (without("model"), ["model"], "Field required"),
        (without("state"), ["state"], "Field required"),
        (without("questions"), ["questions"], "Field required"),
        (SYSTEMONE | {"state": 3}, ["state"], "expected a text, an object or an array, got int"),
        (SYSTEMONE | {"state": None}, ["state"], "got NoneType"),
        (SYSTEMONE | {"state": ""}, [], "state: expected some text"),
        (SYSTEMONE | {"questions": {}}, ["questions"], "at least 1 item"),
        (SYSTEMONE | {"questions": {"": QUESTIONS["level"]}}, ["questions", "", "[key]"], "at least 1 character"),
        (SYSTEMONE | {"questions": {str(i): QUESTIONS["level"] for i in range(401)}}, ["questions"], "at most 400"),
        (SYSTEMONE | {"assets": {"a": {"type": "image"}}}, ["assets"], "this model reads no images"),
        (one({"instructions": "a"}), ["questions", "q"], "discriminator 'type'"),
        (one({"type": "boolean", "instructions": "a"}), ["questions", "q"], "'boolean'"),
        (one({"type": "box", "instructions": "a"}), [], "question 'q': type: expected 'noul', 'choice' or 'score'"),
        (one({"type": "noul"}), [], "question 'q': noul: expected instructions"),
        (one({"type": "noul", "instructions": 3}), ["questions", "q", "noul", "instructions"], "got int"),
        (one({"type": "noul", "criteria": []}), ["questions", "q", "noul", "criteria"], "valid dictionary"),
        (one({"type": "choice"}), ["questions", "q", "choice", "criteria"], "Field required"),
        (one({"type": "choice", "criteria": {}}), ["questions", "q", "choice", "criteria"], "at least 1 item"),
        (one({"type": "choice", "criteria": ["a"]}), ["questions", "q", "choice", "criteria"], "valid dictionary"),
        (
            one({"type": "choice", "criteria": {str(i): None for i in range(256)}}),
            ["questions", "q", "choice", "criteria"],
            "expected at most 255, got 256",
        ),
        (one({"type": "score", "criteria": {"0": "a"}}), ["questions", "q", "score", "criteria"], "valid list"),
        (one({"type": "score", "criteria": ["a", None]}), ["questions", "q", "score", "criteria", 1], "got NoneType"),
        ([], [], "valid dictionary"),
    ],
)
def test_a_wrong_systemone_request_is_422_and_names_the_field(
    client: TestClient, body: Any, place: list[Any], message: str
) -> None:
    detail = refused(client, "/v1/systemone", body, 422)["detail"]
    assert set(detail[0]) == {"loc", "msg", "type"}
    assert detail[0]["loc"] == ["body", *place]
    assert message in detail[0]["msg"]
    if isinstance(body, dict) and "state" in body:
        assert refused(client, "/v1/decisions", body, 422)["detail"] == detail


def test_images_in_messages_are_refused(client: TestClient) -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    body = SYSTEMONE | {"state": [{"role": "user", "content": content}]}
    assert "reads texts only" in refused(client, "/v1/systemone", body, 422)["detail"][0]["msg"]


def test_too_much_is_413_with_typesafes_name_for_it(client: TestClient) -> None:
    for text in ("word " * 20_000, "word " * 50_000):  # more tokens, and more bytes
        failure = refused(client, "/v1/systemone", SYSTEMONE | {"state": text}, 413)["detail"]
        assert set(failure) == FAILURE
        assert failure["error_type"] == "max_tokens_exceeded"
        assert refused(client, "/v1/decisions", OPENAI | {"input": text}, 413)["error"]["code"] == "max_tokens_exceeded"


def test_a_label_that_does_not_fit_is_never_cut(client: TestClient) -> None:
    long = {"q": {"type": "choice", "criteria": {"a\0": None}}}
    assert "NUL" in refused(client, "/v1/systemone", SYSTEMONE | {"questions": long}, 422)["detail"][0]["msg"]


# OpenAI's format.


def test_decisions_gives_the_deciders_answers_in_order(client: TestClient) -> None:
    body = OPENAI | {
        "questions": [
            {"type": "score", "name": "s", "instructions": "the", "levels": [
                {"label": "nothing"}, {"label": "paid", "description": "paid twice"},
            ]},
            {"type": "predicate", "instructions": [
                {"type": "input_text", "text": "was it"}, {"type": "input_json", "data": {"paid": True}},
            ]},
            {"type": "choice", "name": "", "instructions": "the", "choices": [
                {"value": "invoice", "description": "paid"}, {"value": True}, {"value": "none"},
            ]},
        ],
        "prompt_cache_key": None,
        "prompt_cache_options": {"mode": "implicit"},
    }  # fmt: skip
    response = client.post("/v1/decisions", json=body)
    assert response.status_code == 200, response.text
    score, noul, choice = (
        Decider(OverlapScorer())
        .decide(
            STATE,
            {
                "s": Score("the", ["nothing", "paid: paid twice"]),
                "n": Noul('was it\n\n{"paid": true}'),
                "c": Choice("the", {"invoice": "paid", "true": None, "none": None}),
            },
        )
        .values()
    )
    assert isinstance(noul, NoulAnswer)
    assert isinstance(choice, ChoiceAnswer)
    assert isinstance(score, ScoreAnswer)
    told = response.json()
    assert told["answers"] == [
        {"type": "score", "name": "s", "score": score.score, "confidence": score.confidence, "probabilities": [
            {"value": 0, "label": "nothing", "probability": score.probabilities[0]},
            {"value": 1, "label": "paid", "probability": score.probabilities[1]},
        ]},
        {"type": "predicate", "name": None, "probability": noul.probability},
        {"type": "choice", "name": "", "choice": "invoice", "confidence": choice.confidence, "probabilities": [
            {"value": "invoice", "probability": choice.probabilities["invoice"]},
            {"value": True, "probability": choice.probabilities["true"]},
            {"value": "none", "probability": choice.probabilities["none"]},
        ]},
    ]  # fmt: skip
    assert set(told) == {"model", "answers", "usage"}
    tokens = told["usage"]["input_tokens"]
    assert told["usage"] == {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ([{"role": "user", "content": "paid twice"}], "paid twice"),
        (
            [{"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "paid"}, {"type": "input_json", "data": {"n": 2}},
            ]}],
            'paid\n\n{"n": 2}',
        ),
        (
            [
                {"role": "system", "content": "Be kind."},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "phase": "final_answer"},
                {"type": "function_call", "call_id": "1", "name": "pay", "arguments": '{"n": 2}'},
                {"type": "function_call_output", "call_id": "1", "output": "paid"},
                {"type": "custom_tool_call", "call_id": "2", "name": "say", "input": "hi"},
                {"type": "custom_tool_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "hi"}]},
            ],
            'system: Be kind.\nassistant: No.\nassistant: pay({"n": 2})\ntool: paid\nassistant: say(hi)\ntool: hi',
        ),
    ],
)  # fmt: skip
def test_an_input_of_items_is_one_state(client: TestClient, given: Any, state: str) -> None:
    questions = [
        {"type": "choice", "instructions": "x", "choices": [{"value": word} for word in ("paid", "No.", "hi")]}
    ]
    found, expected = (
        answers(client, "/v1/decisions", OPENAI | {"input": one_of_them, "questions": questions})
        for one_of_them in (given, state)
    )
    assert found == expected


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"input": 3}, "input.str", "valid string"),
        ({"input": []}, None, "input: expected a text or at least one item"),
        ({"input": ""}, None, "state: expected some text"),
        ({"input": [{"role": "tool", "content": "a"}]}, None, "input[0].role: expected one of user"),
        ({"input": [{"role": "user"}]}, None, "input[0].content: expected a text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, None, "got an image"),
        ({"input": [{"role": "user", "content": [{"type": "sound"}]}]}, None, "content[0].type: expected 'input_text'"),
        ({"input": [{"type": "reasoning"}]}, None, "expected a message, a call or its output"),
        (
            {"input": [{"type": "function_call_output", "call_id": "1", "output": "a"}]},
            None,
            "input[0].call_id: expected that of a call before it",
        ),
        ({"questions": []}, "questions", "at least 1 item"),
        ({"questions": [PREDICATE] * 401}, "questions", "expected at most 400, got 401"),
        ({"questions": [{"type": "predicate"}]}, "questions.0.predicate.instructions", "Field required"),
        ({"questions": [{"type": "noul", "instructions": "a"}]}, "questions.0", "'noul'"),
        (
            {"questions": [{"type": "choice", "instructions": "a", "choices": [{"value": "a"}]}]},
            "questions.0.choice.choices",
            "at least 2 items",
        ),
        (
            {"questions": [{"type": "choice", "instructions": "a", "choices": [{"value": 1}, {"value": "b"}]}]},
            "questions.0.choice.choices.0.value.str",
            "valid string",
        ),
        (
            {"questions": [{"type": "choice", "instructions": "a", "choices": [{"value": True}, {"value": "true"}]}]},
            None,
            "questions[0]: choices: expected values that differ as texts",
        ),
    ],
)
def test_a_wrong_decisions_request_is_400_in_openais_form(
    client: TestClient, change: Any, param: str | None, message: str
) -> None:
    body = refused(client, "/v1/decisions", OPENAI | change, 400)
    assert set(body) == {"error"}
    assert message in body["error"].pop("message")
    assert body["error"] == {"type": "invalid_request_error", "param": param, "code": None}


# What both have.


def test_what_is_no_json_is_refused_in_each_format(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    for path, status, key in (("/v1/systemone", 422, "detail"), ("/v1/decisions", 400, "error")):
        response = client.post(path, content=b'{"model": NaN}', headers=headers)
        assert response.status_code == status
        assert set(response.json()) == {key}


def test_keys_and_methods_are_refused_in_each_format() -> None:
    with TestClient(create_app(OverlapScorer(), Settings(api_keys=("k",)))) as client:  # type: ignore[arg-type]
        failure = refused(client, "/v1/systemone", SYSTEMONE, 401)
        assert set(failure) == {"detail"}
        assert set(failure["detail"]) == FAILURE
        assert failure["detail"]["error_type"] == "authentication_error"
        both = refused(client, "/v1/decisions", OPENAI, 401)
        assert both["detail"] == failure["detail"]
        assert both["error"]["code"] == "invalid_api_key"
        client.headers["Authorization"] = "Bearer k"
        response = client.get("/v1/systemone")
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert response.json()["detail"]["error_type"] == "api_usage_error"
        assert response.headers["x-typesafe-request-id"]


def test_aliases_are_names_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLICLASS_RERANK_MODEL_ALIASES", "jev-latest, our-model")
    with TestClient(create_app(OverlapScorer(), Settings(strict_model=True))) as client:
        told = client.get("/v1/models").json()
        assert told["object"] == "list"
        assert [model["id"] for model in told["data"]] == ["overlap", "jev-latest", "our-model"]
        assert [model["name"] for model in told["models"]] == ["overlap", "jev-latest", "our-model"]
        assert {"object", "created", "owned_by"} < set(told["data"][0])
        assert {"description", "release_date"} < set(told["models"][0])
        for name in ("overlap", "jev-latest", "our-model"):
            assert client.post("/v1/systemone", json=SYSTEMONE | {"model": name}).status_code == 200
            assert client.post("/v1/decisions", json=OPENAI | {"model": name}).status_code == 200
        failure = refused(client, "/v1/systemone", SYSTEMONE | {"model": "other"}, 404)["detail"]
        assert failure["error_type"] == "not_found_error"
        error = refused(client, "/v1/decisions", OPENAI | {"model": "other"}, 404)["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_found")


def test_a_busy_service_says_when_to_come_again() -> None:
    with TestClient(create_app(OverlapScorer(), Settings(max_concurrent_requests=1))) as client:
        app: Any = client.app
        app.state.service.in_flight = 1
        response = client.post("/v1/systemone", json=SYSTEMONE)
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert response.json()["detail"]["error_type"] == "rate_limit_error"
        app.state.service.in_flight = 0


def test_one_reading_of_the_state_is_charged_if_labels_are_independent() -> None:
    scorer = OverlapScorer()
    scorer.info = replace(scorer.info, independent_labels=True)
    body = SYSTEMONE | {"state": "word " * 2000, "questions": {str(i): QUESTIONS["level"] for i in range(16)}}
    for served, status in ((scorer, 200), (OverlapScorer(), 413)):
        with TestClient(create_app(served, Settings(max_request_tokens=10_000))) as client:
            assert client.post("/v1/systemone", json=body).status_code == status


# Compressed bodies.


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("zstd", zstandard.ZstdCompressor().compress),
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("identity", bytes),
    ],
)
def test_a_compressed_body_is_read(client: TestClient, encoding: str, compress: Any) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    sent = compress(json.dumps(SYSTEMONE).encode())
    response = client.post("/v1/systemone", content=sent, headers=headers)
    assert response.status_code == 200, response.text
    assert response.json()["answers"] == answers(client, "/v1/systemone", SYSTEMONE)
    ranked = {"query": "invoice", "documents": ["an invoice", "a door"]}
    response = client.post("/v1/rerank", content=compress(json.dumps(ranked).encode()), headers=headers)
    assert response.json()["results"][0]["index"] == 0
    parts = iter([sent[:10], sent[10:20], b"", sent[20:]])
    assert client.post("/v1/systemone", content=parts, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("zstd", zstandard.ZstdCompressor().compress(b" " * 10_000_000), 413),
        ("gzip", gzip.compress(b" " * 10_000_000, mtime=0), 413),
        ("zstd", b"not zstd", 400),
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9], 400),
        ("br", b"{}", 415),
        ("gzip, zstd", b"{}", 415),
    ],
)
def test_what_cannot_be_decompressed_is_refused(client: TestClient, encoding: str, content: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    response = client.post("/v1/systemone", content=content, headers=headers)
    assert response.status_code == status, response.text
    assert set(response.json()["detail"]) == FAILURE
    response = client.post("/v1/rerank", content=content, headers=headers)
    assert response.status_code == status
    assert response.json()["error_type"] == "Validation"


def test_a_zstd_stream_that_needs_much_memory_is_refused(client: TestClient) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = compressor.compress(json.dumps(SYSTEMONE).encode()) + compressor.flush()
    headers = {"Content-Type": "application/json", "Content-Encoding": "zstd"}
    assert client.post("/v1/systemone", content=content, headers=headers).status_code == 400
