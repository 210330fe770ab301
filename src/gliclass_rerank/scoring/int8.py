"""Rewriting a graph's products with weights to int8, with one constant scale for each activation.

The scales are fixed when the model is exported, from calibration data. So nothing is searched for while it runs, and a
score stays that of the single pair: scales found in a batch would depend on whatever else is in it. What makes constant
scales fine enough is that a few channels reach much further than the others. They are evened out (`smoothing`), and
what still stands out is split over several columns of the same product (outlier channel splitting, Zhao et al. 2019,
arXiv:1901.09504), each of which takes up one more stretch of the range.

What int8 costs is measured by benchmarks/int8.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from gliclass_rerank.scoring.graph import Graph
from gliclass_rerank.scoring.quantized import (
    FACTORS,
    INT8,
    SCALE,
    quantize_columns,
    quantize_rows,
    smoothing,
)
from gliclass_rerank.types import FloatArray

MICROSOFT = "com.microsoft"
LEVELS = 255  # of an activation
SPLIT, MIN_SPLIT = 1 / 96, 4  # columns that a product may get beside its own, as a share of these, and in any case
WORTH = 0.9  # of the whole range: what a split must come below to be worth its operators
MIN_SKEW = 10  # an activation that reaches this much further up than down (GELU) is split only, not smoothed as well
ROUNDING = 1e-4  # of the range, which is no reason for another column
MIN_LOOKUP = 1024  # rows of an embedding table that is worth quantising


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

    @property
    def one_sided(self) -> bool:
        """It reaches much further up than down, as behind a GELU."""
        return float(self.high.max()) > MIN_SKEW * -float(self.low.min())


Seen = Mapping[str, Activation]
Tensors = dict[str, NDArray[Any]]
Product = tuple[onnx.NodeProto, str, FloatArray]
"""Node, the name of its weight, and that as (inputs, outputs)."""


def quantize_graph(graph: Graph, weights: Mapping[str, FloatArray], seen: Seen) -> dict[str, Tensors]:
    """Rewrite the products and embedding look-ups that use ``weights`` to int8.

    Args:
        graph: changed in place.
        weights: the checkpoint's matrices by name, float32, linear layers as (outputs, inputs); what is not
            among them (the head, say) stays as it is.
        seen: what calibration saw of each product's input.

    Returns:
        For each weight that was quantised, the tensors that replace it in the weights file, by their names.
    """
    by_content = _unique_by_content(weights)
    products: list[Product] = []
    for node in graph.products():
        matrix = graph.array(node.input[1])
        if name := by_content.get(matrix.T.tobytes()):
            products.append((node, name, matrix))
    divisors = _divisors(products, seen)
    grams: dict[str, NDArray[np.float64]] = {}
    for node, name, _ in products:
        grams[name] = grams.get(name, 0) + seen[node.input[0]].gram
    stored: dict[str, Tensors] = {}
    replacements: dict[str, Sequence[onnx.NodeProto]] = {}
    rows: dict[str, _Rows] = {}
    for node, name, matrix in products:
        source = node.input[0]
        first = []
        if source not in rows:
            rows[source] = _Rows(graph, source, seen[source], divisors[source])
            first = rows[source].quantize()
        even = divisors[source]
        int8, scale = quantize_columns(matrix * even[:, None], grams[name] / np.outer(even, even))
        stored[name] = {name + INT8: int8, name + SCALE: scale, name + FACTORS: 1 / even}
        biased = graph.bias_of(node)
        output = biased.output[0] if biased else node.output[0]
        replacements[node.output[0]] = [*first, *rows[source].multiply(name, int8, scale, output, biased)]
        if biased:
            replacements[output] = []
    for node in graph.model.graph.node:
        if node.op_type == "Gather" and node.input[0] in graph.constants:
            table = graph.array(node.input[0])
            name = by_content.get(table.tobytes(), "")
            if name and table.shape[0] > MIN_LOOKUP:
                replacements[node.output[0]], stored[name] = _quantized_lookup(graph, node, name, table)
    graph.replace_nodes(replacements)
    graph.drop_unused()
    graph.use_domain(MICROSOFT)
    return stored


@dataclass(frozen=True, slots=True)
class Split:
    """The range of an activation's uint8, and the columns that take up what lies beyond.

    Attributes:
        low, high: the range, low <= 0 <= high.
        channels: int64, shape (columns,): the channel of each column.
        offsets: float32, shape (columns,): where the column's stretch begins, > 0 beyond ``high``, < 0 beyond ``low``.
    """

    low: float
    high: float
    channels: NDArray[np.int64]
    offsets: FloatArray

    @property
    def step(self) -> np.float32:
        return np.float32(max(self.high - self.low, 1e-12) / LEVELS)

    @property
    def zero(self) -> np.uint8:
        return np.uint8(np.clip(np.rint(-self.low / self.step), 0, LEVELS))


def split_range(low: FloatArray, high: FloatArray) -> Split:
    """Find the smallest range such that a few columns take up what channels reach beyond it.

    Args:
        low, high: smallest and largest value of each channel, float32, shape (channels,).
    """
    reach = np.maximum(high - np.median(high), np.median(low) - low)
    order = np.argsort(-reach, kind="stable")
    whole = best = _split(low, high, order)
    for outliers in range(1, len(order)):
        split = _split(low, high, order[outliers:])
        if len(split.channels) > max(MIN_SPLIT, SPLIT * len(low)):
            break
        best = split
    return best if best.high - best.low < WORTH * (whole.high - whole.low) else whole


def _split(low: FloatArray, high: FloatArray, inside: NDArray[np.int64]) -> Split:
    """The range of the channels ``inside``, and columns for all that lies beyond it."""
    bottom, top = min(float(low[inside].min()), 0.0), max(float(high[inside].max()), 0.0)
    channels: list[int] = []
    offsets: list[float] = []
    for edge, reached in ((top, high), (bottom, low)):
        stretches = np.ceil(reached / edge - ROUNDING).astype(int) - 1 if edge else np.zeros(len(reached), int)
        for channel in np.flatnonzero(stretches > 0):
            channels += [int(channel)] * int(stretches[channel])
            offsets += [edge * (i + 1) for i in range(stretches[channel])]
    return Split(bottom, top, np.array(channels, np.int64), np.array(offsets, np.float32))


class _Rows:
    """The rows of one activation, and their products."""

    def __init__(self, graph: Graph, source: str, seen: Activation, divisors: FloatArray) -> None:
        self.graph, self.source, self.divisors = graph, source, divisors
        self.split = split_range(seen.low / divisors, seen.high / divisors)
        self.step = graph.constant(f"{source}.step", self.split.step)
        self.zero = graph.constant(f"int8.zero{self.split.zero}", self.split.zero)

    def quantize(self) -> list[onnx.NodeProto]:
        """Nodes from the activation, float32 (..., inputs), to uint8 (rows, inputs and split columns)."""
        graph, name = self.graph, self.source
        flat = graph.constant(f"int8.rows_of{len(self.divisors)}", np.array([-1, len(self.divisors)]))
        minus_one = graph.constant("int8.minus_one", np.array([-1]))
        rows = f"{name}.rows"
        nodes = [
            helper.make_node("Reshape", [name, flat], [rows]),
            helper.make_node("Shape", [name], [f"{name}.leading"], start=0, end=-1),
            helper.make_node("Concat", [f"{name}.leading", minus_one], [f"{name}.shape"], axis=0),
        ]
        if (self.divisors != 1).any():
            factors = graph.constant(f"{name}.factors", 1 / self.divisors)
            nodes.append(helper.make_node("Mul", [rows, factors], [f"{name}.even"]))
            rows = f"{name}.even"
        if not len(self.split.channels):
            return [*nodes, self._to_uint8(rows, f"{name}.uint8")]
        return [*nodes, self._to_uint8(rows, f"{name}.inside"), *self._split_columns(rows)]

    def _split_columns(self, rows: str) -> list[onnx.NodeProto]:
        """Nodes that add the columns. Rounding to uint8 saturates, which leaves the rest to the next column."""
        graph, name, split = self.graph, self.source, self.split
        channels = graph.constant(f"{name}.channels", split.channels)
        offsets = graph.constant(f"{name}.offsets", split.offsets)
        up = split.offsets > 0
        nodes = [
            helper.make_node("Gather", [rows, channels], [f"{name}.outliers"], axis=1),
            helper.make_node("Sub", [f"{name}.outliers", offsets], [f"{name}.beyond"]),
        ]
        stretch = f"{name}.beyond"
        for name_of_limit, operator, chosen in (("floor", "Max", up), ("ceiling", "Min", ~up)):
            if chosen.any():  # what does not reach the column's stretch is nothing
                limit = np.where(chosen, 0, np.inf if operator == "Min" else -np.inf).astype(np.float32)
                limits = graph.constant(f"{name}.{name_of_limit}", limit)
                nodes.append(helper.make_node(operator, [stretch, limits], [f"{name}.{name_of_limit}ed"]))
                stretch = f"{name}.{name_of_limit}ed"
        joined = helper.make_node("Concat", [f"{name}.inside", f"{name}.outside"], [f"{name}.uint8"], axis=1)
        return [*nodes, self._to_uint8(stretch, f"{name}.outside"), joined]

    def _to_uint8(self, rows: str, output: str) -> onnx.NodeProto:
        return helper.make_node("QuantizeLinear", [rows, self.step, self.zero], [output])

    def multiply(
        self, weight: str, int8: NDArray[np.int8], scale: FloatArray, output: str, biased: onnx.NodeProto | None
    ) -> list[onnx.NodeProto]:
        """Nodes from the uint8 rows to the product, float32, shape (..., outputs), with its bias."""
        graph, name = self.graph, self.source
        matrix, columns = graph.constant(weight + INT8, int8), graph.constant(weight + SCALE, scale)
        nodes = []
        if len(self.split.channels):  # onnxruntime does this once, when it loads the model
            channels = graph.constant(f"{name}.channels", self.split.channels)
            nodes = [
                helper.make_node("Gather", [matrix, channels], [f"{output}.repeated"], axis=0),
                helper.make_node("Concat", [matrix, f"{output}.repeated"], [f"{output}.matrix"], axis=0),
            ]
            matrix = f"{output}.matrix"
        operands = [f"{name}.uint8", matrix, self.step, columns, self.zero]
        if biased:
            operands += ["", next(given for given in biased.input if given in graph.constants)]
        return [
            *nodes,
            helper.make_node("MatMulIntegerToFloat", operands, [f"{output}.flat"], domain=MICROSOFT),
            helper.make_node("Reshape", [f"{output}.flat", f"{name}.shape"], [output]),
        ]


def _divisors(products: Sequence[Product], seen: Seen) -> dict[str, FloatArray]:
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
        divisors[root] = _group_divisors(members, [seen[node.input[0]] for node, _, _ in members])
    return {activation: divisors[root] for activation, root in group.items()}


def _group_divisors(members: Sequence[Product], seen: Sequence[Activation]) -> FloatArray:
    if all(activation.one_sided for activation in seen):
        return np.ones(len(seen[0].low), np.float32)
    inputs = np.max([np.maximum(-activation.low, activation.high) for activation in seen], axis=0)
    return smoothing(inputs, np.max([np.abs(matrix).max(axis=1) for _, _, matrix in members], axis=0))


def _quantized_lookup(
    graph: Graph, node: onnx.NodeProto, name: str, table: FloatArray
) -> tuple[list[onnx.NodeProto], Tensors]:
    int8, scale = quantize_rows(table)
    output = node.output[0]
    rows, scales = graph.constant(name + INT8, int8), graph.constant(name + SCALE, scale)
    nodes = [
        helper.make_node("Gather", [rows, node.input[1]], [f"{output}.int8"], axis=0),
        helper.make_node("Gather", [scales, node.input[1]], [f"{output}.scale"], axis=0),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.float"], to=onnx.TensorProto.FLOAT),
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
