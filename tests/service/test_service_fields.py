"""Each field of each request changes the answer, is refused, or is listed as ignored in docs/service.md."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import OverlapScorer
from gliclass_rerank_service import Settings, create_app
from gliclass_rerank_service.dialects.check import CheckBody
from gliclass_rerank_service.dialects.classify import ClassifyBody
from gliclass_rerank_service.dialects.common import Ignored, Refused
from gliclass_rerank_service.dialects.decisions.openai import DecisionsBody
from gliclass_rerank_service.dialects.decisions.systemone import SystemoneBody
from gliclass_rerank_service.dialects.embeddings import EmbedBody, EmbeddingsBody
from gliclass_rerank_service.dialects.jobs import AnyPredictBody
from gliclass_rerank_service.dialects.rerank import RerankBody
from gliclass_rerank_service.dialects.route import RouteBody
from gliclass_rerank_service.dialects.score import ScoreBody
from pydantic import BaseModel
from starlette.testclient import TestClient

from gliclass_rerank import Logits, ScoreRequest
from gliclass_rerank.types import FloatArray

Body = dict[str, Any]
Effect = tuple[Body, Body]
"""Two additions to a body, null for a field that is taken away, whose answers differ."""

DENIED = "it is false that the apple is red"
LONG = "the apple is red and so is the door of the barn behind the hill"
CHOICE = {"type": "choice", "criteria": {"red apple": None, "green": None}}
VALUES: Body = {"type": "choice", "instructions": "Which?", "choices": [{"value": "red apple"}, {"value": "green"}]}
LOGITS: dict[str, Effect] = {name: ({}, {name: False}) for name in ("use_activation", "activation", "softmax")}

PATHS: dict[str, tuple[type[BaseModel], Body]] = {
    "/v1/rerank": (RerankBody, {"query": "red apple", "documents": ["a green pear", LONG, "zzz red"]}),
    "/jobs/rerank": (RerankBody, {"query": "red apple", "documents": ["a green pear", LONG, "zzz red"]}),
    "/score": (ScoreBody, {"queries": "red apple", "documents": ["a green pear", "a red apple"]}),
    "/predict": (AnyPredictBody, {"inputs": ["red apple", LONG]}),
    "/classify": (ClassifyBody, {"text": LONG, "labels": ["red apple", "green", "apple is red and so"]}),
    "/v1/embeddings": (EmbeddingsBody, {"input": LONG}),
    "/embed": (EmbedBody, {"inputs": LONG}),
    "/route": (RouteBody, {"query": "red apple barn", "routes": {"fruit": "apple pear", "house": "barn door"}}),
    "/check": (CheckBody, {"answer": "The apple is red. Is it?", "evidence": ["the apple is red"]}),
    "/v1/systemone": (SystemoneBody, {"model": "mini", "state": LONG, "questions": {"q": CHOICE}}),
    "/v1/decisions": (
        DecisionsBody,
        {"model": "mini", "input": LONG, "questions": [VALUES]},
    ),
}
RERANK: dict[str, Effect] = {
    **LOGITS,
    "query": ({}, {"query": "green pear"}),
    "documents": ({}, {"documents": ["a red apple", "a pear"]}),
    "texts": ({}, {"documents": None, "texts": ["a red apple", "a pear"]}),
    "top_n": ({}, {"top_n": 1}),
    "top_k": ({"top_k": 2}, {"top_k": 1}),
    "return_documents": ({}, {"return_documents": True}),
    "return_text": ({}, {"return_text": True}),
    "raw_scores": ({}, {"raw_scores": True}),
    "rank_fields": (
        {"documents": [{"text": "red apple", "b": "pear"}]},
        {"documents": [{"text": "red apple", "b": "pear"}], "rank_fields": ["b"]},
    ),
    "instruction": ({}, {"instruction": "red apple"}),
    "instruct": ({}, {"instruct": "red apple"}),
    "first_stage_scores": ({}, {"first_stage_scores": [3, 2, 1]}),
    "long_text": ({"query": "hill"}, {"query": "hill", "long_text": "truncate"}),
    "unreadable": ({}, {"unreadable": "error"}),
}
JOB = {"inputs": ["red apple"], "labels": ["a red apple", "red apple pie"]}
EFFECTS: dict[str, dict[str, Effect]] = {
    "/v1/rerank": RERANK | {"relevant_spans": ({}, {"relevant_spans": {"mode": "enabled", "threshold": 0}})},
    "/jobs/rerank": RERANK,
    "/score": LOGITS
    | {
        "queries": ({}, {"queries": "green pear"}),
        "documents": ({}, {"documents": ["a red apple"]}),
        "text_1": ({}, {"queries": None, "text_1": "green pear"}),
        "text_2": ({}, {"documents": None, "text_2": "a red apple"}),
        "instruction": ({}, {"instruction": "red apple"}),
    },
    "/predict": {
        "inputs": ({}, {"inputs": ["green", LONG]}),
        "raw_scores": ({}, {"raw_scores": True}),
        "labels": ({}, JOB),
        "classification_type": (JOB, JOB | {"classification_type": "single-label"}),
        "threshold": (JOB, JOB | {"threshold": 1}),
    },
    "/classify": {
        "text": ({}, {"text": "green"}),
        "texts": ({}, {"text": None, "texts": ["green", LONG]}),
        "input": ({}, {"text": None, "input": LONG}),
        "labels": ({}, {"labels": ["hill"]}),
        "multi_label": ({}, {"multi_label": False}),
        "threshold": ({}, {"threshold": 0}),
        "prompt": ({}, {"prompt": "green"}),
        "examples": ({}, {"examples": [{"text": "green", "labels": ["red"]}]}),
        "top_k": ({"threshold": 0}, {"threshold": 0, "top_k": 1}),
        "hierarchical": (
            {"labels": {"a": ["red apple", "green"]}},
            {"labels": {"a": ["red apple", "green"]}, "hierarchical": True},
        ),
        "aggregate": ({}, {"aggregate": "mean"}),
        "long_text": ({"labels": ["hill"]}, {"labels": ["hill"], "long_text": "truncate"}),
        "unreadable": ({"text": "zzz"}, {"text": "zzz", "unreadable": "error"}),
    },
    "/v1/embeddings": {
        "input": ({}, {"input": "green"}),
        "encoding_format": ({}, {"encoding_format": "base64"}),
        "long_text": ({}, {"long_text": "truncate"}),
    },
    "/embed": {
        "inputs": ({}, {"inputs": "green"}),
        "truncate": ({}, {"truncate": True}),
        "long_text": ({}, {"long_text": "truncate"}),
    },
    "/route": {
        "query": ({}, {"query": "pear"}),
        "queries": ({}, {"query": None, "queries": ["pear", "barn"]}),
        "routes": ({}, {"routes": {"fruit": "pear", "house": "barn"}}),
        "threshold": ({}, {"threshold": 1}),
        "fallback": ({"threshold": 1}, {"threshold": 1, "fallback": "house"}),
        "multi": ({"query": "apple pear barn door"}, {"query": "apple pear barn door", "multi": True}),
        "examples": (
            {"routes": [{"name": "fruit", "examples": ["red"]}, {"name": "house"}]},
            {"routes": [{"name": "fruit", "examples": ["red"]}, {"name": "house"}], "examples": "off"},
        ),
        "unreadable": ({"query": "zzz"}, {"query": "zzz", "unreadable": "error"}),
    },
    "/check": {
        "answer": ({}, {"answer": "The pear is green."}),
        "evidence": ({}, {"evidence": "a pear"}),
        "threshold": ({}, {"threshold": 1}),
        "refute_threshold": ({"evidence": DENIED}, {"evidence": DENIED, "refute_threshold": 1}),
        "only_claims": ({}, {"only_claims": True}),
        "filter": ({}, {"filter": True}),
        "keep": ({"filter": True}, {"filter": True, "keep": ["refuted", "not_enough_info"]}),
        "unreadable": ({"answer": "zzz"}, {"answer": "zzz", "unreadable": "error"}),
    },
    "/v1/systemone": {
        "state": ({}, {"state": "green"}),
        "questions": ({}, {"questions": {"q": {"type": "score", "criteria": ["red", "green"]}}}),
    },
    "/v1/decisions": {
        "input": ({}, {"input": "green"}),
        "questions": ({}, {"questions": [VALUES | {"instructions": "red"}]}),
    },
}
REFUSALS: dict[str, list[Body]] = {
    "/jobs/rerank": [{"relevant_spans": {"mode": "enabled"}}],
    "/v1/rerank": [{"instruct": "a", "instruction": "b"}, {"texts": ["a red apple"]}],
    "/score": [{"text_1": "green pear"}, {"text_2": ["a red apple"]}],
    "/predict": [{"threshold": 0.5}, {"classification_type": "single-label"}, {"raw_scores": True, **JOB}],
    "/classify": [
        {"use_activation": False},
        {"activation": False},
        {"softmax": False},
        {"threshold": 0.1, "input": LONG, "text": None},
        {"top_k": 1, "input": LONG, "text": None},
        {"hierarchical": True, "input": LONG, "text": None, "labels": {"a": ["red", "green"]}},
    ],
    "/v1/embeddings": [{"dimensions": 1}],
    "/embed": [
        {"dimensions": 1},
        {"normalize": False},
        {"prompt_name": "query"},
        {"truncation_direction": "left", "truncate": True},
    ],
    "/v1/systemone": [{"questions": {"q": {"type": "noul", "criteria": {"yes": "red", "no": "green"}}}}],
}


class Reader(OverlapScorer):
    """Reads examples as well. Words with "zzz" are unknown to it."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        rows = super().score(requests)
        for i, (request, row) in enumerate(zip(requests, rows, strict=True)):
            shown = " ".join(label for example in request.examples for label in example.labels)
            assert isinstance(row, Logits)
            rows[i] = Logits.over_windows(
                row.per_window + np.array([shared_words(shown, label) for label in request.labels], np.float32),
                row.spans,
                truncated=row.truncated,
                unread_text="zzz" in request.text,
                unread_labels=[j for j, label in enumerate(request.labels) if "zzz" in label],
                vector=row.vector,
            )
        return rows


