"""Encoders over packed sequences: BERT, ModernBERT and DeBERTa-v2/v3, with the modules loaded by transformers.

A layer has three parts: before attention, attention (`gliclass_rerank.scorers.packed.attention`), and after it. The
outer two are plain functions of a layer and its input, the same for all layers of a model, so `torch.compile` compiles
each once, for any number of layers and tokens.

Shapes: T tokens, D encoder size, R buckets of relative distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import BertModel, DebertaV2Model, ModernBertModel
from transformers.activations import ACT2FN
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    ConvLayer,
    DebertaV2Layer,
    DisentangledSelfAttention,
    make_log_bucket_position,
)
from transformers.models.modernbert.modeling_modernbert import ModernBertEncoderLayer

from gliclass_rerank.scorers.packed.arrays import PackedTokens
from gliclass_rerank.scorers.packed.attention import (
    RelativeScores,
    attend,
    attend_relative,
    document_blocks,
    has_kernels,
)

Part = TypeVar("Part", bound=Callable[..., object])
Child = TypeVar("Child", bound=nn.Module)
VARIANTS = 64  # compiled variants of one function; a process may hold several models


class PackedBert(nn.Module):
    """`BertModel` on packed sequences.

    Args:
        encoder: in its dtype and on its device.
        layers: number of its layers to run.
        compiled: fuse the operations between the attentions with `torch.compile`.
    """

    def __init__(self, encoder: BertModel, *, layers: int, compiled: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = children(encoder.encoder.layer, BertLayer)[:layers]
        parts = [layer.attention.self for layer in self.layers]
        self.projections = [
            QueryKeyValue(part.query, part.key, part.value, head_size=part.attention_head_size) for part in parts
        ]
        self.finish = _compiled(finish_bert) if compiled else finish_bert

    def forward(self, embeds: Tensor, tokens: PackedTokens) -> Tensor:
        """Encode token embeddings, shape (T, D), to the last layer's states, shape (T, D)."""
        hidden = embed(self.encoder, embeds, tokens)
        for layer, projection in zip(self.layers, self.projections, strict=True):
            query, key, value = projection(hidden)
            hidden = self.finish(layer, hidden, attend(query, key, value, tokens))
        return hidden


