"""The last layer computed only where the head reads gives the scores of the whole, and is computed nowhere else."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import CORPUS, SPECS
from conftest import Exported, Tiny

from gliclass_rerank import ScoreRequest
from gliclass_rerank.models.checkpoint import Checkpoint, read_checkpoint
from gliclass_rerank.models.encoding import EncodedSequence, InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.torch import ModelRunner, load_model

# Checked by hand: text-first, averaged labels beside a text that is not extracted, another pooling, an LSTM, an earlier
# layer and another backbone read more.
ONLY_PROMPTS = {
    "bert-simple", "bert-loose-markers", "bert-prompts", "bert-prompts-segments", "bert-no-class-token",
    "bert-hopfield", "bert-weighted-dot", "bert-calibrated", "bert-first-text",
}  # fmt: skip
REQUESTS = [
    ScoreRequest(text, labels, prompt=prompt)
    for text in CORPUS[:4]
    for labels in (("science",), ("a question", "law", "cooking and travel"))
    for prompt in ("", "Sort by topic:")
]


def passes_of(checkpoint: Checkpoint) -> list[EncodedSequence]:
    encoder = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))
    return [item for request in encoder.encode(REQUESTS) for item in request.sequences]


def test_which_layouts_read_only_prompts(tiny: Tiny) -> None:
    berts = {spec.name for spec in SPECS if spec.name.startswith(("bert-", "modernbert-simple", "bi-encoder"))}
    assert {name for name in berts if read_checkpoint(tiny(name).folder).head_reads_labels_only} == ONLY_PROMPTS


@pytest.mark.parametrize("name", sorted(ONLY_PROMPTS))
def test_scores_and_gradients_are_those_of_the_whole_layer(name: str, tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny(name).folder)
    model, passes = load_model(checkpoint).eval(), passes_of(checkpoint)
    found = []
    for all_states in (False, True):
        model.zero_grad()
        logits = ModelRunner(checkpoint, model, all_states=all_states)(passes)
        logits.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((logits.detach(), torch.cat([gradient.flatten() for gradient in gradients])))
    (ours, slopes), (whole, slopes_of_whole) = found
    assert torch.allclose(ours, whole, rtol=1e-5, atol=1e-5)
    assert torch.allclose(slopes, slopes_of_whole, rtol=1e-3, atol=1e-4 * float(slopes_of_whole.abs().max()))


def test_nothing_else_is_computed(tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny("bert-prompts").folder)
    model, passes = load_model(checkpoint).eval(), passes_of(checkpoint)
    rows: list[int] = []
    for layer in model.model.encoder_model.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1]))
    with torch.inference_mode():
        ModelRunner(checkpoint, model)(passes)
    *others, last = rows
    assert set(others) == {max(len(item.ids) for item in passes)}
    assert last == max(item.separator for item in passes) + 1 < min(others)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_graph_reads_what_it_is_told_and_nothing_behind_it(dtype: str, exported: Exported) -> None:
    """More positions than needed change nothing; those of a batch's longest prompt are needed."""
    folder = exported("bert-prompts", dtype)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert "prompts" in [item.name for item in session.get_inputs()]
    checkpoint = read_checkpoint(folder)
    (item, *_) = passes_of(checkpoint)
    feed = {
        "input_ids": item.ids[None].astype(np.int64),
        "attention_mask": np.ones((1, len(item.ids)), np.int64),
        "label_spans": item.label_spans[None].astype(np.int64),
        "separators": np.array([item.separator]),
    }
    needed, every, short = (
        session.run(["logits"], feed | {"prompts": np.arange(count)})[0]
        for count in (item.separator + 1, len(item.ids), item.separator)
    )
    assert np.abs(needed - every).max() <= 1e-5
    assert np.abs(short - every).max() > 1e-3
