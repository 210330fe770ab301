"""Forward passes over upstream's modules, for padded batches: one class per family of architectures.

Upstream's own forward pools without the attention mask, so its scores depend on the padding of the batch. Here every
pooling is masked, so a padded batch gives the same scores as upstream for each unpadded example. The uni-encoder's
class is also exported to ONNX. Label positions are inputs, never token searches.

Shapes: B sequences, S positions, C labels, D encoder size.
"""

from __future__ import annotations

import torch
from gliclass import GLiClassModel
from torch import Tensor, nn


class UniEncoderForward(nn.Module):
    """Labels and text in one sequence."""

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        # Upstream zero-pads the gathered text to the full sequence length before pooling, so mean and max pooling
        # include those zeros. An LSTM packs the text first, so it has no tail.
        self.zero_tail = bool(self.config.extract_text_features) and not self.config.use_lstm

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        label_spans: Tensor,
        separators: Tensor,
        segment_ids: Tensor | None = None,
    ) -> Tensor:
        """Return logits, shape (B, C).

        Args:
            input_ids, attention_mask: int64, shape (B, S).
            label_spans: int64, shape (B, C, 2), half-open ranges that label embeddings are averaged over.
            separators: int64, shape (B,), position of <<SEP>>.
            segment_ids: int64, shape (B, S), if the checkpoint has segment embeddings.
        """
        hidden = self._encode(input_ids, attention_mask, segment_ids)
        labels = span_means(hidden, label_spans)
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        starts = separators if self.config.extract_text_features else torch.zeros_like(separators)
        mask = (attention_mask > 0) & (positions >= starts[:, None])
        if self.config.use_lstm:
            hidden, mask = self._through_lstm(hidden, mask, starts)
        lengths = attention_mask.sum(1) if self.zero_tail else mask.sum(1)
        text = pool(hidden, mask, lengths, self.config.pooling_strategy, zero_tail=self.zero_tail)
        return head(self.model, text, labels, mask)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor | None) -> Tensor:
        encoder, layer = self.model.model.encoder_model, self.config.encoder_layer_id
        segments = self.config.use_segment_embeddings
        tokens = {"inputs_embeds": self._embed(input_ids, segment_ids)} if segments else {"input_ids": input_ids}
        output = encoder(**tokens, attention_mask=attention_mask, output_hidden_states=layer != -1, return_dict=True)
        hidden: Tensor = output[0] if layer == -1 else output.hidden_states[layer]
        return hidden

    def _embed(self, input_ids: Tensor, segment_ids: Tensor | None) -> Tensor:
        core = self.model.model
        embeds: Tensor = core.encoder_model.get_input_embeddings()(input_ids)
        return embeds + core.segment_embeddings(segment_ids) if self.config.use_segment_embeddings else embeds

    def _through_lstm(self, hidden: Tensor, mask: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Move each text to the front and run upstream's packed LSTM over it. The result holds only texts."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        source = (positions + starts[:, None]).clamp(max=hidden.shape[1] - 1)
        text = hidden.gather(1, source[..., None].expand_as(hidden))
        lengths = mask.sum(1)
        text = self.model.model.lstm(text, positions < lengths[:, None])
        return text, positions[: text.shape[1]] < lengths[:, None]


class EncoderDecoderForward(nn.Module):
    """Text and labels in the two halves of an encoder-decoder. ``-cls`` puts the labels into the encoder."""

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.labels_first = model.config.architecture_type == "encoder-decoder-cls"

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, side_ids: Tensor, side_mask: Tensor, label_spans: Tensor
    ) -> Tensor:
        """Return logits, shape (B, C). ``side_ids`` and ``side_mask``, int64 of shape (B, L), are the labels'."""
        backbone = self.model.model.encoder_decoder_model
        if self.labels_first:
            output = backbone(
                input_ids=side_ids,
                attention_mask=side_mask,
                decoder_input_ids=input_ids,
                decoder_attention_mask=attention_mask,
                return_dict=True,
            )
            labels = span_means(output.encoder_last_hidden_state, label_spans)
            text = pool(output.last_hidden_state, attention_mask > 0, attention_mask.sum(1), "last", zero_tail=False)
        else:
            output = backbone(
                input_ids=input_ids,
                attention_mask=attention_mask,
                decoder_input_ids=side_ids,
                decoder_attention_mask=self._both_ways(side_mask),
                return_dict=True,
            )
            labels = span_means(output.last_hidden_state, label_spans)
            hidden, mask = output.encoder_last_hidden_state, attention_mask > 0
            text = pool(hidden, mask, mask.sum(1), self.config.pooling_strategy, zero_tail=False)
        return head(self.model, text, labels, attention_mask > 0)

    def _both_ways(self, mask: Tensor) -> Tensor:
        """Additive mask, shape (B, 1, L, L), for a bidirectional decoder: upstream's labels attend to each other."""
        dtype = next(self.model.parameters()).dtype
        bias = (1 - mask.to(dtype))[:, None, None, :] * torch.finfo(dtype).min
        return bias.expand(-1, 1, mask.shape[1], -1)


