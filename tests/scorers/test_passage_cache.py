"""Passages that come back: scores are those of a model without a cache, and memory is bounded."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from checkpoints import CORPUS, INDEPENDENT, Spec, build_checkpoint, build_independent

from gliclass_rerank import OptionError, Reranker, ScoreRequest, load_scorer
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.independent.cache import PassageCache
from gliclass_rerank.scoring import vector_of
from gliclass_rerank.validation import check_bytes

TEXTS = [" ".join(CORPUS[i : i + 1 + i % 3]) for i in range(len(CORPUS) - 3)]
CALIBRATION = [ScoreRequest(text, ("science", "a question", "politics and law")) for text in CORPUS]


@pytest.fixture(scope="module", params=["torch", "fp32", "int8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    made = build_independent(root)
    if request.param != "torch":
        export_checkpoint(made, root / "exported", dtype=request.param, calibration=CALIBRATION)
        made = root / "exported"
    return made


def cached(folder: Path, size: int | str = "100MB") -> LocalScorer:
    scorer = load_scorer(folder, passage_cache=size)
    assert isinstance(scorer, LocalScorer)
    return scorer


def cache_of(scorer: LocalScorer) -> PassageCache[Any]:
    assert scorer.passage_cache is not None
    return scorer.passage_cache


def asked(label: str, texts: list[str] = TEXTS) -> list[ScoreRequest]:
    return [ScoreRequest(text, (label, "law"), vector=True) for text in texts]


def test_a_kept_passage_scores_as_one_that_is_read_anew(folder: Path) -> None:
    plain, scorer = load_scorer(folder), cached(folder)
    assert isinstance(plain, LocalScorer)
    for label in ("music", "a question of health", "music"):
        expected, found = plain.score(asked(label)), scorer.score(asked(label))
        for one, other in zip(expected, found, strict=True):
            assert np.asarray(other) == pytest.approx(np.asarray(one), abs=1e-5)
            assert vector_of(other) == pytest.approx(vector_of(one), abs=1e-5)
    stats = cache_of(scorer).stats()
    assert stats.misses <= len(TEXTS) + 2  # with the check at load
    assert stats.hits >= 2 * len(TEXTS)


def test_known_and_new_passages_share_a_call_in_any_order(folder: Path) -> None:
    plain, scorer, mixed = load_scorer(folder), cached(folder), list(TEXTS)
    scorer.score(asked("music", TEXTS[::2]))
    Random(0).shuffle(mixed)
    for one, other in zip(plain.score(asked("law", mixed)), scorer.score(asked("law", mixed)), strict=True):
        assert np.asarray(other) == pytest.approx(np.asarray(one), abs=1e-5)


def test_equal_passages_of_a_call_are_read_once(folder: Path) -> None:
    scorer = cached(folder)
    before = cache_of(scorer).stats().texts
    first, second = scorer.score(asked("music", [TEXTS[0]] * 2))
    assert np.array_equal(first, second)
    assert cache_of(scorer).stats().texts == before + 1


def test_texts_that_are_read_for_their_vectors_alone_are_neither_kept_nor_counted(folder: Path) -> None:
    scorer, plain = cached(folder), load_scorer(folder)
    scorer.score(asked("music", TEXTS[:2]))
    before = cache_of(scorer).stats()
    assert scorer.embed(TEXTS) == pytest.approx(plain.embed(TEXTS), abs=1e-5)
    assert cache_of(scorer).stats() == before
    scorer.score([ScoreRequest(TEXTS[0], ("a label",), similarity=4.0)])  # reads the label's vector as well
    after = cache_of(scorer).stats()
    assert (after.texts, after.hits, after.misses) == (before.texts, before.hits + 1, before.misses)


def test_memory_is_bounded_and_the_least_recently_used_leave_first(folder: Path) -> None:
    wide = cached(folder)
    wide.score(asked("music"))
    full = cache_of(wide).stats()
    scorer = cached(folder, full.bytes // 2)
    for text in TEXTS:
        scorer.score(asked("music", [text]))
        assert cache_of(scorer).stats().bytes <= full.bytes // 2
    before = cache_of(scorer).stats()
    assert 0 < before.texts < full.texts
    scorer.score(asked("law", TEXTS[-1:]))  # the last one is still there
    assert cache_of(scorer).stats().misses == before.misses
    scorer.score(asked("law", TEXTS[:1]))  # the first one has left
    assert cache_of(scorer).stats().misses == before.misses + 1


def test_a_cache_smaller_than_a_passage_keeps_nothing(folder: Path) -> None:
    scorer = cached(folder, 10)
    rows = scorer.score(asked("music"))
    assert np.stack(rows) == pytest.approx(np.stack(load_scorer(folder).score(asked("music"))), abs=1e-5)
    assert cache_of(scorer).stats().texts == cache_of(scorer).stats().bytes == 0


def test_threads_share_a_cache(folder: Path) -> None:
    scorer = cached(folder, "300KB")
    expected = np.stack(load_scorer(folder).score(asked("music")))
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: scorer.score(asked("music")), range(8)):
            assert np.stack(rows) == pytest.approx(expected, abs=1e-5)
    stats = cache_of(scorer).stats()
    assert stats.bytes <= stats.max_bytes


def test_a_ranking_does_not_depend_on_the_cache(folder: Path) -> None:
    plain, kept = Reranker(load_scorer(folder)), Reranker(cached(folder))
    for query in ("music and law", "the weather", "music and law"):
        expected, found = plain.rank(query, TEXTS), kept.rank(query, TEXTS)
        assert [one.index for one in found] == [one.index for one in expected]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_pickle_and_a_fork_have_a_cache(folder: Path) -> None:
    scorer = cached(folder)
    scorer.score(asked("music"))
    again: LocalScorer = pickle.loads(pickle.dumps(scorer))
    assert cache_of(again).max_bytes == cache_of(scorer).max_bytes
    with cache_of(scorer)._lock.get():  # as another thread might hold it
        if not (child := os.fork()):
            os._exit(cache_of(scorer).stats().texts != len(set(TEXTS)) + 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_joint_model_has_no_cache(tmp_path: Path) -> None:
    joint = build_checkpoint(Spec("joint", "bert", INDEPENDENT), tmp_path).folder
    with pytest.raises(OptionError, match="reads a passage anew for each query"):
        load_scorer(joint, passage_cache="1GB")


@pytest.mark.parametrize(
    ("given", "size"),
    [(0, 0), (7, 7), ("12", 12), ("1 kB", 1000), ("1.5GB", 1_500_000_000), ("2GiB", 2**31), ("3m", 3_000_000)],
)
def test_bytes_are_read(given: int | str, size: int) -> None:
    assert check_bytes(given, "passage_cache") == size


@pytest.mark.parametrize("given", [-1, True, 1.5, "", "GB", "1XB", "-1GB", "1 i", None])
def test_other_sizes_are_refused(given: object) -> None:
    with pytest.raises(OptionError, match='passage_cache: expected bytes, as a number or like "500MB" or "1GB"'):
        check_bytes(given, "passage_cache")