class PackedModernBert(nn.Module):
    """`ModernBertModel` on packed sequences. Arguments as of `PackedBert`, and the length of the longest sequence."""

    def __init__(self, encoder: ModernBertModel, *, layers: int, compiled: bool, max_length: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = children(encoder.layers, ModernBertEncoderLayer)[:layers]
        self.start = _compiled(start_modernbert) if compiled else start_modernbert
        self.finish = _compiled(finish_modernbert) if compiled else finish_modernbert
        self.kinds = sorted({layer.attention_type for layer in self.layers})
        for kind in self.kinds:
            self.register_buffer(kind, rotations(encoder, kind, max_length), persistent=False)

    def forward(self, embeds: Tensor, tokens: PackedTokens) -> Tensor:
        """Encode token embeddings, shape (T, D), to the last layer's states, shape (T, D)."""
        hidden = embed(self.encoder, embeds, tokens)
        turns = {kind: self.get_buffer(kind)[tokens.positions] for kind in self.kinds}
        for layer in self.layers:
            local = layer.attention_type == "sliding_attention"
            # Largest attended distance, as in the mask of transformers' sdpa path. (Its flash path gets one more and
            # subtracts it again.)
            window = self.encoder.config.sliding_window if local else None
            query, key, value = self.start(layer, hidden, turns[layer.attention_type])
            hidden = self.finish(layer, hidden, attend(query, key, value, tokens, window=window))
        if len(self.layers) < len(self.encoder.layers):
            return hidden
        normed: Tensor = self.encoder.final_norm(hidden)
        return normed


class PackedDeberta(nn.Module):
    """`DebertaV2Model` on packed sequences. Arguments as of `PackedModernBert`.

    Keys and queries of the relative positions depend only on weights, so they are computed here, once.
    """

    def __init__(self, encoder: DebertaV2Model, *, layers: int, compiled: bool, max_length: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = children(encoder.encoder.layer, DebertaV2Layer)[:layers]
        parts = [layer.attention.self for layer in self.layers]
        self.projections = [
            QueryKeyValue(part.query_proj, part.key_proj, part.value_proj, head_size=part.attention_head_size)
            for part in parts
        ]
        self.start = _compiled(start_deberta) if compiled else start_deberta
        self.finish = _compiled(finish_bert) if compiled else finish_bert
        self.buckets = bucket_table(parts[0], max_length)
        self.register_buffer("index", self.buckets.to(encoder.device), persistent=False)
        keys, queries = zip(*(relative_products(encoder, part) for part in parts), strict=True)
        self.register_buffer("position_keys", torch.stack(keys), persistent=False)
        self.register_buffer("position_queries", torch.stack(queries), persistent=False)

    def forward(self, embeds: Tensor, tokens: PackedTokens) -> Tensor:
        """Encode token embeddings, shape (T, D), to the last layer's states, shape (T, D)."""
        embedded = hidden = embed(self.encoder, embeds, tokens)
        low, high = self._reach(tokens.longest)
        index = self.get_buffer("index").clamp(low, high - 1) - low
        keys = self.get_buffer("position_keys")[:, :, low:high]
        queries = self.get_buffer("position_queries")[:, :, low:high]
        blocks = document_blocks(tokens) if has_kernels(embeds.device, embeds.dtype) else None
        for i, (layer, projection) in enumerate(zip(self.layers, self.projections, strict=True)):
            query, key, value, content, position = self.start(projection, hidden, keys[i], queries[i])
            scores = RelativeScores(content, position, index)
            context = attend_relative(query, key, value, scores, tokens, blocks)
            hidden = self.finish(layer, hidden, context)
            if i == 0 and self.encoder.encoder.conv is not None:
                hidden = convolve(self.encoder.encoder.conv, embedded, hidden, tokens.sequence)
        return hidden

    def _reach(self, longest: int) -> tuple[int, int]:
        """Half-open range of the buckets of distances below ``longest``, rounded to suit matrix products."""
        middle = len(self.buckets) // 2
        low, high = int(self.buckets[middle - longest + 1]), int(self.buckets[middle + longest - 1]) + 1
        return low // 16 * 16, min(-(-high // 16) * 16, int(self.buckets.max()) + 1)


def embed(encoder: BertModel | ModernBertModel | DebertaV2Model, embeds: Tensor, tokens: PackedTokens) -> Tensor:
    """Apply the encoder's embedding layer (positions, types, norm) to token embeddings, shape (T, D)."""
    positions = {} if isinstance(encoder, ModernBertModel) else {"position_ids": tokens.positions.long()[None]}
    embedded: Tensor = encoder.embeddings(inputs_embeds=embeds[None], **positions)[0]
    return embedded


class QueryKeyValue(nn.Module):
    """The three projections of an attention as one product.

    Args:
        query, key, value: of one input size.
        head_size: stored on the module, so that a compiled caller treats it as a constant.
    """

    def __init__(self, query: nn.Linear, key: nn.Linear, value: nn.Linear, *, head_size: int) -> None:
        super().__init__()
        parts = (query, key, value)
        self.weight = nn.Parameter(torch.cat([part.weight.detach() for part in parts]), requires_grad=False)
        self.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]), requires_grad=False)
        self.head_size = head_size

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of states, shape (T, D): shape (T, heads, head size) each."""
        return split(nn.functional.linear(hidden, self.weight, self.bias), self.head_size)


def split(products: Tensor, head_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, shape (T, heads, head size) each, from their concatenated products."""
    query, key, value = products.view(len(products), 3, -1, head_size).unbind(1)
    return query, key, value


def finish_bert(layer: BertLayer | DebertaV2Layer, hidden: Tensor, context: Tensor) -> Tensor:
    """The part of a layer of BERT or DeBERTa after attention. ``context`` has shape (T, heads, head size)."""
    attended = layer.attention.output(context.flatten(1), hidden)
    out: Tensor = layer.output(layer.intermediate(attended), attended)
    return out


