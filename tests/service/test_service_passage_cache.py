"""The passage cache of the served model: its setting, and its metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import CORPUS, build_independent
from conftest import Tiny
from fakes import OverlapScorer
from gliclass_rerank_service import Settings, create_app
from gliclass_rerank_service.settings import load_model
from serving import wait_for
from starlette.testclient import TestClient

from gliclass_rerank import OptionError
from gliclass_rerank.scorers.base import LocalScorer

TEXTS = CORPUS[:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_independent(tmp_path_factory.mktemp("cache"))


def test_the_setting_is_memory_of_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLICLASS_RERANK_PASSAGE_CACHE", "10MB")
    loaded = load_model(Settings(model=str(folder)))
    assert isinstance(loaded, LocalScorer)
    assert loaded.passage_cache is not None
    assert loaded.passage_cache.stats().max_bytes == 10**7
    for none in (0, "0", "0 MB"):
        assert Settings(passage_cache=none).passage_cache == 0


def test_a_model_with_joint_labels_and_a_service_have_no_cache(tiny: Tiny) -> None:
    with pytest.raises(OptionError, match="passage_cache: bert-simple"):
        load_model(Settings(model=str(tiny("bert-simple").folder), passage_cache="1GB"))
    with pytest.raises(OptionError, match="passage_cache"):
        load_model(Settings(model="http://localhost:1", passage_cache="1GB"))


def test_metrics_tell_what_the_cache_does(folder: Path) -> None:
    body = {"query": "who hands out time?", "documents": TEXTS}
    with TestClient(create_app(load_model(Settings(model=str(folder), passage_cache="10MB")), Settings())) as client:
        wait_for(lambda: client.get("/ready").status_code == 200)
        before = cache_metrics(client)
        for _ in range(2):
            assert client.post("/rerank", json=body).status_code == 200
        assert client.post("/embed", json={"inputs": TEXTS}).status_code == 200
        now = cache_metrics(client)
    assert now["hits_total"] - before["hits_total"] == 3  # of the second ranking; vectors alone are no use of the cache
    assert now["misses_total"] - before["misses_total"] == 3
    assert now["texts"] - before["texts"] == 3
    assert before["bytes"] < now["bytes"] < now["max_bytes"] == 10**7


def test_there_are_no_metrics_of_a_cache_that_is_not_there() -> None:
    with TestClient(create_app(OverlapScorer(), Settings())) as client:
        assert cache_metrics(client) == {}


def cache_metrics(client: TestClient) -> dict[str, float]:
    name = "gliclass_rerank_passage_cache_"
    lines = [line.split() for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return {metric.removeprefix(name): float(value) for metric, value in lines}
