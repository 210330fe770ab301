"""Loss of a training example: binary cross-entropy per label, and a listwise loss over labels or passages."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, mse_loss

from gliclass_rerank.training.data.examples import TrainingExample


def example_loss(
    logits: Tensor, example: TrainingExample, *, bce_weight: float, listwise_weight: float, mse_weight: float = 0.0
) -> Tensor:
    """Loss of one example, a scalar.

    The sum of three terms. The first is ``bce_weight`` times the mean binary cross-entropy over the logits with a known
    target. The second is ``listwise_weight`` times the mean, over the example's lists, of the cross-entropy between
    their softmax and the list targets (ListNet's top-one loss, Cao et al. 2007). With a teacher's targets it equals the
    Kullback-Leibler divergence to the teacher up to a constant. The third is ``mse_weight`` times the mean squared
    difference to the teacher's logits, for examples that have them.

    Args:
        logits: float, shape (all labels of all requests,).
    """
    logits = logits.float()
    targets = torch.from_numpy(example.targets).to(logits.device)
    known = ~targets.isnan()
    loss = logits.sum() * 0  # a zero with a gradient, for an example without any target
    if known.any():
        loss = bce_weight * binary_cross_entropy_with_logits(logits[known], targets[known])
    if example.list_indices is not None and example.list_targets is not None and listwise_weight:
        shares = torch.from_numpy(example.list_targets).to(logits.device)
        lists = torch.from_numpy(example.list_indices).to(logits.device)
        loss = loss - listwise_weight * (shares * log_softmax(logits[lists], 1)).sum(1).mean()
    if example.logits is not None and mse_weight:
        loss = loss + mse_weight * mse_loss(logits, torch.from_numpy(example.logits).to(logits.device))
    return loss


def vector_loss(vectors: Tensor, targets: Tensor) -> Tensor:
    """Mean of one minus the cosine of ``vectors`` (texts, D) and unit ``targets`` (texts, D), without those of NaN."""
    known = ~targets[:, 0].isnan()
    if not known.any():
        return vectors.sum() * 0  # a zero with a gradient
    return (1 - (vectors.float()[known] * targets[known]).sum(1)).mean()