def start_modernbert(layer: ModernBertEncoderLayer, hidden: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, rotated by their positions, and values. ``turns`` are `rotations` of each token."""
    query, key, value = split(layer.attn.Wqkv(layer.attn_norm(hidden)), layer.attn.head_dim)
    return rotate(query, turns), rotate(key, turns), value


def finish_modernbert(layer: ModernBertEncoderLayer, hidden: Tensor, context: Tensor) -> Tensor:
    """The part of a layer of ModernBERT after attention. ``context`` has shape (T, heads, head size)."""
    hidden = hidden + layer.attn.Wo(context.flatten(1))
    out: Tensor = hidden + layer.mlp(layer.mlp_norm(hidden))
    return out


def start_deberta(
    projection: QueryKeyValue, hidden: Tensor, keys: Tensor, queries: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, and products of queries and keys with those of positions, shape (heads, T, R).

    Three terms (content to content, to position, and position to content) share the variance, so a score is divided by
    the root of three times the head size. Attention itself divides by that of the head size.
    """
    query, key, value = projection(hidden)
    query = query * 3**-0.5
    content = query.transpose(0, 1) @ keys.transpose(1, 2)
    position = key.transpose(0, 1) @ queries.transpose(1, 2)
    return query, key, value, content, position


def rotations(encoder: ModernBertModel, kind: str, max_length: int) -> Tensor:
    """Cosines and sines of each position in fp32, shape (max_length, 2, head size), for one kind of layer.

    Computed from the configuration in fp32: with frequencies rounded to bf16, the angle at a position of some hundreds
    would be arbitrary.
    """
    frequencies, _ = encoder.rotary_emb.compute_default_rope_parameters(encoder.config, layer_type=kind)
    angles = torch.arange(max_length)[:, None] * torch.cat([frequencies, frequencies]).float()
    return torch.stack([angles.cos(), angles.sin()], dim=1).to(encoder.device)


def rotate(states: Tensor, turns: Tensor) -> Tensor:
    """Rotate pairs of features: ``states`` (T, heads, head size) by ``turns`` (T, 2, head size), computed in fp32."""
    wide = states.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * turns[:, :1] + torch.cat([-second, first], dim=-1) * turns[:, 1:]).to(states.dtype)


def bucket_table(part: DisentangledSelfAttention, max_length: int) -> Tensor:
    """Buckets of distances i - j, int32 of shape (2 max_length - 1,), as in upstream's lookups for c2p and p2c.

    Both are the same, since buckets are symmetric: the bucket of -d is minus that of d.
    """
    distances, span = torch.arange(1 - max_length, max_length), part.pos_ebd_size
    if part.position_buckets > 0 and part.max_relative_positions > 0:
        distances = make_log_bucket_position(distances, part.position_buckets, part.max_relative_positions)
    return (distances.long() + span).clamp(0, 2 * span - 1).int()


def relative_products(encoder: DebertaV2Model, part: DisentangledSelfAttention) -> tuple[Tensor, Tensor]:
    """Keys and queries of the relative positions in one layer, shape (heads, R, head size) each.

    Scaled for `start_deberta`: a key meets a query that is already scaled, a query meets an unscaled key.
    """
    every: Tensor = encoder.encoder.get_rel_embedding()  # type: ignore[no-untyped-call]
    embeddings = every[: 2 * part.pos_ebd_size].detach()
    shared, size = part.share_att_key, part.attention_head_size
    keys = part.key_proj if shared else part.pos_key_proj
    queries = part.query_proj if shared else part.pos_query_proj

    def products(projection: nn.Linear, scale: float) -> Tensor:
        wide = nn.functional.linear(embeddings.float(), projection.weight.float(), projection.bias.float()).detach()
        return (wide * scale).view(len(wide), -1, size).transpose(0, 1).to(embeddings.dtype).contiguous()

    return products(keys, size**-0.5), products(queries, (3 * size) ** -0.5)


def convolve(part: ConvLayer, embedded: Tensor, hidden: Tensor, sequence: Tensor) -> Tensor:
    """DeBERTa-v2's convolution over the embeddings, with zeros beyond the ends of each sequence."""
    weight, places = part.conv.weight, torch.arange(len(sequence), device=sequence.device)
    assert part.conv.bias is not None
    out = part.conv.bias.expand_as(embedded)
    for i in range(weight.shape[-1]):
        source = places + i - weight.shape[-1] // 2
        there = source.clamp(0, len(sequence) - 1)
        inside = (source == there) & (sequence[there] == sequence)
        out = out + nn.functional.linear(embedded[there] * inside[:, None], weight[..., i])
    normed: Tensor = part.LayerNorm(hidden + ACT2FN[part.conv_act](out))
    return normed


def children(module: nn.Module, kind: type[Child]) -> list[Child]:
    """The layers of a list of layers."""
    return [child for child in module.children() if isinstance(child, kind)]


def _compiled(part: Part) -> Part:
    """Compile a function once for every number of tokens. A differing layer compiles again, at load."""
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    compiled: Any = torch.compile(part, dynamic=True)
    return cast(Part, compiled)
