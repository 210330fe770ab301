"""Run batches of texts with their labels, for inference and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from gliclass import GLiClassModel
from torch import Tensor, nn

from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.independent.arrays import label_passes, text_arrays, whole_sequences
from gliclass_rerank.scorers.independent.cache import PassageCache
from gliclass_rerank.scorers.independent.forward import IndependentForward, TextState


@dataclass(frozen=True, slots=True)
class ReadText:
    """Keys and values of all layers of a text, shape (2 L, H, S, d), and its pooled state, shape (D,)."""

    layers: Tensor
    pooled: Tensor

    @property
    def nbytes(self) -> int:
        return int(self.layers.nbytes + self.pooled.nbytes)


class IndependentRunner(nn.Module):
    """A model with independent labels.

    Args:
        model: upstream's model, on its device and in its dtype.

    Attributes:
        cache: of what is read of texts, on the model's device and in its dtype; None to keep nothing.
    """

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.module = IndependentForward(model)
        self.cache: PassageCache[ReadText] | None = None
        self._device = next(model.parameters()).device
        self._pad_id = int(model.config.pad_token_id or 0)

    def forward(self, batch: Sequence[EncodedSequence]) -> tuple[Tensor, Tensor]:
        """Return logits, shape (texts, most labels of a text), and vectors of the texts, shape (texts, D).

        Columns beyond the labels of a text are meaningless.
        """
        return self._whole(batch) if self.training else self._divided(batch)

    def _whole(self, batch: Sequence[EncodedSequence]) -> tuple[Tensor, Tensor]:
        arrays = whole_sequences(batch, self._pad_id)
        tensors = (arrays.ids, arrays.blocks, arrays.positions, arrays.spans)
        logits, pooled = self.module.whole(*(torch.from_numpy(array).to(self._device) for array in tensors))
        return logits, self.module.vectors(pooled)

    def _divided(self, batch: Sequence[EncodedSequence]) -> tuple[Tensor, Tensor]:
        cache = self.cache if batch[0].labels else None
        state = self._read(batch) if cache is None else stacked(cache.states(batch, self._read_each))
        logits: Tensor | None = None
        for part in label_passes(batch, self._pad_id):
            tensors = (torch.from_numpy(array).to(self._device) for array in (part.ids, part.widths, part.places))
            label_ids, widths, places = tensors
            scores = self.module.score(state, label_ids, widths).float()
            if logits is None:
                logits = scores.new_zeros(len(batch), max(len(item.label_spans) for item in batch))
            kept = widths > 0
            rows = torch.arange(len(batch), device=self._device)[:, None].expand_as(places)
            logits = logits.index_put((rows[kept], places[kept]), scores[kept])
        empty = torch.zeros(len(batch), 0, device=self._device)
        return (empty if logits is None else logits), self.module.vectors(state.pooled)

    def _read(self, batch: Sequence[EncodedSequence]) -> TextState:
        ids, lengths = (torch.from_numpy(array).to(self._device) for array in text_arrays(batch, self._pad_id))
        state: TextState = self.module.read(ids, lengths)
        return state

    def _read_each(self, batch: Sequence[EncodedSequence]) -> list[ReadText]:
        state = self._read(batch)
        layers = torch.stack([*state.keys, *state.values])
        return [
            ReadText(layers[:, i, :, : len(item.ids)].clone(), state.pooled[i].clone()) for i, item in enumerate(batch)
        ]


def stacked(texts: Sequence[ReadText]) -> TextState:
    """The state of these texts together, padded to the longest."""
    lengths = [text.layers.shape[2] for text in texts]
    count, heads, _, width = texts[0].layers.shape
    padded = texts[0].layers.new_zeros(count, len(texts), heads, max(lengths), width)
    for i, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        padded[:, i, :, :length] = text.layers
    keys, values = padded[: count // 2], padded[count // 2 :]
    at = texts[0].pooled.device
    return TextState([*keys], [*values], torch.tensor(lengths, device=at), torch.stack([one.pooled for one in texts]))
