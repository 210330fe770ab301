"""Our logits equal upstream's for the single unpadded example, whatever else is in our batch.

Upstream prepares and runs one example at a time with its own pipelines; we score all of them in one call with
large padded batches. So parity also proves that padding and neighbours change nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gliclass.model
import numpy as np
import pytest
import torch
from checkpoints import BY_NAME, HIDDEN, SPECS, Built, upstream_inputs
from conftest import Scorers, Tiny
from gliclass import GLiClassModel, GLiClassModelConfig
from tokenizers import Tokenizer
from transformers import BertConfig

from gliclass_rerank import Example, ScoreRequest, UnsupportedModelError
from gliclass_rerank.scoring.checkpoint import refuse_unsupported
from gliclass_rerank.types import FloatArray

TOLERANCE = 1e-4
LARGE_BATCH = 1 << 14  # tokens: one batch for each number of labels
Differences = dict[tuple[str, str], float]

TEXTS = (
    "Bread rises because yeast turns sugar into gas.",
    'Why was my card declined?  I paid the invoice on Tuesday, and again in March;\nboth times it said "error 14".',
    "x",
    "東京 is the capital of Japan — naïve façades, 25 °C, €40 😀",
    "the court found that the contract was void, since neither party had signed the last page. " * 4,
)
LABELS = ("science", "a question about a payment", "law", "cooking, travel and weather in the mountains")
PROMPT = "Classify the text by its topic:"
EXAMPLES = (
    Example("The violin is played with a bow.", ("music",)),
    Example("Prices rose by two percent.", ("finance", "politics")),
)
ONNX_LAYOUTS = (
    "bert-simple",
    "bert-average-text",
    "bert-prompts-segments",
    "bert-max-text",
    "modernbert-mlp",
    "modernbert-segments",
    "deberta-simple",
    "deberta-cross-attn",
)


@dataclass
class CompleteOutput(gliclass.model.GLiClassOutput):  # type: ignore[misc]
    """Upstream's output with the field that transformers 5.24 and newer rename ``past_key_values`` to."""

    cache: Any = None


@pytest.fixture(autouse=True)
def _upstream_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let upstream's own decoder-kv forward, which is the reference, return its result beside any transformers."""
    monkeypatch.setattr(gliclass.model, "GLiClassOutput", CompleteOutput)


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


def requests_for(built: Built) -> Iterator[ScoreRequest]:
    """Texts of many lengths with one to four labels, with and without prompt and examples."""
    labels = labels_for(built)
    for i, text in enumerate(TEXTS):
        for count in range(1, 5):
            chosen = (labels[i % 4 :] + labels[: i % 4])[:count]
            yield ScoreRequest(text, chosen)
            yield ScoreRequest(text, chosen, prompt=PROMPT)
        if built.spec.architecture != "bi-encoder":  # which reads no examples
            yield ScoreRequest(text, labels, examples=EXAMPLES)
            yield ScoreRequest(text, labels[:2], prompt=PROMPT, examples=EXAMPLES[:1])


def labels_for(built: Built) -> tuple[str, ...]:
    if not built.spec.architecture.startswith("bi-encoder") or built.model.config.pooling_strategy == "first":
        return LABELS
    # Upstream pads the labels of a set to the longest and pools over the padding too: only for labels of as many
    # tokens is its reference free of padding.
    tokenizer = Tokenizer.from_file(str(built.folder / "label_tokenizer" / "tokenizer.json"))
    words = "science music politics law travel sports health finance spam cooking weather".split()
    by_length: dict[int, list[str]] = {}
    for word in words:
        by_length.setdefault(len(tokenizer.encode(word).ids), []).append(word)
    return tuple(max(by_length.values(), key=len)[:4])


@torch.no_grad()
def upstream_logits(built: Built, request: ScoreRequest) -> FloatArray:
    """Upstream's logits, calibrated if the checkpoint is; float32, shape (labels,)."""
    inputs = upstream_inputs(built, request)
    assert inputs["attention_mask"].all(), "the reference is padded"
    options: dict[str, Any] = {"max_num_classes": len(request.labels)}
    if built.model.config.encoder_layer_id != -1:  # upstream's pipeline forgets to ask the encoder for its layers
        options["output_hidden_states"] = True
    logits = built.model(**inputs, **options).logits
    return np.asarray(logits[0, : len(request.labels)], np.float32)


def largest_difference(ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> float:
    assert [row.shape for row in ours] == [row.shape for row in theirs]
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def tells_apart(logits: Sequence[FloatArray]) -> bool:
    """Logits differ clearly between the labels of a text, and between the texts of a label."""
    of_four = np.stack([row for row in logits if len(row) == 4])
    return bool(np.ptp(of_four, axis=1).max() > 0.1 and np.ptp(of_four[:, 0]) > 0.1)
