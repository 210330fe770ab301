"""Rewriting a graph's products with weights to int8, with one scale a token.

onnxruntime's own dynamic quantisation takes one scale for a whole batch, so a score would depend on whatever
else is in the batch. Here each row (token) of an activation has a scale of its own: scores stay those of the
single pair, and outliers of one token do not coarsen the others.

The rows of labels, and the special tokens, get a second int8 term for what the first one rounds away. They are few,
but a label is pooled from only a handful of them, so that rounding does not average out as it does over a text.
What int8 costs is measured by benchmarks/int8.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gliclass_rerank.scoring.graph import Graph
from gliclass_rerank.scoring.quantized import (
    FACTORS,
    INT8,
    LEVELS,
    SCALE,
    quantize_columns,
    quantize_rows,
    smoothing,
)
from gliclass_rerank.types import FloatArray

MICROSOFT = "com.microsoft"
FINE_ROWS, FINE_ZEROS = "fine.rows", "fine.zeros"
MIN_SKEW = 10  # an activation that reaches this much further up than down is shifted and kept unsigned (GELU)


@dataclass(frozen=True, slots=True)
class Activation:
    """What calibration has seen of one activation.

    Attributes:
        low, high: smallest and largest value of each channel, float32, shape (channels,).
        gram: X.T @ X over its rows X, float64, shape (channels, channels).
    """

    low: FloatArray
    high: FloatArray
    gram: NDArray[np.float64]

    @classmethod
    def of(cls, rows: FloatArray, weights: FloatArray) -> Activation:
        """See some rows, shape (rows, channels), each with a weight in the gram matrix, shape (rows,)."""
        gram = (rows * weights[:, None]).T @ rows
        return cls(rows.min(axis=0), rows.max(axis=0), gram.astype(np.float64))

    def __add__(self, other: Activation) -> Activation:
        return Activation(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.gram + other.gram)


Seen = Mapping[str, Activation]
Tensors = dict[str, NDArray[Any]]


def quantize_graph(
    graph: Graph, weights: Mapping[str, FloatArray], seen: Seen, *, prompt_first: bool
) -> dict[str, Tensors]:
    """Rewrite the products and embedding look-ups that use ``weights`` to int8.

    Args:
        graph: changed in place.
        weights: the checkpoint's matrices by name, float32, linear layers as (outputs, inputs); what is not
            among them (the head, say) stays as it is.
        seen: what calibration saw of each product's input.
        prompt_first: labels stand before the text in a sequence, else behind it.

    Returns:
        For each weight that was quantised, the tensors that replace it in the weights file, by their names.
    """
    by_content = _unique_by_content(weights)
    products = {}
    for node in graph.products():
        matrix = graph.array(node.input[1])
        if name := by_content.get(matrix.T.tobytes()):
            products[node.output[0]] = (node, name, matrix)
    divisors = _divisors(list(products.values()), seen)
    grams: dict[str, NDArray[np.float64]] = {}
    for node, name, _ in products.values():
        grams[name] = grams.get(name, 0) + seen[node.input[0]].gram
    stored: dict[str, Tensors] = {}
    replacements: dict[str, list[onnx.NodeProto]] = {}
    prepared: set[str] = set()
    for output, (node, name, matrix) in products.items():
        rows = _Rows(graph, node.input[0], seen[node.input[0]], divisors[node.input[0]])
        first = [] if rows.source in prepared else rows.quantize()
        prepared.add(rows.source)
        gram = grams[name] / np.outer(rows.divisors, rows.divisors)
        int8, scale = quantize_columns(matrix * rows.divisors[:, None], gram)
        stored[name] = {name + INT8: int8, name + SCALE: scale, name + FACTORS: 1 / rows.divisors}
        replacements[output] = [*first, *rows.multiply(name, int8, scale, output)]
    for node in graph.model.graph.node:
        if node.op_type == "Gather" and node.input[0] in graph.constants:
            table = graph.array(node.input[0])
            name = by_content.get(table.tobytes(), "")
            if name and table.shape[0] > 1024:
                replacements[node.output[0]], stored[name] = _quantized_lookup(graph, node, name, table)
    graph.replace_nodes(replacements)
    for node in reversed(_fine_rows(graph, prompt_first=prompt_first)):
        graph.model.graph.node.insert(0, node)
    graph.drop_unused()
    graph.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return stored


class _Rows:
    """The rows of one activation: how they become int8 and how their products become floats again."""

    def __init__(self, graph: Graph, source: str, seen: Activation, divisors: FloatArray) -> None:
        self.graph, self.source, self.divisors = graph, source, divisors
        low, high = float(seen.low.min()), float(seen.high.max())
        self.shift = -low if low < 0 and high > MIN_SKEW * -low else 0.0
        self.zero = 0 if self.shift else LEVELS + 1

    def quantize(self) -> list[onnx.NodeProto]:
        """Nodes from the activation (..., inputs) to uint8 (rows, inputs) and a scale of shape (rows, 1)."""
        graph, name = self.graph, self.source
        levels = 2 * LEVELS + 1 if self.shift else LEVELS
        flat = graph.constant(f"{name}.flat", np.array([-1, len(self.divisors)]))
        divide = graph.constant(f"{name}.factors", 1 / self.divisors)
        zero = helper.make_tensor("zero", TensorProto.UINT8, [1], [self.zero])
        nodes = [helper.make_node("Reshape", [name, flat], [f"{name}.rows"])]
        rows = f"{name}.rows"
        if self.shift:
            shift = graph.constant(f"{name}.shift", np.float32(self.shift))
            nodes.append(helper.make_node("Add", [rows, shift], [f"{name}.shifted"]))
            rows = f"{name}.shifted"
        nodes.append(helper.make_node("Mul", [rows, divide], [f"{name}.even"]))
        largest = f"{name}.even"
        if not self.shift:
            nodes.append(helper.make_node("Abs", [largest], [f"{name}.abs"]))
            largest = f"{name}.abs"
        last = graph.constant("int8.last_axis", np.array([1]))
        step = graph.constant(f"int8.step{levels}", np.float32(1 / levels))
        tiny = graph.constant("int8.tiny", np.float32(1e-12))
        minus_one = graph.constant("int8.minus_one", np.array([-1]))
        return nodes + [
            helper.make_node("ReduceMax", [largest, last], [f"{name}.max"], keepdims=1),
            helper.make_node("Mul", [f"{name}.max", step], [f"{name}.step"]),
            helper.make_node("Max", [f"{name}.step", tiny], [f"{name}.scale"]),
            helper.make_node("Reshape", [f"{name}.scale", minus_one], [f"{name}.scales"]),
            helper.make_node("Shape", [f"{name}.scales"], [f"{name}.count"]),
            helper.make_node("ConstantOfShape", [f"{name}.count"], [f"{name}.zeros"], value=zero),
            _quantize(f"{name}.even", f"{name}.scales", f"{name}.zeros", f"{name}.uint8"),
            helper.make_node("Shape", [name], [f"{name}.leading"], start=0, end=-1),
            helper.make_node("Concat", [f"{name}.leading", minus_one], [f"{name}.shape"], axis=0),
            *self._quantize_rest(),
        ]

    def _quantize_rest(self) -> list[onnx.NodeProto]:
        """Nodes from what rounding took from the fine rows to a second uint8 term; at most half a step is left."""
        name, fine = self.source, f"{self.source}.fine"
        finer = self.graph.constant("int8.finer", np.float32(0.5 / LEVELS))
        last = self.graph.constant("int8.last_axis", np.array([1]))
        return [
            helper.make_node("Gather", [f"{name}.even", FINE_ROWS], [f"{fine}.even"], axis=0),
            helper.make_node("Gather", [f"{name}.scales", FINE_ROWS], [f"{fine}.coarse_scales"], axis=0),
            helper.make_node("Gather", [f"{name}.zeros", FINE_ROWS], [f"{fine}.coarse_zeros"], axis=0),
            helper.make_node("Gather", [f"{name}.uint8", FINE_ROWS], [f"{fine}.coarse"], axis=0),
            helper.make_node(
                "DequantizeLinear",
                [f"{fine}.coarse", f"{fine}.coarse_scales", f"{fine}.coarse_zeros"],
                [f"{fine}.rounded"],
                axis=0,
            ),
            helper.make_node("Sub", [f"{fine}.even", f"{fine}.rounded"], [f"{fine}.rest"]),
            helper.make_node("Mul", [f"{fine}.coarse_scales", finer], [f"{fine}.scales"]),
            helper.make_node("Unsqueeze", [f"{fine}.scales", last], [f"{fine}.scale"]),
            _quantize(f"{fine}.rest", f"{fine}.scales", FINE_ZEROS, f"{fine}.uint8"),
        ]

    def multiply(self, weight: str, int8: NDArray[np.int8], scale: FloatArray, output: str) -> list[onnx.NodeProto]:
        """Nodes from the quantised rows to the product, float32, shape (..., outputs)."""
        graph, name = self.graph, self.source
        one = graph.constant("int8.one", np.float32(1))
        matrix, columns = graph.constant(weight + INT8, int8), graph.constant(weight + SCALE, scale)
        nodes = []
        for term, zero, result in ((name, self.zero, "coarse"), (f"{name}.fine", LEVELS + 1, "fine")):
            operands = [f"{term}.uint8", matrix, one, columns, graph.constant(f"int8.zero{zero}", np.uint8(zero))]
            product = f"{output}.{result}"
            nodes += [
                helper.make_node("MatMulIntegerToFloat", operands, [f"{product}.unscaled"], domain=MICROSOFT),
                helper.make_node("Mul", [f"{product}.unscaled", f"{term}.scale"], [product]),
            ]
        added = [f"{output}.coarse", f"{FINE_ROWS}.places", f"{output}.fine"]
        rows = f"{output}.rows"
        nodes.append(helper.make_node("ScatterND", added, [rows], reduction="add"))
        if self.shift:  # take the shift's own product away again
            ones = (int8.astype(np.float32) / self.divisors[:, None]).sum(axis=0) * scale
            shift = graph.constant(f"{output}.unshift", np.float32(-self.shift) * ones)
            nodes.append(helper.make_node("Add", [rows, shift], [f"{output}.unshifted"]))
            rows = f"{output}.unshifted"
        return [*nodes, helper.make_node("Reshape", [rows, f"{name}.shape"], [output])]


def _quantize(rows: str, scales: str, zeros: str, output: str) -> onnx.NodeProto:
    return helper.make_node("QuantizeLinear", [rows, scales, zeros], [output], axis=0)


def _fine_rows(graph: Graph, *, prompt_first: bool) -> list[onnx.NodeProto]:
    """Nodes that name the fine rows, special tokens and labels, as indices into all rows of the batch."""
    zero, one = graph.constant("fine.zero", np.array(0)), graph.constant("fine.one", np.array(1))
    minus_one, last = graph.constant("int8.minus_one", np.array([-1])), graph.constant("int8.last_axis", np.array([1]))
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["fine.width"], start=1, end=2),
        helper.make_node("Squeeze", ["fine.width"], ["fine.end"]),
        helper.make_node("Range", [zero, "fine.end", one], ["fine.positions"]),
        helper.make_node("ReduceSum", ["attention_mask", last], ["fine.lengths"], keepdims=1),
        helper.make_node("Sub", ["fine.lengths", one], ["fine.final"]),
    ]
    if prompt_first:
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
    fill = helper.make_tensor("zero", TensorProto.UINT8, [1], [LEVELS + 1])
    return nodes + [
        helper.make_node("Or", ["fine.labels", "fine.special"], ["fine.mask"]),
        helper.make_node("Reshape", ["fine.mask", minus_one], ["fine.flat"]),
        helper.make_node("NonZero", ["fine.flat"], ["fine.nonzero"]),
        helper.make_node("Reshape", ["fine.nonzero", minus_one], [FINE_ROWS]),
        helper.make_node("Unsqueeze", [FINE_ROWS, last], [f"{FINE_ROWS}.places"]),
        helper.make_node("Shape", [FINE_ROWS], ["fine.count"]),
        helper.make_node("ConstantOfShape", ["fine.count"], [FINE_ZEROS], value=fill),
    ]


def _divisors(products: Sequence[tuple[onnx.NodeProto, str, FloatArray]], seen: Seen) -> dict[str, FloatArray]:
    """Smoothing divisors of each activation; activations that share a weight share them, as do all its weights."""
    group = {node.input[0]: node.input[0] for node, _, _ in products}
    for _ in products:  # join until nothing changes; a handful of rounds at most
        for name in {name for _, name, _ in products}:
            linked = [group[node.input[0]] for node, other, _ in products if other == name]
            for activation, root in group.items():
                if root in linked:
                    group[activation] = min(linked)
        if all(len({group[n.input[0]] for n, other, _ in products if other == name}) == 1 for _, name, _ in products):
            break
    divisors = {}
    for root in set(group.values()):
        members = [product for product in products if group[product[0].input[0]] == root]
        inputs = np.max([np.maximum(-seen[n.input[0]].low, seen[n.input[0]].high) for n, _, _ in members], axis=0)
        divisors[root] = smoothing(inputs, np.max([np.abs(matrix).max(axis=1) for _, _, matrix in members], axis=0))
    return {activation: divisors[root] for activation, root in group.items()}


def _quantized_lookup(
    graph: Graph, node: onnx.NodeProto, name: str, table: FloatArray
) -> tuple[list[onnx.NodeProto], Tensors]:
    int8, scale = quantize_rows(table)
    output = node.output[0]
    rows, scales = graph.constant(name + INT8, int8), graph.constant(name + SCALE, scale)
    nodes = [
        helper.make_node("Gather", [rows, node.input[1]], [f"{output}.int8"], axis=0),
        helper.make_node("Gather", [scales, node.input[1]], [f"{output}.scale"], axis=0),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output]),
    ]
    return nodes, {name + INT8: int8, name + SCALE: scale}


def _unique_by_content(weights: Mapping[str, FloatArray]) -> dict[bytes, str]:
    """Names of matrices by their bytes; two of the same content could not be told apart and are left out."""
    names: dict[bytes, str] = {}
    twice: set[bytes] = set()
    for name, array in weights.items():
        content = np.ascontiguousarray(array, np.float32).tobytes()
        if content in names:
            twice.add(content)
        names[content] = name
    return {content: name for content, name in names.items() if content not in twice}