def shared_words(shown: str, label: str) -> int:
    """How many words a label shares with the examples."""
    return len(set(shown.split()) & set(label.split()))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Reader(window=4, embeds=True, prompts=True), Settings())) as made:
        yield made


def answer(client: TestClient, path: str, addition: Body) -> tuple[int, Any]:
    """Status and answer, of a job its result, without what differs from request to request."""
    reply = client.post(path, json=PATHS[path][1] | addition)
    while reply.status_code == 202:
        time.sleep(0.01)
        reply = client.get(f"/result/{reply.json()['task_id']}")
    told = reply.json()
    if isinstance(told, dict):
        told = {name: value for name, value in told.items() if name not in ("id", "created", "usage", "task_id")}
        told.get("meta", {}).pop("tokens", None)
        told.get("meta", {}).pop("warnings", None)
    return reply.status_code, told


def marked(body: type[BaseModel], kind: type[Ignored] | type[Refused]) -> dict[str, Any]:
    """Fields of a body with such a mark, and the mark."""
    return {
        name: mark for name, field in body.model_fields.items() for mark in field.metadata if isinstance(mark, kind)
    }


@pytest.mark.parametrize("path", PATHS)
def test_each_field_has_an_effect_is_refused_or_is_ignored(path: str) -> None:
    body, _ = PATHS[path]
    effects, ignored, refused = set(EFFECTS[path]), set(marked(body, Ignored)), set(marked(body, Refused))
    refused |= {next(iter(one)) for one in REFUSALS.get(path, [])} - effects
    assert not effects & ignored
    assert not effects & set(marked(body, Refused))
    assert not ignored & refused
    assert effects | ignored | refused | {"model"} == set(body.model_fields)


