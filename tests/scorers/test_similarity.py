"""`ScoreRequest.similarity` adds the cosines of the vectors of text and labels to the logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from checkpoints import CORPUS, INDEPENDENT, Spec, build_checkpoint, build_independent
from gliclass_rerank_service import BatchingScorer, Settings, create_app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import running

from gliclass_rerank import (
    CheckpointError,
    Classifier,
    OptionError,
    Reranker,
    Route,
    Router,
    ScoreRequest,
    UnsupportedModelError,
    load_scorer,
)
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.models.checkpoint import OPTIONS_FILE
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.label_cache import LabelCache
from gliclass_rerank.scorers.remote.service import HttpScorer
from gliclass_rerank.types import FloatArray

LABELS = ("the court found it void", "a violin", "science")
TEXTS = ("the judge of the court read the contract", "she plays the violin", " ".join(CORPUS) * 3)
WEIGHTS = {"relevance": 7.0, "labels": 11.0}


@pytest.fixture(scope="module", params=["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalScorer:
    root = tmp_path_factory.mktemp("similar")
    folder = build_independent(root)
    card = json.loads((folder / OPTIONS_FILE).read_text("utf-8"))
    (folder / OPTIONS_FILE).write_text(json.dumps(card | {"similarity": WEIGHTS}), "utf-8")
    if request.param == "onnx":
        export_checkpoint(folder, root / "exported", dtype="fp32")
        folder = root / "exported"
    loaded = load_scorer(folder)
    assert isinstance(loaded, LocalScorer)
    assert loaded.info.backend == request.param
    return loaded


def cosines(scorer: LocalScorer, text: str, labels: tuple[str, ...]) -> FloatArray:
    products: FloatArray = scorer.embed(labels) @ scorer.embed([text])[0]
    return products


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weight=st.floats(-20, 20), chosen=st.permutations(LABELS), size=st.integers(1, 3))
def test_it_adds_the_cosine_to_each_logit(scorer: LocalScorer, weight: float, chosen: list[str], size: int) -> None:
    labels = tuple(chosen[:size])
    requests = [ScoreRequest(text, labels) for text in TEXTS]
    plain = scorer.score(requests)
    with_it = scorer.score([ScoreRequest(text, labels, similarity=weight) for text in TEXTS])
    for text, before, after in zip(TEXTS, plain, with_it, strict=True):
        expected = before.per_window + weight * cosines(scorer, text, labels)
        assert after.per_window == pytest.approx(expected, abs=2e-5)
        assert after.spans == before.spans
        assert not after.vector.size


def test_a_vector_comes_with_it(scorer: LocalScorer) -> None:
    row = scorer.score([ScoreRequest(TEXTS[0], LABELS, vector=True, similarity=2.0)])[0]
    assert row.vector == pytest.approx(scorer.embed([TEXTS[0]])[0], abs=1e-5)


def test_equal_labels_get_equal_logits_whatever_else_is_asked(scorer: LocalScorer) -> None:
    twice = scorer.score([ScoreRequest(TEXTS[0], ("a violin", "science", "a violin"), similarity=3.0)])[0]
    alone = scorer.score([ScoreRequest(TEXTS[0], ("a violin",), similarity=3.0)])[0]
    assert [twice[0], twice[2]] == pytest.approx([alone[0]] * 2, abs=1e-5)


def test_tasks_ask_for_the_weights_of_the_card(scorer: LocalScorer) -> None:
    def logits(weight: float) -> FloatArray:
        return np.asarray(scorer.score([ScoreRequest(TEXTS[0], LABELS, similarity=weight)])[0])

    assert scorer.info.similarity == WEIGHTS
    ranked = Reranker(scorer).rank(LABELS[0], TEXTS[:1])
    assert ranked[0].logit == pytest.approx(logits(7.0)[0], abs=1e-5)
    routed = Router([Route(label) for label in LABELS], scorer).route(TEXTS[0])
    odds = [np.log(p / (1 - p)) for p in routed.scores.values()]
    assert odds == pytest.approx(logits(11.0), abs=1e-3)
    classes = Classifier(scorer).classify(TEXTS[0], LABELS, multi_label=True)
    assert max(one.score for one in classes.labels) == pytest.approx(1 / (1 + np.exp(-logits(11.0).max())), abs=1e-4)


def test_the_service_gives_the_same_logits(scorer: LocalScorer) -> None:
    requests = [ScoreRequest(text, LABELS, similarity=4.0) for text in TEXTS]
    with running(create_app(BatchingScorer(scorer), Settings())) as url, HttpScorer(url) as remote:
        assert remote.info.similarity == WEIGHTS
        for got, expected in zip(remote.score(requests), scorer.score(requests), strict=True):
            assert np.asarray(got) == pytest.approx(np.asarray(expected), abs=1e-5)


def test_a_joint_model_refuses_it(tmp_path: Path) -> None:
    joint = load_scorer(build_checkpoint(Spec("joint", "bert", INDEPENDENT), tmp_path).folder)
    with pytest.raises(UnsupportedModelError, match=r"info\.embeds"):
        joint.score([ScoreRequest("a text", ("a label",), similarity=1.0)])


def test_a_weight_must_be_a_number() -> None:
    with pytest.raises(OptionError, match="similarity"):
        ScoreRequest("a text", ("a label",), similarity=float("nan"))


def test_a_card_with_other_weights_is_refused(tmp_path: Path) -> None:
    folder = build_independent(tmp_path)
    (folder / OPTIONS_FILE).write_text(
        json.dumps({"labels": "independent", "similarity": {"labels": "a lot"}}), "utf-8"
    )
    with pytest.raises(CheckpointError, match="similarity: expected a number"):
        load_scorer(folder)


def test_each_label_is_read_once_and_the_oldest_leave_first() -> None:
    read: list[str] = []

    def vectors(labels: Sequence[str]) -> list[FloatArray]:
        read.extend(labels)
        return [np.full(2, len(label), np.float32) for label in labels]

    kept = LabelCache(vectors, kept=2)
    assert kept.of(["a", "bb", "a"])["bb"].tolist() == [2, 2]
    kept.of(["a"])
    kept.of(["ccc"])  # "bb" leaves
    kept.of(["a", "ccc"])
    assert read == ["a", "bb", "ccc"]
    kept.of(["bb"])
    assert read == ["a", "bb", "ccc", "bb"]
