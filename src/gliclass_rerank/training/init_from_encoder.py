"""Initialize a GLiClass model from a plain sentence encoder, so that training starts from the encoder's geometry.

A sentence encoder already places a query near its answers. The new model keeps these distances. Text and labels are
means over their tokens, as in the encoder's own training. Both projectors are exactly the identity, since
``gelu(x) - gelu(-x) = x`` (hidden size twice the encoder's, ``linear_1 = [I; -I]``, ``linear_2 = [I, -I]``). The
markers start as the separator. Opposite biases in the two projectors move unrelated pairs below zero:
``cos(text + b, label - b) = (text . label - |b|^2) / (|text + b| |label - b|)``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import torch
from gliclass import GLiClassModel, GLiClassModelConfig
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from gliclass_rerank.errors import CheckpointError, UnsupportedModelError
from gliclass_rerank.models.backbones import ENCODERS
from gliclass_rerank.models.checkpoint import OPTIONS_FILE, refuse_used_folder
from gliclass_rerank.models.tokenizer import MARKERS

SCALE = 20.0  # logits per unit of cosine, the usual scale in training sentence encoders
THRESHOLD = 0.3  # cosine of a pair that starts at logit 0
PROBES = (
    "How do I reset my password?",
    "The court found that the contract was void, since neither party had signed the last page.",
    "photosynthesis in desert plants",
    "Prices rose by two percent in March, while wages and pensions stayed where they were.",
)


def new_checkpoint(backbone: Path, target: Path, *, max_labels: int | None = None, seed: int = 0) -> None:
    """Write a GLiClass uni-encoder that is initialized from a sentence encoder.

    Args:
        backbone: folder of a plain encoder with a fast tokenizer (all-MiniLM-L6-v2, for instance).
        target: the new checkpoint's folder, which must be absent or empty.
        max_labels: number of labels per pass in training, stored in the model's options.
        seed: of the biases' direction.

    Raises:
        CheckpointError: no encoder or no tokenizer.json in ``backbone``.
        UnsupportedModelError: an unsupported kind of encoder.
        InputError: ``target`` is in use.
    """
    for file in ("config.json", "tokenizer.json"):
        if not (backbone / file).is_file():
            raise CheckpointError(f"{backbone}: expected an encoder's folder with config.json and tokenizer.json")
    refuse_used_folder(target)
    encoder_config = AutoConfig.from_pretrained(backbone)
    if encoder_config.model_type not in ENCODERS:
        raise UnsupportedModelError(f"{backbone}: a {encoder_config.model_type}; supported are {', '.join(ENCODERS)}")
    encoder: PreTrainedModel = AutoModel.from_pretrained(backbone, dtype=torch.float32).eval()
    encoder.config._name_or_path = backbone.name  # removes the path on this machine
    tokenizer = Tokenizer.from_file(str(backbone / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    norm = _typical_norm(encoder, tokenizer)
    separator = _separator(tokenizer)
    tokenizer.add_special_tokens([AddedToken(marker, normalized=False) for marker in MARKERS])
    _grow_embeddings(encoder, tokenizer.get_vocab_size(), separator)
    model = _model(encoder, tokenizer)
    _project_identically(model, bias=(THRESHOLD * norm) ** 0.5, seed=seed)
    model.save_pretrained(target)
    tokenizer.save(str(target / "tokenizer.json"))
    for file in ("tokenizer_config.json", "special_tokens_map.json"):  # read by transformers
        if (backbone / file).is_file():
            shutil.copyfile(backbone / file, target / file)
    card = {"max_labels": max_labels}
    (target / OPTIONS_FILE).write_text(json.dumps(card, indent=2) + "\n", "utf-8")


def _model(encoder: PreTrainedModel, tokenizer: Tokenizer) -> GLiClassModel:
    label, sep, example = (tokenizer.token_to_id(marker) for marker in MARKERS)
    config = GLiClassModelConfig(
        encoder_config=encoder.config,
        encoder_model="",
        architecture_type="uni-encoder",
        class_token_index=label,
        text_token_index=sep,
        example_token_index=example,
        pooling_strategy="avg",
        class_token_pooling="average",
        extract_text_features=True,
        normalize_features=True,
        logit_scale_init_value=SCALE * (1 + THRESHOLD),
        scorer_type="simple",
        prompt_first=True,
        hidden_size=2 * encoder.config.hidden_size,
        problem_type="multi_label_classification",
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=encoder.config.pad_token_id,
        dropout=0.0,
    )
    model = GLiClassModel(config, from_pretrained=False)
    model.model.encoder_model.load_state_dict(encoder.state_dict(), strict=False)
    return model


@torch.no_grad()
def _project_identically(model: GLiClassModel, *, bias: float, seed: int) -> None:
    """Set both projectors to the identity, plus and minus a vector of length ``bias``."""
    core = model.model
    size = core.text_projector.linear_1.in_features
    direction = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    direction *= bias / direction.norm()
    eye = torch.eye(size)
    for projector, sign in ((core.text_projector, 1), (core.classes_projector, -1)):
        projector.linear_1.weight.copy_(torch.cat([eye, -eye]))
        projector.linear_1.bias.zero_()
        projector.linear_2.weight.copy_(torch.cat([eye, -eye], 1))
        projector.linear_2.bias.copy_(sign * direction)


@torch.no_grad()
def _grow_embeddings(encoder: PreTrainedModel, size: int, separator: int) -> None:
    """Add embedding rows for the markers, each a copy of the separator's."""
    encoder.resize_token_embeddings(size, mean_resizing=False)
    weight = cast(nn.Embedding, encoder.get_input_embeddings()).weight
    weight[-len(MARKERS) :] = weight[separator]


@torch.no_grad()
def _typical_norm(encoder: PreTrainedModel, tokenizer: Tokenizer) -> float:
    """Mean squared length of pooled vectors of the probe texts. The biases scale with it."""
    squares: list[Tensor] = []
    for text in PROBES:
        ids = torch.tensor([tokenizer.encode(text).ids])
        hidden: Tensor = cast(nn.Module, encoder)(input_ids=ids)[0]
        squares.append(hidden[0].mean(0).square().sum())
    return float(torch.stack(squares).mean())


def _separator(tokenizer: Tokenizer) -> int:
    """Id of the token that ends a sequence ([SEP], </s>)."""
    ids: list[int] = tokenizer.encode("a").ids
    return ids[-1]
