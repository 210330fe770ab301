"""Quantize the rows (tokens) of activations in a graph to int8, and rescale their products to float32.

onnxruntime's dynamic quantization uses one scale for a whole batch, so a score would depend on the rest of the batch.
Here each row of an activation has its own scale: a score is the same in any batch, and outliers of one token do not
coarsen other tokens.

Some rows get a second int8 term for the rounding error of the first: special tokens and, where labels are read with
their text, label tokens. They are few, but a label is pooled from only a handful of them, so that rounding errors do
not average out as they do over a text. benchmarks/quality/int8.py measures the cost of int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from gliclass_rerank.export.graph import Graph
from gliclass_rerank.models.int8_weights import INT8, LEVELS, SCALE, Tensors
from gliclass_rerank.types import FloatArray

MICROSOFT = "com.microsoft"
SHIFTS = {"Gelu": 0.17}  # negated lower bounds of operators' outputs; outputs plus this are quantized as unsigned
# Tensors shared by all activations: a vector with one value per row of the batch, the indices of the rows that get a
# second int8 term, and the shape (batch, sequence, -1).
ALL_ROWS, HIGH_PRECISION_ROWS, SHAPE = "rows", "fine.rows", "rows.shape"


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows a graph has, and which of them get a second int8 term.

    Attributes:
        ids: name of the graph's input of token ids.
        fine: "labels" after or before their text in one sequence, and its special tokens; the "special" tokens of a
            text by itself; or "none", in a graph of labels by themselves.
        prompt_first: whether labels precede the text in a sequence.
    """

    ids: str = "input_ids"
    fine: Literal["labels", "special", "none"] = "labels"
    prompt_first: bool = True


