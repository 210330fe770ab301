"""BERT with its last layer only where the head reads: the labels, and the one token that stands for the text.

The last state of a position needs keys and values of all positions, but query and feed-forward block of its own only.
If the head reads label positions only (`Checkpoint.head_reads_labels_only`) and labels are short, most of the layer is
skipped: up to a sixth of a six-layer model.

Shapes: B sequences, S positions, P of them read, D encoder size.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from transformers import BertModel
from transformers.models.bert.modeling_bert import BertLayer


def encode_label_positions(
    encoder: BertModel, embeds: Tensor, attention_mask: Tensor, label_positions: Tensor
) -> Tensor:
    """Encode token embeddings to the last layer's states at the positions that are read.

    Args:
        embeds: of the tokens, shape (B, S, D).
        attention_mask: int64, shape (B, S).
        label_positions: int64, shape (P,), the positions 0 to P - 1.

    Returns:
        Shape (B, P, D).
    """
    hidden: Tensor = encoder.embeddings(inputs_embeds=embeds)
    bias = (1 - attention_mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
    *layers, last = encoder.encoder.layer
    for layer in layers:
        hidden = layer(hidden, bias)
    return _at(cast(BertLayer, last), hidden, bias, label_positions)


def _at(layer: BertLayer, hidden: Tensor, bias: Tensor, label_positions: Tensor) -> Tensor:
    """A layer's states at some positions, shape (B, P, D), from those before it at all of them."""
    part = layer.attention.self
    read = hidden[:, label_positions]
    query, key, value = (
        _heads(project(states), part.attention_head_size)
        for project, states in ((part.query, read), (part.key, hidden), (part.value, hidden))
    )
    scores = query @ key.transpose(2, 3) * part.attention_head_size**-0.5 + bias
    context = (part.dropout(scores.softmax(-1)) @ value).transpose(1, 2).flatten(2)
    attended = layer.attention.output(context, read)
    out: Tensor = layer.output(layer.intermediate(attended), attended)
    return out


def _heads(states: Tensor, size: int) -> Tensor:
    """Split features into heads: (B, S, D) to (B, heads, S, head size)."""
    return states.view(*states.shape[:2], -1, size).transpose(1, 2)
