"""Training to independent labels, a teacher's vectors, and a teacher's log-odds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Tiny
from rich.console import Console

from gliclass_rerank import InputError, ScoreRequest, UnsupportedModelError, load_scorer
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.training.config import Source, TrainConfig
from gliclass_rerank.training.data.examples import ExampleBuilder, TrainingExample
from gliclass_rerank.training.data.records import PoolRecord, RankingRecord
from gliclass_rerank.training.data.vectors import read_vectors, save_vectors
from gliclass_rerank.training.losses import example_loss, vector_loss
from gliclass_rerank.training.trainer import train

QUIET = Console(quiet=True)
JOINT = "bert-average-text"
TEXTS = ("the court found the contract void", "she plays the violin", "bread rises because of yeast")
TOPICS = ("law", "music", "cooking")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
    for text, topic in zip(TEXTS, TOPICS, strict=True):
        rows.append({"text": text, "all_labels": list(TOPICS), "true_labels": [topic]})
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def config_for(model: Path, data: Path, out: Path, **options: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model), "out": out, "train": (Source(file=data),), "steps": 30, "step_tokens": 100,
        "learning_rate": 3e-3, "eval_every": 10, "threads": 1, "precision": "fp32", "labels": "independent",
    }  # fmt: skip
    return TrainConfig(**(values | options))


def vectors_file(folder: Path, width: int) -> Path:
    directions = np.random.default_rng(0).normal(size=(len(TEXTS), width)).astype(np.float32)
    file = folder / "vectors.npz"
    save_vectors(file, TEXTS, directions / np.linalg.norm(directions, axis=1, keepdims=True))
    return file


def width_of(tiny: Tiny) -> int:
    return int(tiny(JOINT).model.config.encoder_config.hidden_size)


def test_a_joint_model_learns_independent_labels_and_the_teachers_vectors(
    tiny: Tiny, data: Path, tmp_path: Path
) -> None:
    file = vectors_file(tmp_path, width_of(tiny))
    config = config_for(tiny(JOINT).folder, data, tmp_path / "run", vectors=file, vector_weight=5.0, steps=120)
    scorer = load_scorer(train(config, console=QUIET))
    assert isinstance(scorer, LocalScorer)
    assert scorer.info.independent_labels
    assert (scorer.embed(TEXTS) * read_vectors(file).of(TEXTS)).sum(1).min() > 0.9
    logits = np.stack(scorer.score([ScoreRequest(text, TOPICS) for text in TEXTS]))
    assert logits.argmax(1).tolist() == [0, 1, 2]


def test_a_run_of_independent_labels_resumes_to_the_same_weights(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    file = vectors_file(tmp_path, width_of(tiny))
    folders = []
    for name, parts in (("whole", (6,)), ("resumed", (3, 6))):
        for steps in parts:
            options = {"vectors": file, "steps": steps, "eval_every": 1, "warmup": 0.0}
            config = config_for(tiny(JOINT).folder, data, tmp_path / name, **options)
            folders.append(train(config, console=QUIET))
    whole, resumed = (torch.load(path.parent / "state.pt", weights_only=True) for path in (folders[0], folders[-1]))
    assert whole["state"]["step"] == resumed["state"]["step"] == 6
    assert whole["state"]["drawn"] == resumed["state"]["drawn"]


def test_texts_need_vectors(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="need the teacher's 'vectors'"):
        train(config_for(tiny(JOINT).folder, data, tmp_path / "run"), console=QUIET)


def test_vectors_need_independent_labels_and_the_models_width(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder = tiny(JOINT).folder
    joint = config_for(folder, data, tmp_path / "run", labels=None, vectors=vectors_file(tmp_path, width_of(tiny)))
    with pytest.raises(InputError, match='set labels = "independent"'):
        train(joint, console=QUIET)
    narrow = config_for(folder, data, tmp_path / "run", vectors=vectors_file(tmp_path, 5))
    with pytest.raises(InputError, match=f"expected vectors of {width_of(tiny)} numbers, got 5"):
        train(narrow, console=QUIET)


def test_a_text_without_a_vector_and_a_dev_set_of_texts_are_refused(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "fewer.npz"
    save_vectors(file, TEXTS[:2], np.eye(width_of(tiny), dtype=np.float32)[:2])
    with pytest.raises(InputError, match=r"fewer\.npz: expected a vector of each.*1 have none.*'bread rises"):
        train(config_for(tiny(JOINT).folder, data, tmp_path / "run", vectors=file), console=QUIET)
    whole = vectors_file(tmp_path, width_of(tiny))
    with pytest.raises(InputError, match="got one with only the text 'the court"):
        train(config_for(tiny(JOINT).folder, data, tmp_path / "run", vectors=whole, dev=(data,)), console=QUIET)


def test_vectors_are_written_under_the_given_name_and_broken_files_are_named(tmp_path: Path) -> None:
    save_vectors(tmp_path / "vectors", TEXTS, np.eye(3, dtype=np.float32))
    whole = (tmp_path / "vectors").read_bytes()
    assert read_vectors(tmp_path / "vectors").width == 3
    np.savez(tmp_path / "flat.npz", keys=np.array(["a"]), vectors=np.zeros(3))
    for name, content in (("cut", whole[:100]), ("empty", b"")):
        (tmp_path / f"{name}.npz").write_bytes(content)
    for name in ("cut", "empty", "flat"):
        with pytest.raises(InputError, match=f"{name}\\.npz: expected vectors written by save_vectors"):
            read_vectors(tmp_path / f"{name}.npz")


def test_a_file_that_holds_no_vectors_is_named(tmp_path: Path) -> None:
    (tmp_path / "vectors.npz").write_text("no vectors", "utf-8")
    with pytest.raises(InputError, match=r"vectors\.npz: expected vectors written by save_vectors"):
        read_vectors(tmp_path / "vectors.npz")


def test_labels_of_a_model_that_cannot_have_them_independent_are_refused(
    tiny: Tiny, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match="independent labels need class_token_pooling='average'"):
        train(config_for(tiny("bert-simple").folder, data, tmp_path / "run"), console=QUIET)


def test_unknown_texts_have_no_vector_and_no_loss(tmp_path: Path) -> None:
    vectors = read_vectors(vectors_file(tmp_path, 8))
    found = vectors.of([TEXTS[1], "unknown"])
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-3)
    assert np.isnan(found[1]).all()
    given = torch.nn.functional.normalize(torch.ones(2, 8, requires_grad=True), dim=1)
    loss = vector_loss(given, torch.from_numpy(found))
    assert loss.item() == pytest.approx(1 - (given[0] @ torch.from_numpy(found[0])).item(), abs=1e-6)
    assert float(vector_loss(given, torch.full((2, 8), torch.nan))) == 0


def test_a_teachers_log_odds_join_the_targets_and_stand_in_for_unknown_ones() -> None:
    make = ExampleBuilder(list_size=3, soft_targets=0.25)
    example = make(RankingRecord("q", ("p",), ("n", "m"), (2.0, 0.0, -2.0)), random.Random(0))
    assert example.logits is not None
    taught = 1 / (1 + np.exp(-example.logits))
    assert example.targets == pytest.approx(0.75 * np.array([1, 0, 0]) + 0.25 * taught, abs=1e-6)
    pool = make(PoolRecord(("q", "r"), ("p", "n"), (None, (1.0, 0.0)), ((3.0, -1.0), (0.0, 1.0))), random.Random(0))
    by_pair = {
        (label, request.text): place
        for place, (request, label) in enumerate(
            (request, label) for request in pool.requests for label in request.labels
        )
    }
    assert pool.targets[by_pair["q", "p"]] == pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-6)
    assert pool.targets[by_pair["r", "n"]] == pytest.approx(0.25 / (1 + np.exp(-1.0)), abs=1e-6)
    assert pool.logits is not None
    assert pool.logits[by_pair["r", "n"]] == 1.0


def test_the_squared_difference_to_the_teachers_logits_is_a_loss() -> None:
    logits, taught = torch.tensor([1.0, -0.5]), np.array([0.0, 1.5], np.float32)
    example = TrainingExample((ScoreRequest("t", ("a", "b")),), np.full(2, np.nan, np.float32), logits=taught)
    loss = example_loss(logits, example, bce_weight=1.0, listwise_weight=1.0, mse_weight=0.5)
    assert float(loss) == pytest.approx(0.5 * (1.0 + 4.0) / 2)