class ActivationQuantizer:
    """Quantization of the rows of one activation.

    Args:
        source: name of the activation in the graph. Its shape is (batch, sequence, inputs).
        factors: smoothing factors of the channels, float32, shape (inputs,).
        rows: of the graph.
    """

    def __init__(self, graph: Graph, source: str, factors: FloatArray, rows: Rows) -> None:
        self.graph, self.source, self.factors = graph, source, factors
        self.has_fine = rows.fine != "none"
        self.shift = SHIFTS.get(graph.operator(source), 0.0)
        self.zero = 0 if self.shift else LEVELS + 1

    def quantize(self) -> list[onnx.NodeProto]:
        """Build nodes that quantize the activation to uint8, shape (rows, inputs), with a scale, shape (rows, 1)."""
        graph, name = self.graph, self.source
        levels = 2 * LEVELS + 1 if self.shift else LEVELS
        flat = graph.constant(f"{name}.flat", np.array([-1, len(self.factors)]))
        factors = graph.constant(f"{name}.factors", self.factors)
        nodes = [helper.make_node("Reshape", [name, flat], [f"{name}.rows"])]
        rows = f"{name}.rows"
        if self.shift:
            shift = graph.constant(f"{name}.shift", np.float32(self.shift))
            nodes.append(helper.make_node("Add", [rows, shift], [f"{name}.shifted"]))
            rows = f"{name}.shifted"
        nodes.append(helper.make_node("Mul", [rows, factors], [f"{name}.even"]))
        largest = f"{name}.even"
        if not self.shift:
            nodes.append(helper.make_node("Abs", [largest], [f"{name}.abs"]))
            largest = f"{name}.abs"
        last = graph.constant("int8.last_axis", np.array([1]))
        step = graph.constant(f"int8.step{levels}", np.float32(1 / levels))
        tiny = graph.constant("int8.tiny", np.float32(1e-12))
        return nodes + [
            helper.make_node("ReduceMax", [largest, last], [f"{name}.max"], keepdims=0),
            helper.make_node("Mul", [f"{name}.max", step], [f"{name}.step"]),
            helper.make_node("Max", [f"{name}.step", tiny], [f"{name}.scales"]),
            helper.make_node("Unsqueeze", [f"{name}.scales", last], [f"{name}.scale"]),
            _quantize(f"{name}.even", f"{name}.scales", _zeros(ALL_ROWS, self.zero), f"{name}.uint8"),
            *(self._quantize_rest() if self.has_fine else ()),
        ]

    def _quantize_rest(self) -> list[onnx.NodeProto]:
        """Build nodes that quantize the rounding error of high-precision rows (half a step at most) to a uint8 term."""
        name, fine = self.source, f"{self.source}.fine"
        finer = self.graph.constant("int8.finer", np.float32(0.5 / LEVELS))
        last = self.graph.constant("int8.last_axis", np.array([1]))
        return [
            helper.make_node("Gather", [f"{name}.even", HIGH_PRECISION_ROWS], [f"{fine}.even"], axis=0),
            helper.make_node("Gather", [f"{name}.scales", HIGH_PRECISION_ROWS], [f"{fine}.coarse_scales"], axis=0),
            helper.make_node("Gather", [f"{name}.uint8", HIGH_PRECISION_ROWS], [f"{fine}.coarse"], axis=0),
            helper.make_node(
                "DequantizeLinear",
                [f"{fine}.coarse", f"{fine}.coarse_scales", _zeros(HIGH_PRECISION_ROWS, self.zero)],
                [f"{fine}.rounded"],
                axis=0,
            ),
            helper.make_node("Sub", [f"{fine}.even", f"{fine}.rounded"], [f"{fine}.rest"]),
            helper.make_node("Mul", [f"{fine}.coarse_scales", finer], [f"{fine}.scales"]),
            helper.make_node("Unsqueeze", [f"{fine}.scales", last], [f"{fine}.scale"]),
            _quantize(f"{fine}.rest", f"{fine}.scales", _zeros(HIGH_PRECISION_ROWS, LEVELS + 1), f"{fine}.uint8"),
        ]

    def multiply(self, weight: str, parts: Tensors, output: str) -> list[onnx.NodeProto]:
        """Build nodes that multiply the quantized rows by a weight, float32, shape (batch, sequence, outputs)."""
        graph, name = self.graph, self.source
        int8, scale = parts[INT8], parts[SCALE]
        one = graph.constant("int8.one", np.float32(1))
        matrix, columns = graph.constant(weight + INT8, int8), graph.constant(weight + SCALE, scale)
        nodes = []
        rows = f"{output}.coarse"
        terms = [(name, self.zero, "coarse"), (f"{name}.fine", LEVELS + 1, "fine")]
        for term, zero, result in terms if self.has_fine else terms[:1]:
            operands = [f"{term}.uint8", matrix, one, columns, graph.constant(f"int8.zero{zero}", np.uint8(zero))]
            product = f"{output}.{result}"
            nodes += [
                helper.make_node("MatMulIntegerToFloat", operands, [f"{product}.unscaled"], domain=MICROSOFT),
                helper.make_node("Mul", [f"{product}.unscaled", f"{term}.scale"], [product]),
            ]
        if self.has_fine:
            added = [rows, f"{HIGH_PRECISION_ROWS}.places", f"{output}.fine"]
            rows = f"{output}.rows"
            nodes.append(helper.make_node("ScatterND", added, [rows], reduction="add"))
        if self.shift:  # subtract the shift's product
            ones = (int8.astype(np.float32) * self.factors[:, None]).sum(axis=0) * scale
            shift = graph.constant(f"{output}.unshift", np.float32(-self.shift) * ones)
            nodes.append(helper.make_node("Add", [rows, shift], [f"{output}.unshifted"]))
            rows = f"{output}.unshifted"
        return [*nodes, helper.make_node("Reshape", [rows, SHAPE], [output])]


def _quantize(rows: str, scales: str, zeros: str, output: str) -> onnx.NodeProto:
    return helper.make_node("QuantizeLinear", [rows, scales, zeros], [output], axis=0)


def _zeros(rows: str, zero: int) -> str:
    """Name of the zero points of all rows or of the high-precision rows, uint8, shape (rows,)."""
    return f"{rows}.zeros{zero}"