@pytest.mark.parametrize(("path", "field"), [(path, field) for path, effects in EFFECTS.items() for field in effects])
def test_a_field_with_an_effect_changes_the_answer(client: TestClient, path: str, field: str) -> None:
    without, with_it = EFFECTS[path][field]
    assert with_it.get(field) is not None
    before, after = answer(client, path, without), answer(client, path, with_it)
    assert before[0] == 200
    assert after[0] == (422 if with_it.get(field) == "error" and path != "/jobs/rerank" else 200)
    assert before[1] != after[1]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [True, 1, "left", {"a": 1}])
def test_an_ignored_field_changes_nothing(client: TestClient, path: str, value: Any) -> None:
    ignored: Body = dict.fromkeys(marked(PATHS[path][0], Ignored), value)
    if path.endswith("rerank"):
        ignored["return_documents"] = False  # they are returned by default to clients that send vLLM's fields
    (status, told), (_, plain) = answer(client, path, ignored), answer(client, path, {})
    assert status == 200
    if path == "/v1/rerank":
        told, plain = told["results"], plain["results"]  # around them the formats of the services differ
    assert told == plain


@pytest.mark.parametrize("path", PATHS)
def test_a_refused_field_is_named_and_nothing_asks_for_nothing(client: TestClient, path: str) -> None:
    marks = marked(PATHS[path][0], Refused)
    bodies = [{name: "x"} for name in marks] + REFUSALS.get(path, [])
    for body in bodies:
        status, told = answer(client, path, body)
        field = next(iter(body))
        assert status == 422, body
        assert field in str(told) or "criteria" in str(told), body
    empties: list[Any] = [None, "", {}, []]
    for empty in empties:
        assert answer(client, path, dict.fromkeys(marks, empty)) == answer(client, path, {})
    for name, mark in marks.items():
        for allowed in mark.allowed:
            assert answer(client, path, {name: allowed}) == answer(client, path, {})


