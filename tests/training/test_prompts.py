"""A model that is trained with prompts says so, wherever its folder goes from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Tiny
from rich.console import Console

from gliclass_rerank import Reranker, load_scorer
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.training.config import Source, TrainConfig
from gliclass_rerank.training.trainer import train


@pytest.mark.parametrize("prompt", ["", "Judge the topic."])
def test_the_folder_of_a_trained_model_tells_of_its_prompts(tiny: Tiny, tmp_path: Path, prompt: str) -> None:
    record = {"text": "Bread rises.", "all_labels": ["baking", "law"], "true_labels": ["baking"], "prompt": prompt}
    data = tmp_path / "records.jsonl"
    data.write_text(json.dumps(record) + "\n", "utf-8")
    config = TrainConfig(
        model=str(tiny("bert-simple").folder), out=tmp_path / "run", train=(Source(file=data),), steps=1,
        step_tokens=50, batch_tokens=50, threads=1, precision="fp32",
    )  # fmt: skip
    trained = train(config, console=Console(quiet=True))
    assert load_scorer(trained, device="cpu").info.prompts is bool(prompt)


def test_an_exported_model_keeps_the_prompts_of_its_family(tiny: Tiny, tmp_path: Path) -> None:
    named = tmp_path / "gliclass-instruct-tiny"
    named.symlink_to(tiny("bert-simple").folder)
    export_checkpoint(named, tmp_path / "onnx", dtype="fp32", name="judge")
    scorer = load_scorer(tmp_path / "onnx", backend="onnx")
    assert (scorer.info.name, scorer.info.prompts) == ("judge", True)
    assert Reranker(scorer).rank("bread", ["Bread rises."], instruction="Judge the topic.")
