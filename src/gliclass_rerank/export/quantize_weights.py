"""Rounding of weights to int8: columns of matrices, rows of tables, and the smoothing of inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.models.int8_weights import LEVELS
from gliclass_rerank.types import FloatArray

DAMPING = 0.01


def quantize_columns(weight: FloatArray, gram: NDArray[np.float64]) -> tuple[NDArray[np.int8], FloatArray]:
    """Round a matrix to int8, symmetric, so that its products with typical inputs change little.

    Inputs are rounded one after the other. The remaining inputs compensate for the rounding error, as far as they are
    correlated with it over the calibration data (GPTQ, Frantar et al. 2022, arXiv:2210.17323, without its reordering).

    Args:
        weight: shape (inputs, outputs).
        gram: X.T @ X of typical inputs X, shape (inputs, inputs).

    Returns:
        The int8 matrix, and its scale, float32, shape (outputs,).
    """
    scale = np.maximum(np.abs(weight).max(axis=0) / LEVELS, np.finfo(np.float32).tiny).astype(np.float32)
    damped = gram + np.eye(len(gram)) * (DAMPING * np.trace(gram) / len(gram) + np.finfo(np.float32).tiny)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest = weight.astype(np.float64)
    int8 = np.empty(weight.shape, np.int8)
    for i in range(len(rest)):
        int8[i] = np.rint(rest[i] / scale).clip(-LEVELS, LEVELS)
        error = (rest[i] - int8[i] * scale) / factor[i, i]
        rest[i + 1 :] -= np.outer(factor[i, i + 1 :], error)
    return int8, scale


def quantize_rows(table: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Round an embedding table (rows, size) to int8, symmetric. Return it and its scale, shape (rows, 1)."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / LEVELS, np.finfo(np.float32).tiny)
    return np.rint(table / scale).astype(np.int8), scale.astype(np.float32)


def smoothing(inputs: FloatArray, weights: FloatArray, *, strength: float = 0.5) -> FloatArray:
    """Divisors of a layer's inputs that balance the ranges of inputs and weights (SmoothQuant), shape (inputs,).

    Args:
        inputs: largest magnitude of each input over calibration data, shape (inputs,).
        weights: largest magnitude of each input's weights, shape (inputs,).
        strength: share of the inputs' range that moves into the weights, in [0, 1] (alpha in the paper).
    """
    floor = np.float32(1e-5)
    divisors = np.maximum(inputs, floor) ** strength / np.maximum(weights, floor) ** (1 - strength)
    return divisors.astype(np.float32)
