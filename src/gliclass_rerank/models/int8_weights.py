"""Storage format of int8 weights in safetensors, shared by ONNX and torch.

A matrix W of shape (inputs, outputs) is stored as three tensors: W = (factors * INT8) * SCALE. SCALE, shape
(outputs,), comes from rounding each column to 8 bits. FACTORS, shape (inputs,), move the range of inputs with outliers
into the weights before rounding (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438). An embedding table of
shape (rows, size) has INT8 and a SCALE of shape (rows, 1).
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

INT8, SCALE, FACTORS = ".int8", ".scale", ".factors"
LEVELS = 127

Tensors = dict[str, NDArray[Any]]
"""The parts of one weight, keyed by INT8, SCALE and FACTORS."""
