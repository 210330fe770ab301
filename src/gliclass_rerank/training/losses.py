"""From logits to a loss: each label by itself, and labels or passages against each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from gliclass_rerank.training.data.examples import TrainingExample


def example_loss(logits: Tensor, example: TrainingExample, *, bce: float, listwise: float) -> Tensor:
    """Loss of one example, a scalar.

    ``bce`` times the mean binary cross-entropy over the logits with a known target, which makes a score mean
    something by itself, plus ``listwise`` times the mean, over the example's lists, of the cross-entropy of their
    softmax with the example's shares (ListNet's top-one loss, Cao et al. 2007; with a teacher's shares it is, up to
    a constant, the Kullback-Leibler divergence to the teacher).

    Args:
        logits: float, shape (all labels of all requests,).
    """
    logits = logits.float()
    targets = torch.from_numpy(example.targets).to(logits.device)
    known = ~targets.isnan()
    loss = logits.new_zeros(())
    if known.any():
        loss = bce * binary_cross_entropy_with_logits(logits[known], targets[known])
    if example.lists is not None and example.shares is not None and listwise:
        shares = torch.from_numpy(example.shares).to(logits.device)
        lists = torch.from_numpy(example.lists).to(logits.device)
        loss = loss - listwise * (shares * log_softmax(logits[lists], 1)).sum(1).mean()
    return loss
