"""Export a module to ONNX by torch's exporter, without its messages."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import nn

OPSET = 20  # the first with GELU as one operator instead of five passes over the widest activations


def trace_module(
    module: nn.Module,
    inputs: tuple[Any, ...],
    shapes: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> onnx.ModelProto:
    """Export ``module``, called with ``inputs``; ``shapes`` names their dynamic axes in the same structure."""
    # The exporter logs each optional package that is missing. These models need none of them.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, inputs, dynamo=True, input_names=list(input_names), output_names=list(output_names),
            dynamic_shapes=shapes, opset_version=OPSET, verbose=False,
        )  # fmt: skip
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto
