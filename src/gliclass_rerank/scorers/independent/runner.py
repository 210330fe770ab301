"""Run batches of texts with their labels, for inference and training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gliclass import GLiClassModel
from torch import Tensor, nn

from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.independent.arrays import label_passes, text_arrays, whole_sequences
from gliclass_rerank.scorers.independent.forward import IndependentForward


class IndependentRunner(nn.Module):
    """A model with independent labels.

    Args:
        model: upstream's model, on its device and in its dtype.
    """

    def __init__(self, model: GLiClassModel) -> None:
        super().__init__()
        self.module = IndependentForward(model)
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
        ids, lengths = (torch.from_numpy(array).to(self._device) for array in text_arrays(batch, self._pad_id))
        state = self.module.read(ids, lengths)
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
