"""Graphs whose int8 weights are read as unsigned bytes, for processors on which signed products saturate.

The weights file is unchanged: the graph adds 128 to its int8 weights, which onnxruntime does once, at load, and uses
128 as their zero point. All products are the same integers as with signed weights.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gliclass_rerank.export.quantize_activations import MICROSOFT
from gliclass_rerank.scorers.onnx_kernels import INPUTS, OUTPUTS, ZERO, probe_weights

PRODUCT = "MatMulIntegerToFloat"


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an int8 graph that multiplies by unsigned weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    products = [node for node in graph.node if node.op_type == PRODUCT]
    graph.initializer.append(numpy_helper.from_array(np.asarray(np.uint8(ZERO)), "unsigned.zero"))
    for weight in sorted({node.input[1] for node in products}, reverse=True):
        for node in reversed(_shifted(weight)):
            graph.node.insert(0, node)
    for node in products:
        node.input[1] = f"{node.input[1]}.unsigned"
        node.input.append("unsigned.zero")
    return copy


def probe_graph() -> onnx.ModelProto:
    """Build the graph for `onnx_kernels.exact_kernel`: signed and unsigned product of the same rows and weights."""
    signed = helper.make_node(PRODUCT, ["rows", "weights", "one", "ones", "zero"], ["u8s8"], domain=MICROSOFT)
    constants = {
        "weights": probe_weights(),
        "one": np.float32(1),
        "ones": np.ones(OUTPUTS, np.float32),
        "zero": np.uint8(ZERO),
    }
    graph = helper.make_graph(
        [signed],
        "byte_products",
        [helper.make_tensor_value_info("rows", TensorProto.UINT8, ["count", INPUTS])],
        [helper.make_tensor_value_info("u8s8", TensorProto.FLOAT, ["count", OUTPUTS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    both = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    unsigned = with_unsigned_weights(both)
    for node in unsigned.graph.node:
        if node.op_type == PRODUCT:
            node.output[0] = "u8u8"
    both.graph.node.extend(unsigned.graph.node)
    both.graph.initializer.extend(unsigned.graph.initializer[len(constants) :])
    both.graph.output.append(helper.make_tensor_value_info("u8u8", TensorProto.FLOAT, ["count", OUTPUTS]))
    return both


def _shifted(weight: str) -> list[onnx.NodeProto]:
    """Build nodes that add 128 to an int8 weight, as uint8."""
    # The cast keeps the bits of negative numbers, and flipping the highest bit adds 128 without a wider type.
    return [
        helper.make_node("Cast", [weight], [f"{weight}.bits"], to=TensorProto.UINT8),
        helper.make_node("BitwiseXor", [f"{weight}.bits", "unsigned.zero"], [f"{weight}.unsigned"]),
    ]
