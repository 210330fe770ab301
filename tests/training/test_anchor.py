"""Anchoring to a plain encoder: the distance is its formula, training shrinks it, and a wrong anchor is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Tiny
from rich.console import Console
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from gliclass_rerank import CheckpointError, InputError, ScoreRequest, UnsupportedModelError
from gliclass_rerank.models.checkpoint import Checkpoint, read_checkpoint
from gliclass_rerank.models.encoding import InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.torch import ModelRunner, load_model
from gliclass_rerank.training.anchor import Anchor
from gliclass_rerank.training.config import Source, TrainConfig, read_config
from gliclass_rerank.training.trainer import train

NAME = "bert-average-text"
REQUESTS = [
    ScoreRequest("Bread rises because yeast turns sugar into gas.", ("cooking", "law")),
    ScoreRequest("The court found that the contract was void.", ("cooking",)),
]
Backbone = Callable[[str], Path]


@pytest.fixture
def backbone(tiny: Tiny, tmp_path: Path) -> Backbone:
    """The encoder of a tiny checkpoint, as a folder of its own."""

    def get(name: str) -> Path:
        folder = tmp_path / f"encoder of {name}"
        tiny(name).model.model.encoder_model.save_pretrained(folder)
        shutil.copyfile(tiny(name).folder / "tokenizer.json", folder / "tokenizer.json")
        return folder

    return get


def parts(folder: Path) -> tuple[Checkpoint, Any, InputEncoder]:
    checkpoint = read_checkpoint(folder)
    return checkpoint, load_model(checkpoint).eval(), InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))


def test_the_distance_is_the_formula(tiny: Tiny, backbone: Backbone) -> None:
    """Against each label and text encoded alone, one by one; what has no weight costs nothing."""
    checkpoint, model, encoder = parts(tiny(NAME).folder)
    anchor = Anchor(backbone(NAME), checkpoint, model)
    passes = [item for request in encoder.encode([*REQUESTS, REQUESTS[0]]) for item in request.sequences]
    weights = [2.0, 0.5, 0.0]
    states = anchor.teach(passes, weights)
    runner = ModelRunner(checkpoint, model)
    with torch.no_grad():
        runner(passes)
    found = anchor.distances(passes, weights, states)
    tokenizer, bert = TextTokenizer(checkpoint.tokenizer_file), model.model.encoder_model

    @torch.no_grad()
    def apart(ids: list[int], hidden: torch.Tensor, place: int) -> float:
        alone = bert(torch.tensor([[*tokenizer.prefix, *ids, *tokenizer.suffix]]))[0][0]
        theirs = alone[len(tokenizer.prefix) : len(alone) - len(tokenizer.suffix)]
        mine = hidden[place : place + len(ids)]
        error = ((mine - theirs) ** 2).sum(1) / (theirs**2).sum(1)
        return float(error.mean() + 1 - cosine_similarity(mine.mean(0), theirs.mean(0), dim=0))

    for item, request, weight, value in zip(passes, REQUESTS, weights, found, strict=False):
        hidden = bert(torch.tensor(item.ids[None].astype(np.int64)))[0][0]
        place, labels = len(tokenizer.prefix), []
        for label in request.labels:
            ids = list(tokenizer.ids_of_label(label))
            labels.append(apart(ids, hidden, place + 1))
            place += 1 + len(ids)
        text = apart(tokenizer.ids(request.text).tolist(), hidden, place + 1)
        assert float(value) == pytest.approx(weight * (np.mean(labels) + text) / 2, abs=1e-4)
    assert float(found[2]) == 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "records.jsonl"
    rows = [{"text": request.text, "all_labels": list(request.labels), "true_labels": []} for request in REQUESTS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def config_for(model: Path, data: Path, anchor: Path, out: Path, steps: int = 30) -> TrainConfig:
    return TrainConfig(
        model=str(model), anchor=anchor, out=out, train=(Source(file=data, anchor=3.0),), steps=steps, step_tokens=100,
        learning_rate=2e-3, eval_every=2, threads=1, precision="fp32", dropout=0.0,
    )  # fmt: skip


def test_training_comes_nearer_and_gives_the_same_weights_again(
    tiny: Tiny, backbone: Backbone, data: Path, tmp_path: Path
) -> None:
    encoder_folder = backbone(NAME)

    def distance(folder: Path) -> float:
        checkpoint, model, encoder = parts(folder)
        anchor = Anchor(encoder_folder, checkpoint, model)
        passes = [item for request in encoder.encode(REQUESTS) for item in request.sequences]
        states = anchor.teach(passes, [1.0, 1.0])
        with torch.no_grad():
            ModelRunner(checkpoint, model)(passes)
        return float(anchor.distances(passes, [1.0, 1.0], states).mean())

    start = tiny(NAME).folder
    made = train(config_for(start, data, encoder_folder, tmp_path / "whole"), console=Console(quiet=True))
    assert distance(made) < 0.8 * distance(start)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    again = train(config_for(start, data, encoder_folder, tmp_path / "again"), console=Console(quiet=True))
    one, other = load_file(made / "model.safetensors"), load_file(again / "model.safetensors")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_wrong_anchor_is_refused(tiny: Tiny, backbone: Backbone, tmp_path: Path) -> None:
    checkpoint, model, _ = parts(tiny(NAME).folder)
    with pytest.raises(CheckpointError, match=r"expected an encoder's folder with config\.json"):
        Anchor(tmp_path / "nothing", checkpoint, model)
    other = backbone(NAME)
    vocabulary = json.loads((other / "tokenizer.json").read_text("utf-8"))
    vocabulary["model"]["vocab"] = dict(
        zip(vocabulary["model"]["vocab"], reversed(vocabulary["model"]["vocab"].values()), strict=True)
    )
    (other / "tokenizer.json").write_text(json.dumps(vocabulary), "utf-8")
    with pytest.raises(CheckpointError, match="the model's own vocabulary"):
        Anchor(other, checkpoint, model)
    separate, model, _ = parts(tiny("bi-encoder").folder)
    with pytest.raises(UnsupportedModelError, match="reads its labels before the text"):
        Anchor(other, separate, model)


def test_an_anchor_that_nothing_asks_for_is_refused(tmp_path: Path) -> None:
    for anchor, weight in (('anchor = "encoder"\n', ""), ("", "anchor = 1.0\n")):
        file = tmp_path / "run.toml"
        file.write_text(f'model = "m"\nout = "o"\nsteps = 1\n{anchor}[[train]]\nfile = "f"\n{weight}', "utf-8")
        with pytest.raises(InputError, match="a source with a weight for it"):
            read_config(file)
