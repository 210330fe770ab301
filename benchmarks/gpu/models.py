"""Models of the published shapes with random weights, since speed does not depend on the weights.

Shapes are those of the published configurations: ModernBERT base and large, DeBERTa-v3 base and large, and Ettin-32m
for the edge model, which with its head has exactly the 32.7M parameters of its model card. The tokenizer is that of
`mini`. Its ids are all within the embedding tables of these models, which keep their true sizes.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from gliclass import GLiClassModel, GLiClassModelConfig
from tokenizers import Tokenizer
from transformers import DebertaV2Config, ModernBertConfig, PretrainedConfig, PreTrainedTokenizerFast

from gliclass_rerank.scorers.load import locate

SEED = 7
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """A published model's sizes.

    Attributes:
        family: its backbone.
        width, layers, inner, heads: hidden size, number of layers, size of the feed-forward block, attention heads.
        vocabulary: rows of the embedding table.
        parameters: millions, as published, None for the toys.
        scorer: scorer type of the head.
    """

    family: Literal["modernbert", "deberta"]
    width: int
    layers: int
    inner: int
    heads: int
    vocabulary: int
    parameters: float | None
    scorer: Literal["simple", "mlp"] = "simple"


SHAPES = {
    "modern-base": Shape("modernbert", 768, 22, 1152, 12, 50368, 151),
    "modern-large": Shape("modernbert", 1024, 28, 2624, 16, 50368, 399),
    "deberta-base": Shape("deberta", 768, 12, 3072, 12, 128100, 187),
    "edge": Shape("modernbert", 384, 10, 576, 6, 50368, 32.7, "mlp"),
    "deberta-large": Shape("deberta", 1024, 24, 4096, 16, 128100, 439),
}
TOYS = {
    "toy modern": Shape("modernbert", 64, 3, 96, 4, 30528, None),
    "toy deberta": Shape("deberta", 64, 2, 128, 4, 30528, None),
    "toy edge": Shape("modernbert", 64, 2, 96, 4, 30528, None, "mlp"),
}


def build(shape: Shape, folder: Path, device: torch.device) -> GLiClassModel:
    """Write a checkpoint of this shape to ``folder``, and return upstream's model of it, fp32, on the device."""
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(locate("mini")[0] / name, folder / name)
    model = model_of(shape, Tokenizer.from_file(str(folder / "tokenizer.json")), device)
    draw_weights(model)
    model.save_pretrained(folder)
    return model


def model_of(shape: Shape, tokenizer: Tokenizer, device: torch.device) -> GLiClassModel:
    """Create upstream's model of this shape, with pooling "first" for text and labels and its initial weights."""
    config = GLiClassModelConfig(
        encoder_config=encoder_config(shape),
        encoder_model="none",
        class_token_index=tokenizer.token_to_id("<<LABEL>>"),
        text_token_index=tokenizer.token_to_id("<<SEP>>"),
        example_token_index=tokenizer.token_to_id("<<EXAMPLE>>"),
        vocab_size=shape.vocabulary,
        pooling_strategy="first",
        class_token_pooling="first",
        scorer_type=shape.scorer,
        problem_type="multi_label_classification",
        prompt_first=True,
        pad_token_id=0,
    )
    torch.manual_seed(SEED)
    with device:
        return GLiClassModel(config).eval()


def encoder_config(shape: Shape) -> PretrainedConfig:
    sizes: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if shape.family == "modernbert":  # local attention of 128 in two of three layers is the default
        return ModernBertConfig(**sizes, cls_token_id=None, sep_token_id=None, max_position_embeddings=8192)
    distances: dict[str, Any] = {
        "relative_attention": True,
        "position_buckets": 256,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    }
    return DebertaV2Config(**sizes, **distances, max_position_embeddings=512, type_vocab_size=0, layer_norm_eps=1e-7)


def draw_weights(model: GLiClassModel) -> None:
    """Draw weights that keep activations at about unit size, so that logits differ between texts and stay finite.

    A fresh initialization gives nearly the same logit for every text, so that comparing logits would be meaningless.
    """
    generator = torch.Generator(next(model.parameters()).device).manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                gain = parameter.shape[-1] ** -0.5
                if name.endswith("projector.linear_2.weight") and model.config.scorer_type == "simple":
                    gain *= 1.4 * parameter.shape[-1] ** -0.25  # a dot product of two is then of about unit size
                parameter.normal_(0, gain, generator=generator)
            elif parameter.ndim == 1 and name.endswith("bias"):
                parameter.normal_(0, 0.02, generator=generator)
            elif parameter.ndim == 1:
                parameter.normal_(1, 0.02, generator=generator)


def parameters(model: GLiClassModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def transformers_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of `build`'s folder, for upstream's pipeline."""
    tokens = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **tokens)  # type: ignore[no-untyped-call]
