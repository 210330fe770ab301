"""Vectors over HTTP: those of the model to the bit, in OpenAI's and TEI's formats, and what is not given is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CORPUS, build_independent
from conftest import Scorers
from fakes import OverlapScorer
from gliclass_rerank_service import BatchingScorer, Settings, create_app
from serving import GatedScorer, post, running, wait_for
from starlette.testclient import TestClient

from gliclass_rerank import InputError, ScoreRequest, UnreadableTextError, load_scorer
from gliclass_rerank.errors import NoVectorsError
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.remote.service import HttpScorer
from gliclass_rerank.scoring import vector_of
from gliclass_rerank.types import FloatArray, LongText

TEXTS = CORPUS[:3]
LONG = " ".join(CORPUS[:8] * 8)
UNREAD = "ꙮꙮꙮ"
PATHS = [("/v1/embeddings", "input"), ("/embed", "inputs")]
both_paths = pytest.mark.parametrize(("path", "field"), PATHS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_independent(tmp_path_factory.mktemp("embeddings"))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> LocalScorer:
    loaded = load_scorer(folder)
    assert isinstance(loaded, LocalScorer)
    return loaded


@pytest.fixture(scope="module")
def client(scorer: LocalScorer) -> Iterator[TestClient]:
    with TestClient(create_app(scorer, Settings())) as made:
        yield made


def refused(
    client: TestClient, path: str, body: dict[str, Any], error_type: str = "Validation", status: int = 422
) -> str:
    response = client.post(path, json=body)
    assert (response.status_code, response.json()["error_type"]) == (status, error_type), response.text
    message: str = response.json()["message"]
    return message


def vectors(client: TestClient, path: str, texts: str | list[str], **options: Any) -> FloatArray:
    reply = post(client, path, **{dict(PATHS)[path]: texts}, **options)
    rows = reply if path == "/embed" else [one["embedding"] for one in reply["data"]]
    return np.array(rows, np.float64).astype(np.float32)


def read_as(scorer: LocalScorer, text: str, long_text: LongText) -> FloatArray:
    return vector_of(scorer.score([ScoreRequest(text, (), long_text=long_text, vector=True)])[0])


# The formats.


def test_openais_format(client: TestClient, scorer: LocalScorer) -> None:
    reply = post(client, "/v1/embeddings", model="text-embedding-3-small", input=TEXTS, user="somebody")
    assert set(reply) == {"object", "data", "model", "usage"}
    assert (reply["object"], reply["model"]) == ("list", scorer.info.name)
    assert [(one["object"], one["index"]) for one in reply["data"]] == [("embedding", i) for i in range(3)]
    tokens = sum(one.tokens for one in scorer.encode([ScoreRequest(text, (), vector=True) for text in TEXTS]))
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_openais_clients_read_base64(client: TestClient, scorer: LocalScorer) -> None:
    for one, expected in zip(
        post(client, "/v1/embeddings", input=TEXTS, encoding_format="base64")["data"],
        scorer.embed(TEXTS),
        strict=True,
    ):
        assert np.array_equal(np.frombuffer(base64.b64decode(one["embedding"]), "<f4"), expected)


@both_paths
def test_vectors_are_the_models_to_the_bit(client: TestClient, scorer: LocalScorer, path: str, field: str) -> None:
    for texts in (TEXTS, [*TEXTS, LONG], TEXTS[:1]):
        assert np.array_equal(vectors(client, path, texts), scorer.embed(texts))
    assert np.array_equal(vectors(client, path, TEXTS[0]), scorer.embed(TEXTS[:1]))


@pytest.mark.parametrize("normalize", [True, "true", None])
def test_tei_normalizes(client: TestClient, normalize: Any) -> None:
    found = vectors(client, "/embed", TEXTS, normalize=normalize, truncate=None, prompt_name=None, dimensions=None)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


# Fields that would change the vectors.


def test_long_texts_are_read_as_asked(client: TestClient, scorer: LocalScorer) -> None:
    whole, start = (read_as(scorer, LONG, way) for way in ("window", "truncate"))
    assert not np.allclose(whole, start, atol=1e-3)
    cases: list[tuple[str, dict[str, Any], FloatArray]] = [
        ("/v1/embeddings", {}, whole),
        ("/v1/embeddings", {"long_text": "window"}, whole),
        ("/v1/embeddings", {"long_text": "truncate"}, start),
        ("/embed", {}, whole),
        ("/embed", {"truncate": False, "truncation_direction": "Left"}, whole),
        ("/embed", {"truncate": True}, start),
        ("/embed", {"truncate": "true", "truncation_direction": "Right"}, start),
        ("/embed", {"truncate": True, "truncation_direction": "Left", "long_text": "window"}, whole),
        ("/embed", {"long_text": "truncate"}, start),
    ]
    for path, options, expected in cases:
        assert np.array_equal(vectors(client, path, LONG, **options)[0], expected), (path, options)


@both_paths
def test_a_long_text_is_refused_on_request(client: TestClient, path: str, field: str) -> None:
    assert "long_text" in refused(client, path, {field: ["a text", LONG], "long_text": "error"})


def test_the_end_of_a_text_is_not_read_alone(client: TestClient) -> None:
    for options in ({"truncate": True}, {"long_text": "truncate"}):
        told = refused(client, "/embed", {"inputs": "a text", "truncation_direction": "left", **options})
        assert told.startswith("truncation_direction: expected right")


@both_paths
def test_dimensions_are_the_models_or_refused(client: TestClient, scorer: LocalScorer, path: str, field: str) -> None:
    size = scorer.embed(TEXTS).shape[1]
    assert np.array_equal(vectors(client, path, TEXTS, dimensions=size), scorer.embed(TEXTS))
    for other in (size - 1, size + 1, 10**30):
        assert f"dimensions: expected {size}" in refused(client, path, {field: TEXTS, "dimensions": other})
    assert "dimensions" in refused(client, path, {field: TEXTS, "dimensions": 0})


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/embed", {"inputs": "a", "normalize": False}, "normalize: expected true"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, "prompt_name: expected none"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        ("/embed", {"input": "a"}, "inputs: Field required"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "ubinary"}, "encoding_format"),
        ("/v1/embeddings", {"input": ["a", 3]}, "input"),
        ("/v1/embeddings", {"input": None}, "input"),
    ],
)
def test_what_is_not_given_is_refused(client: TestClient, path: str, body: dict[str, Any], says: str) -> None:
    assert says in refused(client, path, body)


@both_paths
@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]], [[]]])
def test_token_ids_are_refused_in_one_sentence(client: TestClient, path: str, field: str, ids: Any) -> None:
    told = refused(client, path, {field: ids})
    assert told.startswith(f"{field}: expected a text or a list of texts, got token ids")
    assert "check_embedding_ctx_length" in told
    assert ";" in told
    assert told.count("expected") == 1


# Texts that cannot be embedded.


@both_paths
def test_texts_that_cannot_be_read_are_named(client: TestClient, path: str, field: str) -> None:
    assert "at least one" in refused(client, path, {field: []}, "Empty", 400)
    assert refused(client, path, {field: ["a text", " "]}, "Tokenizer").startswith("input 1: expected some text")
    assert refused(client, path, {field: ""}, "Tokenizer").startswith("input: expected some text")
    assert refused(client, path, {field: ["a text", UNREAD]}, "Tokenizer").startswith(f"input 1: '{UNREAD}' cannot")
    assert refused(client, path, {field: UNREAD}, "Tokenizer").startswith(f"input: '{UNREAD}' cannot")


@both_paths
def test_a_model_without_vectors_says_so_and_is_not_asked(path: str, field: str) -> None:
    joint = OverlapScorer()
    with TestClient(create_app(joint, Settings())) as client:
        wait_for(lambda: client.get("/ready").status_code == 200)
        calls = list(joint.calls)
        told = refused(client, path, {field: "a text"}, "NoVectors")
        assert told.startswith("overlap: it has no vectors")
        assert joint.calls == calls
        assert 'te_request_failure{err="novectors"} 1.0' in client.get("/metrics").text
        described = client.get("/openapi.json").json()["paths"][path]["post"]["responses"]["422"]
        assert "no vectors" in described["description"]


def test_logits_of_a_model_without_vectors_refuse_them_too(scorers: Scorers) -> None:
    with TestClient(create_app(scorers("bert-simple"), Settings())) as client:
        request = {"text": "a", "labels": ["b"], "vector": True}
        assert "no vectors" in refused(client, "/logits", {"requests": [request]}, "NoVectors")


# The queue.


@both_paths
def test_vectors_share_a_batch_with_rankings(path: str, field: str) -> None:
    held = GatedScorer(OverlapScorer(embeds=True))
    with TestClient(create_app(held, Settings())) as client, ThreadPoolExecutor(3) as threads:
        wait_for(lambda: client.get("/ready").status_code == 200)
        held.gate.clear()
        held.entered.clear()
        first = threads.submit(post, client, "/v2/rerank", query="a", documents=["first"])
        assert held.entered.wait(30)
        ranked = threads.submit(post, client, "/v2/rerank", query="a", documents=["second"])
        embedded = threads.submit(post, client, path, **{field: ["third", "fourth"]})
        wait_for(lambda: client.app.state.service.scorer.stats().queue_submissions == 2)  # type: ignore[attr-defined]
        held.gate.set()
        assert [one.result(30) for one in (first, ranked, embedded)]
    assert sorted(held.batches[-1]) == ["fourth", "second", "third"]


def test_a_queue_and_a_service_embed_as_the_model(scorer: LocalScorer) -> None:
    with BatchingScorer(scorer) as queue:
        assert queue.info.embeds
        assert np.array_equal(queue.embed([*TEXTS, LONG]), scorer.embed([*TEXTS, LONG]))
    with running(create_app(scorer, Settings())) as url, HttpScorer(url) as remote:
        assert remote.info.embeds
        assert np.array_equal(remote.embed([*TEXTS, LONG]), scorer.embed([*TEXTS, LONG]))
        with pytest.raises(UnreadableTextError, match="text 1"):
            remote.embed(["a text", UNREAD])
        with pytest.raises(InputError, match="at least one"):
            remote.embed([])
    with running(create_app(OverlapScorer(), Settings())) as url, HttpScorer(url) as remote:
        assert not remote.info.embeds
        with pytest.raises(NoVectorsError):
            remote.embed(["a text"])


def test_a_service_over_a_service_embeds(scorer: LocalScorer) -> None:
    with (
        running(create_app(scorer, Settings())) as url,
        HttpScorer(url) as remote,
        TestClient(create_app(remote, Settings())) as client,
    ):
        assert np.array_equal(vectors(client, "/embed", TEXTS), scorer.embed(TEXTS))