@pytest.mark.parametrize("path", PATHS)
def test_another_model_is_refused_where_names_are_strict(path: str) -> None:
    scorer = Reader(window=4, embeds=True, prompts=True)
    with TestClient(create_app(scorer, Settings(strict_model=True))) as client:
        assert answer(client, path, {"model": "another"})[0] == 404
        assert answer(client, path, {"model": scorer.info.name})[0] == 200


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank", "/score", "/jobs/rerank"])
def test_a_model_without_prompts_refuses_an_instruction(path: str) -> None:
    with TestClient(create_app(OverlapScorer(), Settings())) as client:
        body = PATHS["/score" if path == "/score" else "/v1/rerank"][1]
        reply = client.post(path, json=body | {"instruction": "red apple"})
        assert (reply.status_code, reply.json()["error_type"]) == (422, "NoPrompts")
        assert "instruction: expected none, got one, and overlap was not trained" in reply.json()["message"]
        assert client.post(path, json=body | {"instruction": ""}).status_code in (200, 202)
        assert client.post(path, json=body | {"instruction": None}).status_code in (200, 202)


def test_texts_have_no_room_for_spans(client: TestClient) -> None:
    body = {"query": "red", "texts": ["a red apple"], "relevant_spans": {"mode": "enabled"}}
    reply = client.post("/rerank", json=body)
    assert reply.status_code == 422
    assert "relevant_spans" in reply.json()["message"]


@pytest.mark.parametrize("path", PATHS)
def test_unknown_fields_are_ignored(client: TestClient, path: str) -> None:
    assert answer(client, path, {"x_trace_id": "a", "nobody_knows": {"b": [1]}}) == answer(client, path, {})


@pytest.mark.parametrize("kind", [Ignored, Refused])
def test_the_documentation_lists_these_fields(kind: type[Ignored] | type[Refused]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    table = page.partition(f"<!-- {kind.__name__.lower()} -->")[2].partition("<!-- / -->")[0]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.strip().splitlines()[2:]]
    listed = [
        (path, field, why)
        for fields, paths, why in rows
        for field in fields.replace("`", "").split(", ")
        for path in paths.replace("`", "").split(", ")
    ]
    expected = {
        (path, name, mark.why)
        for path, (body, _) in PATHS.items()
        if path != "/jobs/rerank"
        for name, mark in marked(body, kind).items()
    }
    assert sorted(listed) == sorted((path.replace("/v1/rerank", "/rerank"), name, why) for path, name, why in expected)