def index_rows(graph: Graph, rows: Rows) -> list[onnx.NodeProto]:
    """Build the nodes that all products share: rows with a second term, zero points, shapes."""
    has_fine = rows.fine != "none"
    nodes = _fine_mask(graph, rows) if has_fine else []
    minus_one, ids = graph.constant("int8.minus_one", np.array([-1])), rows.ids
    if has_fine:
        nodes += [
            helper.make_node("Reshape", ["fine.mask", minus_one], ["fine.flat"]),
            helper.make_node("NonZero", ["fine.flat"], ["fine.nonzero"]),
            helper.make_node("Reshape", ["fine.nonzero", minus_one], [HIGH_PRECISION_ROWS]),
        ]
    else:  # ids of labels have an axis more than activations
        flat = graph.constant("rows.flat", np.array([0, -1]))
        nodes.append(helper.make_node("Reshape", [rows.ids, flat], [ids := "rows.ids"]))
    nodes += [
        helper.make_node("Shape", [ids], ["rows.leading"]),
        helper.make_node("Concat", ["rows.leading", minus_one], [SHAPE], axis=0),
        helper.make_node("Reshape", [ids, minus_one], [ALL_ROWS]),
    ]
    if has_fine:
        last = graph.constant("int8.last_axis", np.array([1]))
        nodes.append(helper.make_node("Unsqueeze", [HIGH_PRECISION_ROWS, last], [f"{HIGH_PRECISION_ROWS}.places"]))
    for name in [HIGH_PRECISION_ROWS, ALL_ROWS] if has_fine else [ALL_ROWS]:
        nodes.append(helper.make_node("Shape", [name], [f"{name}.count"]))
        for point in (0, LEVELS + 1):
            fill = helper.make_tensor("zero", TensorProto.UINT8, [1], [point])
            nodes.append(helper.make_node("ConstantOfShape", [f"{name}.count"], [_zeros(name, point)], value=fill))
    return nodes


def _fine_mask(graph: Graph, rows: Rows) -> list[onnx.NodeProto]:
    """Build nodes that mark the rows with a second term, bool, shape (batch, sequence)."""
    zero, one = graph.constant("fine.zero", np.array(0)), graph.constant("fine.one", np.array(1))
    last = graph.constant("int8.last_axis", np.array([1]))
    of_mask = helper.make_node("ReduceSum", ["attention_mask", last], ["fine.lengths"], keepdims=1)
    of_lengths = helper.make_node("Unsqueeze", ["lengths", last], ["fine.lengths"])
    nodes = [
        helper.make_node("Shape", [rows.ids], ["fine.width"], start=1, end=2),
        helper.make_node("Squeeze", ["fine.width"], ["fine.end"]),
        helper.make_node("Range", [zero, "fine.end", one], ["fine.positions"]),
        of_lengths if rows.fine == "special" else of_mask,
        helper.make_node("Sub", ["fine.lengths", one], ["fine.final"]),
    ]
    if rows.fine == "special":  # [CLS] and <<SEP>> before the text, [SEP] after it
        nodes += [
            helper.make_node("LessOrEqual", ["fine.positions", one], ["fine.labels"]),
            helper.make_node("Equal", ["fine.positions", "fine.final"], ["fine.special"]),
        ]
    elif rows.prompt_first:
        nodes += [
            helper.make_node("Unsqueeze", ["separators", last], ["fine.border"]),
            helper.make_node("LessOrEqual", ["fine.positions", "fine.border"], ["fine.labels"]),
            helper.make_node("Equal", ["fine.positions", "fine.final"], ["fine.special"]),
        ]
    else:
        axes = graph.constant("fine.label_axes", np.array([1, 2]))
        nodes += [
            helper.make_node("ReduceMin", ["label_spans", axes], ["fine.first"], keepdims=0),
            helper.make_node("Unsqueeze", ["fine.first", last], ["fine.border"]),
            helper.make_node("GreaterOrEqual", ["fine.positions", "fine.border"], ["fine.labels"]),
            helper.make_node("Equal", ["fine.positions", zero], ["fine.special"]),
        ]
    return [*nodes, helper.make_node("Or", ["fine.labels", "fine.special"], ["fine.mask"])]