class BiEncoderForward(nn.Module):
    """Texts and labels in separate encoders. ``-fused`` writes the labels' embeddings into the text's input."""

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.fused = model.config.architecture_type == "bi-encoder-fused"

    def embed_labels(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed labels once for all texts: int64 of shape (labels, S) to shape (labels, D)."""
        core = self.model.model
        hidden = core.label_encoder(input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask > 0
        pooled = pool(hidden, mask, mask.sum(1), self.config.pooling_strategy, zero_tail=False)
        labels: Tensor = core.classes_projector(core.biencoder_projector(pooled))
        if self.config.normalize_features:
            labels = nn.functional.normalize(labels, p=2, dim=-1, eps=core.epsilon)
        return labels

    def forward(self, input_ids: Tensor, attention_mask: Tensor, label_spans: Tensor, labels: Tensor) -> Tensor:
        """Return logits, shape (B, C), for label embeddings ``labels``, shape (B, C, D)."""
        core = self.model.model
        if self.fused:
            embeds = core.encoder_model.get_input_embeddings()(input_ids)
            places = label_spans[..., :1].expand(-1, -1, embeds.shape[-1])
            hidden = core.encoder_model(
                inputs_embeds=embeds.scatter(1, places, labels.to(embeds.dtype)), attention_mask=attention_mask
            )[0]
            labels = hidden.gather(1, places)
        else:
            hidden = core.encoder_model(input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask > 0
        text = core.text_projector(pool(hidden, mask, mask.sum(1), self.config.pooling_strategy, zero_tail=False))
        if self.config.normalize_features:
            text = nn.functional.normalize(text, p=2, dim=-1, eps=core.epsilon)
        return apply_checkpoint_calibrator(self.model, text, labels, core.scorer(text, labels) * core.logit_scale)


class DecoderForward(nn.Module):
    """Decoder with the labels after the text, and a separate scorer over the labels' states.

    The steps of upstream's forward without a key-value cache: gliclass 0.1.21 returns its cache, and transformers 5.24
    and newer reject that output.
    """

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits, shape (B, C). All sequences have C labels."""
        core = self.model.model
        cache = {} if core.bidirectional else {"use_cache": False}
        output = core.decoder_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **cache)
        steps, halt_threshold = core._resolve_recurrence()
        hidden, ids, mask, text_hidden, text_mask = core._extract_label_section(
            output.last_hidden_state, input_ids, attention_mask, return_text_section=True
        )
        logits, _, (text, labels) = core.scorer.recurrent_forward(
            hidden,
            ids,
            mask,
            num_steps=steps,
            halt_threshold=halt_threshold,
            text_hidden_states=text_hidden,
            text_attention_mask=text_mask,
            return_representations=True,
        )
        return apply_checkpoint_calibrator(self.model, text, labels, logits[-1])


def head(model: GLiClassModel, text: Tensor, labels: Tensor, text_mask: Tensor) -> Tensor:
    """Project pooled ``text`` (B, D), or (B, S, D) for cross-attention, and ``labels`` (B, C, D); score: (B, C)."""
    core, normalize = model.model, model.config.normalize_features
    text, labels = core.text_projector(text), core.classes_projector(labels)
    if normalize:
        text = text / (text.norm(p=2, dim=-1, keepdim=True) + core.epsilon)
        labels = labels / (labels.norm(p=2, dim=-1, keepdim=True) + core.epsilon)
    logits: Tensor = core.scorer(text, labels, text_mask=text_mask)
    return apply_checkpoint_calibrator(model, text, labels, logits * core.logit_scale if normalize else logits)


def span_means(hidden: Tensor, spans: Tensor) -> Tensor:
    """Average positions: ``hidden`` (B, S, D) over half-open ``spans`` (B, C, 2) gives (B, C, D).

    Computed as a product with a 0/1 matrix, which is exact for spans of one position.
    """
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    inside = ((positions >= spans[..., :1]) & (positions < spans[..., 1:])).to(hidden.dtype)
    return inside @ hidden / inside.sum(-1, keepdim=True).clamp(min=1)


def pool(hidden: Tensor, mask: Tensor, lengths: Tensor, strategy: str, *, zero_tail: bool) -> Tensor:
    """Pool ``hidden`` (B, S, D) over the true positions of ``mask`` (B, S) to (B, D). "pass" returns it unchanged.

    Args:
        lengths: shape (B,), the divisor of means.
        zero_tail: treat the text as moved to the front of its sequence and followed by zeros (see `UniEncoderForward`),
            which "max" and "last" include.
    """
    weights = mask[..., None].to(hidden.dtype)
    count = lengths[:, None].to(hidden.dtype)
    if strategy == "pass":
        return hidden
    if strategy == "first":
        return hidden.gather(1, mask.int().argmax(1)[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
    if strategy == "last":
        last = hidden.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
        return torch.zeros_like(last) if zero_tail else last
    if strategy == "max":
        top = hidden.masked_fill(~mask[..., None], torch.finfo(hidden.dtype).min).amax(1)
        return top.clamp(min=0) if zero_tail else top
    if strategy == "abs_max":
        return (hidden.abs() * weights).amax(1)
    if strategy == "rms":
        return ((hidden.square() * weights).sum(1) / count).sqrt()
    total = ((hidden.abs() if strategy == "abs_avg" else hidden) * weights).sum(1)
    return total if strategy == "sum" else total / count


def apply_checkpoint_calibrator(model: GLiClassModel, text: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
    """Apply upstream's own calibrator, if the checkpoint has one."""
    if model.calibrator is None:
        return logits
    beta, bias = model.calibrator(text, labels, logits, torch.ones_like(logits, dtype=torch.long))
    scaled: Tensor = (beta * logits.float() + bias).to(logits.dtype)
    return scaled
