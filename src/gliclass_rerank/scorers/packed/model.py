"""A uni-encoder on packed batches: encoder, pooling and head without padded tokens or device synchronisation.

The encoder runs in the model's dtype. Pooling and head run in fp32: a bf16 sum over hundreds of tokens, or a dot
product of two embeddings, loses more precision than all layers before it, and both are cheap.

Shapes: T tokens, N sequences, C labels, D encoder size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from gliclass import GLiClassModel
from torch import Tensor, nn
from transformers import BertModel, DebertaV2Model, ModernBertModel

from gliclass_rerank.errors import UnsupportedModelError
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.packed.arrays import PackedArrays, PackedShape, PackedSpans, PackedTokens, pack
from gliclass_rerank.scorers.packed.attention import can_compile, has_kernels, kernels_missing
from gliclass_rerank.scorers.packed.cuda_graphs import EncoderGraphs, aligned, bucket, buckets
from gliclass_rerank.scorers.packed.encoders import PackedBert, PackedDeberta, PackedModernBert
from gliclass_rerank.scorers.padded.forward import head


class PackedUniEncoder(nn.Module):
    """Logits of packed batches.

    Args:
        model: upstream's model, on its device and in its dtype, for which `why_not_packed` is None.
        packed_head: its head in fp32, on the same device.
        max_length: tokens of the longest sequence.
        compiled: fuse the operations between the attentions with `torch.compile`. Default: on CUDA, if available.
    """

    def __init__(
        self, model: GLiClassModel, packed_head: PackedHead, *, max_length: int, compiled: bool | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.head = packed_head
        self.config = model.config
        self.device = next(model.parameters()).device
        self.max_length = max_length
        self._cuda = self.device.type == "cuda"
        compiled = self._cuda and can_compile() if compiled is None else compiled
        self.encoder = _packed_encoder(model, max_length, compiled)
        self.graphs = EncoderGraphs(self.encode, self.device)

    def pack(self, batch: Sequence[EncodedSequence], shape: PackedShape | None = None) -> PackedArrays:
        """Concatenate sequences and fill them up to ``shape``, by default one that suits the device."""
        if shape is None and self._cuda:
            lengths = [len(item.ids) for item in batch]
            shape = bucket(lengths, self.max_length)
            if shape is None or shape not in self.graphs:
                shape = aligned(lengths)
        pad_id = int(self.config.pad_token_id or 0)
        segments = bool(self.config.use_segment_embeddings)
        return pack(batch, pad_id, segments=segments, shape=shape, pinned=self._cuda)

    def forward(self, arrays: PackedArrays) -> Tensor:
        """Return logits, fp32 of shape (N, C). Columns beyond the labels of a sequence are meaningless."""
        buffer = arrays.buffer.to(self.device, non_blocking=True)
        if arrays.shape in self.graphs:
            hidden = self.graphs.replay(arrays, buffer)
        else:
            hidden = self.encode(arrays.tokens(buffer))
        spans = arrays.spans(buffer)
        zero_tail = bool(self.config.extract_text_features)
        text = pool_packed(hidden, text_bounds(spans, self.config), self.config.pooling_strategy, zero_tail=zero_tail)
        labels = label_means(hidden, spans)
        logits: Tensor = head(self.head, text, labels, torch.ones_like(text[:, :1], dtype=torch.bool))
        return logits

    def encode(self, tokens: PackedTokens) -> Tensor:
        """Encoder states, shape (T, D)."""
        core = self.model.model
        embeds = core.encoder_model.get_input_embeddings()(tokens.ids)
        if tokens.segments is not None:
            embeds = embeds + core.segment_embeddings(tokens.segments)
        hidden: Tensor = self.encoder(embeds, tokens)
        return hidden

    def warm_up(self) -> None:
        """Compile, and capture every bucket. No effect on a CPU, and no graphs without attention kernels."""
        if not self._cuda:
            return
        # torch.compile treats equal sizes as one variable, so every variable size differs here.
        for length in (40, 150, self.max_length):
            batch = [_dummy(min(length, self.max_length))] * 7
            self(self.pack(batch, aligned([len(item.ids) for item in batch])))
        if has_kernels(self.device, next(self.model.parameters()).dtype):
            self._record_buckets()
        torch.cuda.synchronize(self.device)

    def _record_buckets(self) -> None:
        try:
            for shape in buckets(self.max_length):
                self.graphs.record(self.pack([_dummy(8)], shape))
        except torch.cuda.OutOfMemoryError:
            pass  # a bucket that was not captured runs like larger batches


class PackedHead(nn.Module):
    """Upstream's projectors, scorer and calibrator copied to fp32, under the names that `head` uses."""

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.config = model.config
        self.model = nn.Module()
        for name in ("text_projector", "classes_projector", "scorer"):
            self.model.add_module(name, copy.deepcopy(getattr(model.model, name)).float())
        self.model.register_buffer("logit_scale", model.model.logit_scale.detach().float())
        self.model.epsilon = model.model.epsilon
        self.calibrator = None if model.calibrator is None else copy.deepcopy(model.calibrator).float()
        self.eval().requires_grad_(False)


def text_bounds(spans: PackedSpans, config: object) -> Tensor:
    """`PackedSpans.text_bounds`. Without text extraction, the text starts at the start of the sequence."""
    bounds = spans.text_bounds
    if getattr(config, "extract_text_features", False):
        return bounds
    return torch.cat([bounds[:-1:2].repeat_interleave(2), bounds[-1:]])


def label_means(hidden: Tensor, spans: PackedSpans) -> Tensor:
    """Average each label's tokens: ``hidden`` (T, D) to fp32 of shape (N, C, D)."""
    sums = _reduce(hidden[spans.label_tokens].float(), spans.label_bounds, "sum")
    means = sums / spans.label_bounds.diff().clamp(min=1)[:, None]
    return means.view(-1, spans.labels, means.shape[-1])


