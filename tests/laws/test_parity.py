"""Our logits equal upstream's for the single unpadded example, whatever else is in our batch.

Upstream prepares and runs one example at a time with its own pipelines; we score all of them in one call with
large padded batches. So parity also proves that padding and neighbours change nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from checkpoints import BY_NAME, HIDDEN, SPECS
from conftest import Scorers, Tiny
from gliclass import GLiClassModel, GLiClassModelConfig
from transformers import BertConfig
from upstream_logits import (
    LARGE_BATCH,
    TOLERANCE,
    largest_difference,
    requests_for,
    upstream_logits,
    upstream_runs,
)

from gliclass_rerank import UnsupportedModelError
from gliclass_rerank.models.checkpoint import refuse_unsupported
from gliclass_rerank.types import FloatArray

__all__ = ["upstream_runs"]

Differences = dict[tuple[str, str], float]

ONNX_LAYOUTS = (
    "bert-simple",
    "bert-average-text",
    "bert-prompts-segments",
    "bert-max-text",
    "modernbert-mlp",
    "modernbert-segments",
    "deberta-simple",
    "deberta-cross-attn",
    "deberta-calibrated",
    "modernbert-calibrated",
)


@pytest.fixture(scope="module")
def differences() -> Differences:
    return {}


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_torch_equals_upstream(name: str, tiny: Tiny, scorers: Scorers, differences: Differences) -> None:
    scorer = scorers(name, max_batch_tokens=LARGE_BATCH)
    requests = list(requests_for(tiny(name)))
    ours, theirs = scorer.score(requests), [upstream_logits(tiny(name), request) for request in requests]
    differences[name, "torch"] = largest_difference(ours, theirs)
    assert differences[name, "torch"] <= TOLERANCE
    assert tells_apart(theirs), "this checkpoint gives the same logit everywhere and proves nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", ONNX_LAYOUTS)
def test_onnx_equals_upstream(name: str, tiny: Tiny, scorers: Scorers, differences: Differences) -> None:
    scorer = scorers(name, "onnx", max_batch_tokens=LARGE_BATCH)
    assert (scorer.info.backend, scorer.info.dtype) == ("onnx", "fp32")
    requests = list(requests_for(tiny(name)))
    theirs = [upstream_logits(tiny(name), request) for request in requests]
    differences[name, "onnx"] = largest_difference(scorer.score(requests), theirs)
    assert differences[name, "onnx"] <= TOLERANCE


def test_upstream_cannot_run_squeeze_layers_and_we_refuse_it_by_name() -> None:
    encoder = BertConfig(hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, vocab_size=50)
    config = GLiClassModelConfig(encoder_config=encoder, encoder_model="none", squeeze_layers=True)
    model = GLiClassModel(config).eval()
    ids = torch.tensor([[1, config.class_token_index, 2, config.text_token_index, 3]]) % 50
    with pytest.raises(RuntimeError):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    with pytest.raises(UnsupportedModelError, match="squeeze_layers"):
        refuse_unsupported(config.to_dict())


def test_parity_table(differences: Differences, capsys: pytest.CaptureFixture[str]) -> None:
    if not differences:
        pytest.skip("nothing was compared in this run")
    with capsys.disabled():
        sys.stdout.write(f"\n{'layout':36} {'backbone':11} {'backend':8} max |difference|\n")
        for (name, backend), difference in differences.items():
            sys.stdout.write(f"{name:36} {BY_NAME[name].backbone:11} {backend:8} {difference:.1e}\n")
    assert max(differences.values()) <= TOLERANCE


def tells_apart(logits: Sequence[FloatArray]) -> bool:
    """Logits differ clearly between the labels of a text, and between the texts of a label."""
    of_four = np.stack([row for row in logits if len(row) == 4])
    return bool(np.ptp(of_four, axis=1).max() > 0.1 and np.ptp(of_four[:, 0]) > 0.1)
