"""Forward passes over a BERT-like encoder whose labels do not see each other.

The text block attends to itself, from position 0. Each label block attends to the text block and to itself, from
position 1. So the keys and values of a text are the same for all labels, and are computed once.

Shapes: B texts, S positions, C labels, W positions of a label, L layers, H heads, d = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from gliclass import GLiClassModel
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLayer

from gliclass_rerank.models.backbones import OFFSET_POSITIONS
from gliclass_rerank.scorers.padded.forward import head, span_means

FIRST_POSITION = 1  # of a label
REACH = 5.0  # standard deviations that int8 keys and values cover
LEVELS = 127  # of int8
Steps: TypeAlias = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class TextState:
    """All that labels read of texts.

    Attributes:
        keys, values: of each layer, shape (B, H, S, d), in the model's dtype or int8.
        lengths: int64, shape (B,).
        pooled: mean of the last states of each text, shape (B, D).
        steps: of int8 keys and values, see `IndependentForward.steps`; else None.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor
    pooled: Tensor
    steps: Steps | None = None

    def rounded(self, steps: Steps) -> TextState:
        """The same with keys and values as int8. Those beyond the reach are clipped."""
        keys = [_int8(key * (1 / step)) for key, (step, _) in zip(self.keys, steps, strict=True)]
        values = [_int8(value * (1 / step)) for value, (_, step) in zip(self.values, steps, strict=True)]
        return TextState(keys, values, self.lengths, self.pooled, steps)

    def products(self, layer: int, query: Tensor) -> Tensor:
        """Products of ``query`` (B, H, W, d) with the keys of a layer, shape (B, H, W, S)."""
        keys = self.keys[layer]
        if self.steps is not None:
            query, keys = query * self.steps[layer][0], keys.to(query.dtype)
        return query @ keys.transpose(-1, -2)

    def mean(self, layer: int, shares: Tensor) -> Tensor:
        """Sum of the values of a layer weighted by ``shares`` (B, H, W, S), shape (B, H, W, d)."""
        if self.steps is None:
            return shares @ self.values[layer]
        return shares @ self.values[layer].to(shares.dtype) * self.steps[layer][1]


