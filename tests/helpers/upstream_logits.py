"""Upstream's logits of single unpadded examples, which ours are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gliclass.model
import numpy as np
import pytest
import torch
from checkpoints import Built, upstream_inputs
from tokenizers import Tokenizer

from gliclass_rerank import Example, ScoreRequest
from gliclass_rerank.types import FloatArray

TOLERANCE = 1e-4


LARGE_BATCH = 1 << 14  # tokens: one batch for each number of labels


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


@dataclass
class CompleteOutput(gliclass.model.GLiClassOutput):  # type: ignore[misc]
    """Upstream's output with the field that transformers 5.24 and newer rename ``past_key_values`` to."""

    cache: Any = None


@pytest.fixture(autouse=True)
def upstream_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let upstream's own decoder-kv forward, which is the reference, return its result beside any transformers."""
    monkeypatch.setattr(gliclass.model, "GLiClassOutput", CompleteOutput)


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