def pool_packed(hidden: Tensor, bounds: Tensor, strategy: str, *, zero_tail: bool) -> Tensor:
    """`gliclass_rerank.scorers.padded.forward.pool` on packed states: (T, D) to fp32 of shape (N, D).

    Args:
        bounds: int32, shape (2N + 1,), as in `PackedSpans`.
        zero_tail: as in `pool`.
    """
    starts, texts, ends = bounds[:-1:2], bounds[1::2], bounds[2::2]
    if strategy == "first":
        return hidden[texts].float()
    if strategy == "last":
        last = hidden[ends - 1].float()
        return torch.zeros_like(last) if zero_tail else last
    wide = hidden.float()
    if strategy == "max":
        top = _reduce(wide, bounds, "max")[1::2]
        return top.clamp(min=0) if zero_tail else top
    if strategy == "abs_max":
        return _reduce(wide.abs(), bounds, "max")[1::2]
    # Means divide by the length of the whole sequence, which is the text's length without text extraction.
    count = (ends - starts)[:, None]
    if strategy == "rms":
        return (_reduce(wide.square(), bounds, "sum")[1::2] / count).sqrt()
    total = _reduce(wide.abs() if strategy == "abs_avg" else wide, bounds, "sum")[1::2]
    return total if strategy == "sum" else total / count


def _reduce(values: Tensor, bounds: Tensor, how: str) -> Tensor:
    """Reduce runs of rows, always in the same order. ``unsafe`` skips a check that would synchronise."""
    return torch.segment_reduce(values, how, offsets=bounds, axis=0, unsafe=True)


def packs(model: GLiClassModel, device: torch.device, dtype: torch.dtype, wanted: bool | None) -> bool:
    """Whether to run a model packed. By default on CUDA if there are kernels for it.

    Raises:
        UnsupportedModelError: requested for a model that cannot be packed.
    """
    kernels = has_kernels(device, dtype)
    if wanted is False or (wanted is None and not kernels):
        return False
    reason = why_not_packed(model)
    if reason is None and kernels:
        size = model.config.encoder_config.hidden_size // model.config.encoder_config.num_attention_heads
        relative = isinstance(model.model.encoder_model, DebertaV2Model)
        reason = kernels_missing(device, dtype, relative=relative, head_size=size)
    if reason and wanted:
        raise UnsupportedModelError(f"packed=True: {reason}; leave it out, and batches are padded")
    return reason is None


def why_not_packed(model: GLiClassModel) -> str | None:
    """The reason why a model cannot be packed, or None."""
    config = model.config
    if config.architecture_type != "uni-encoder":
        return f"only a uni-encoder can be packed, and this is a {config.architecture_type}"
    if config.use_lstm:
        return "use_lstm cannot be packed"
    if config.pooling_strategy == "pass":
        return f"scorer_type={config.scorer_type!r} reads all tokens of a text and cannot be packed"
    encoder = model.model.encoder_model
    if type(encoder) not in (BertModel, ModernBertModel, DebertaV2Model):
        return f"a {type(encoder).__name__} cannot be packed; BERT, ModernBERT and DeBERTa-v2 can"
    for module in model.modules():
        if not type(module).__module__.startswith(("torch.nn.", "transformers.", "gliclass.")):
            return f"a {type(module).__module__}.{type(module).__name__} in it cannot be packed"
    if _layers(model) < 1:
        return f"encoder_layer_id={config.encoder_layer_id} leaves no layer to pack"
    return _unpackable_encoder(encoder)


def _unpackable_encoder(encoder: BertModel | ModernBertModel | DebertaV2Model) -> str | None:
    config = encoder.config
    if isinstance(encoder, BertModel):
        return "a BERT that is a decoder cannot be packed" if config.is_decoder else None
    if isinstance(encoder, ModernBertModel):
        kinds = {parameters["rope_type"] for parameters in (config.rope_parameters or {}).values() if parameters}
        return f"rope_type {sorted(kinds)} cannot be packed, only 'default'" if kinds != {"default"} else None
    if not config.relative_attention or set(config.pos_att_type or ()) != {"c2p", "p2c"}:
        return f"a DeBERTa with pos_att_type={config.pos_att_type} cannot be packed, only with c2p and p2c"
    if encoder.z_steps > 1:
        return f"a DeBERTa with z_steps={encoder.z_steps} cannot be packed"
    part = encoder.encoder.conv
    if part is not None and (part.conv.groups != 1 or part.conv.kernel_size[0] % 2 == 0):
        return "a DeBERTa whose convolution has groups or an even kernel cannot be packed"
    return None


def _layers(model: GLiClassModel) -> int:
    """Number of layers to run. Hidden state 0 is the embeddings, the last one is the output of the last layer."""
    count, layer = int(model.config.encoder_config.num_hidden_layers), int(model.config.encoder_layer_id)
    return layer if layer >= 0 else count + 1 + layer


def _packed_encoder(model: GLiClassModel, max_length: int, compiled: bool) -> nn.Module:
    encoder, layers = model.model.encoder_model, _layers(model)
    if isinstance(encoder, BertModel):
        return PackedBert(encoder, layers=layers, compiled=compiled)
    kind = PackedModernBert if isinstance(encoder, ModernBertModel) else PackedDeberta
    return kind(encoder, layers=layers, compiled=compiled, max_length=max_length)


def _dummy(length: int) -> EncodedSequence:
    return EncodedSequence(
        np.zeros(length, np.int32), np.array([[0, 1]], np.int32), 0, np.zeros(0, np.int32), ("",), False, length
    )
