"""From logits to a loss: each label by itself, and labels or passages against each other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from gliclass_rerank.training.examples import TrainingExample


def example_loss(logits: Tensor, example: TrainingExample, *, bce: float, listwise: float) -> Tensor:
    """Loss of one example, a scalar.

    ``bce`` times the mean binary cross-entropy over the logits, which makes a score mean something by itself, plus
    ``listwise`` times the cross-entropy of their softmax with the example's shares (ListNet's top-one loss, Cao et
    al. 2007; with a teacher's shares it is, up to a constant, the Kullback-Leibler divergence to the teacher).

    Args:
        logits: float, shape (all labels of all requests,).
    """
    logits = logits.float()
    loss = bce * binary_cross_entropy_with_logits(logits, _like(example.targets, logits))
    if example.shares is not None and listwise:
        loss = loss - listwise * (_like(example.shares, logits) * log_softmax(logits, 0)).sum()
    return loss


def _like(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], other: Tensor) -> Tensor:
    return torch.from_numpy(values).to(other.device)