class IndependentForward(nn.Module):
    """Read texts, then score labels against what was read.

    Args:
        model: upstream's uni-encoder over BERT, ELECTRA or RoBERTa, whose modules it shares.
    """

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.model = model
        encoder = model.model.encoder_model
        self.embeddings = encoder.embeddings
        self.layers: list[BertLayer] = list(encoder.encoder.layer)  # ELECTRA's and RoBERTa's have the same parts
        self.project = getattr(encoder, "embeddings_project", None)  # ELECTRA's small models
        self.heads = int(encoder.config.num_attention_heads)
        has_offset = encoder.config.model_type in OFFSET_POSITIONS
        self.offset = int(encoder.config.pad_token_id) + 1 if has_offset else 0

    def read(self, ids: Tensor, lengths: Tensor) -> TextState:
        """Read texts: ``ids`` int64 of shape (B, S), ``lengths`` int64 of shape (B,)."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        inside = positions < lengths[:, None]
        hidden = self._embed(ids, positions.expand_as(ids))
        mask = additive(inside, hidden.dtype)[:, None, None]  # (B, 1, 1, S)
        keys, values = [], []
        for layer in self.layers:
            query, key, value = self._projected(layer, hidden)
            keys.append(key)
            values.append(value)
            context = weights(self._scores(query, key) + mask, layer) @ value
            hidden = after_attention(layer, merged(context), hidden)
        return TextState(keys, values, lengths, masked_mean(hidden, inside))

    def steps(self) -> Steps:
        """One level of the int8 keys and values of each layer, shape (H, 1, d) each.

        They depend on the weights alone. The input of the projections is normalised, so the mean of a channel is known
        exactly, and its standard deviation if the inputs were uncorrelated, which is near enough for a reach.
        """
        owns = [layer.attention.self for layer in self.layers]
        return [(self._step(place, own.key), self._step(place, own.value)) for place, own in enumerate(owns)]

    def _step(self, place: int, projection: nn.Linear) -> Tensor:
        weight, bias = projection.weight, projection.bias
        if place > 0:
            norm = self.layers[place - 1].output.LayerNorm
        else:
            norm = self.embeddings.LayerNorm
            if self.project is not None:
                weight, bias = weight @ self.project.weight, weight @ self.project.bias + bias
        reach: Tensor = (weight @ norm.bias + bias).abs() + REACH * (weight * norm.weight).norm(dim=1)
        return reach.detach().reshape(self.heads, 1, -1) / LEVELS

    def score(self, state: TextState, ids: Tensor, widths: Tensor) -> Tensor:
        """Return logits, shape (B, C), for labels ``ids`` int64 of shape (B, C, W), ``widths`` int64 of shape (B, C).

        The logits of labels of width 0 are meaningless. The attention to the text and that to the label itself are
        normalised apart and then weighted. In one softmax, the padding of a text would stand between the two and move
        the last bits of a sum with the other texts of a batch, which int8 turns into hundredths of a logit.
        """
        texts, labels, width = ids.shape
        positions = torch.arange(width, device=ids.device)
        inside = (positions < widths[..., None]) | ((widths[..., None] == 0) & (positions == 0))  # no empty softmax
        flat = ids.reshape(texts, labels * width)
        hidden = self._embed(flat, (positions + FIRST_POSITION).expand_as(ids).reshape(flat.shape))
        of_texts = torch.arange(state.keys[0].shape[2], device=ids.device) < state.lengths[:, None]
        text_mask = additive(of_texts, hidden.dtype)[:, None, None]  # (B, 1, 1, S)
        own_mask = additive(inside, hidden.dtype)[:, None, :, None, :]  # (B, 1, C, 1, W)
        for place, layer in enumerate(self.layers):
            query, key, value = self._projected(layer, hidden)
            blocks = (texts, self.heads, labels, width, -1)
            query = query * query.shape[-1] ** -0.5
            of_text = state.products(place, query) + text_mask
            of_own = query.reshape(blocks) @ key.reshape(blocks).transpose(-1, -2) + own_mask
            to_text, text_total = shares(of_text)
            to_own, own_total = shares(of_own)
            share_of_text = torch.sigmoid(text_total - own_total.reshape(text_total.shape)).to(query.dtype)
            own = (to_own @ value.reshape(blocks)).reshape(query.shape)
            context = share_of_text * state.mean(place, to_text) + (1 - share_of_text) * own
            hidden = after_attention(layer, merged(context), hidden)
        vectors = masked_mean(hidden.reshape(texts, labels, width, -1), inside)
        return head(self.model, state.pooled, vectors, torch.ones_like(widths[:, :1], dtype=torch.bool))

    def whole(self, ids: Tensor, blocks: Tensor, positions: Tensor, spans: Tensor) -> tuple[Tensor, Tensor]:
        """Read texts and labels in one pass: logits (B, C) and pooled texts (B, D), those of `read` and `score`.

        All tokens share the products with the weights, which makes it fast in training. The attention of each token to
        all tokens is computed and masked, which `score` avoids. Arguments are those of `WholeSequences`.
        """
        of_text = blocks == 0
        sees = of_text[:, None, :] | (blocks[:, :, None] == blocks[:, None, :])
        hidden = self._embed(ids, torch.where(of_text, positions, positions + FIRST_POSITION))
        mask = additive(sees, hidden.dtype)[:, None]
        for layer in self.layers:
            query, key, value = self._projected(layer, hidden)
            context = weights(self._scores(query, key) + mask, layer) @ value
            hidden = after_attention(layer, merged(context), hidden)
        pooled = masked_mean(hidden, of_text)
        all_true = torch.ones_like(blocks[:, :1], dtype=torch.bool)
        return head(self.model, pooled, span_means(hidden, spans), all_true), pooled

    def vectors(self, pooled: Tensor) -> Tensor:
        """Sentence vectors of length 1, shape (B, D), of pooled texts: the text side of the score."""
        projected: Tensor = self.model.model.text_projector(pooled)
        return nn.functional.normalize(projected.float(), dim=-1)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        embedded: Tensor = self.embeddings(
            input_ids=ids, position_ids=positions + self.offset, token_type_ids=torch.zeros_like(ids)
        )
        if self.project is None:
            return embedded
        projected: Tensor = self.project(embedded)
        return projected

    def _projected(self, layer: BertLayer, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a layer, shape (B, H, S, d) each."""
        own = layer.attention.self
        split = (*hidden.shape[:2], self.heads, -1)
        query, key, value = (part(hidden).reshape(split).transpose(1, 2) for part in (own.query, own.key, own.value))
        return query, key, value

    @staticmethod
    def _scores(query: Tensor, key: Tensor) -> Tensor:
        scale: float = query.shape[-1] ** -0.5
        return query @ key.transpose(-1, -2) * scale


def _int8(levels: Tensor) -> Tensor:
    """Round to int8. The export makes one operator of these, see `with_quantize_linear`."""
    return levels.round().clamp(-LEVELS - 1, LEVELS).to(torch.int8)


def after_attention(layer: BertLayer, context: Tensor, hidden: Tensor) -> Tensor:
    """The rest of a layer after the attention of ``context``, shape as ``hidden``."""
    attended = layer.attention.output(context, hidden)
    output: Tensor = layer.output(layer.intermediate(attended), attended)
    return output


def weights(scores: Tensor, layer: BertLayer) -> Tensor:
    """Attention weights in fp32 precision, with the layer's dropout in training."""
    shares = scores.float().softmax(-1).to(scores.dtype)
    dropped: Tensor = layer.attention.self.dropout(shares)
    return dropped


def shares(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of ``scores`` over the last axis, and the logarithm of the sum of their exponentials, in fp32."""
    wide = scores.float()
    found = wide.softmax(-1)
    total = wide.amax(-1, keepdim=True) - found.amax(-1, keepdim=True).log()
    return found.to(scores.dtype), total


def merged(context: Tensor) -> Tensor:
    """Heads side by side: (B, H, S, d) to (B, S, D)."""
    return context.transpose(1, 2).flatten(2)


def additive(inside: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where ``inside``, else the lowest number of ``dtype``, same shape."""
    return (~inside).to(dtype) * torch.finfo(dtype).min


def masked_mean(hidden: Tensor, inside: Tensor) -> Tensor:
    """Mean of ``hidden`` (..., S, D) over the true positions of ``inside`` (..., S)."""
    kept = inside.to(hidden.dtype)[..., None]
    return (hidden * kept).sum(-2) / kept.sum(-2).clamp(min=1)
