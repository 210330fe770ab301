"""Rewrite a graph's weights to int8: match products and look-ups to checkpoint weights, and round each weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gliclass_rerank.export.graph import Graph
from gliclass_rerank.export.quantize_activations import MICROSOFT, ActivationQuantizer, Rows, index_rows
from gliclass_rerank.export.quantize_weights import quantize_columns, quantize_rows, smoothing
from gliclass_rerank.models.int8_weights import FACTORS, INT8, SCALE, Tensors
from gliclass_rerank.types import FloatArray

MIN_TABLE = 1024  # rows; smaller embedding tables are not quantized


@dataclass(frozen=True, slots=True)
class Activation:
    """Statistics of one activation over the calibration data.

    Attributes:
        low, high: smallest and largest value of each channel, float32, shape (channels,).
        gram: weighted X.T @ X over its rows X, float64, shape (channels, channels).
    """

    low: FloatArray
    high: FloatArray
    gram: NDArray[np.float64]

    @classmethod
    def of(cls, rows: FloatArray, weights: FloatArray) -> Activation:
        """Compute statistics of rows, shape (rows, channels), each with a weight in the gram matrix, shape (rows,)."""
        gram = (rows * weights[:, None]).T @ rows
        return cls(rows.min(axis=0), rows.max(axis=0), gram.astype(np.float64))

    def __add__(self, other: Activation) -> Activation:
        return Activation(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.gram + other.gram)


Seen = Mapping[str, Activation]


def quantize_graph(
    graph: Graph, weights: Mapping[str, FloatArray], kept: Mapping[str, Tensors], seen: Seen, rows: Rows
) -> dict[str, Tensors]:
    """Rewrite the products and embedding look-ups that use ``weights`` to int8.

    Args:
        graph: changed in place.
        weights: the checkpoint's matrices by name, float32, linear layers as (outputs, inputs). Products with other
            matrices (the head's, for instance) stay as they are.
        kept: matrices already stored as int8 (see `gliclass_rerank.models.int8_weights`), reused unchanged. Empty
            for float checkpoints.
        seen: calibration statistics of each product's input, unused if ``kept`` is given.
        rows: of the graph's activations.

    Returns:
        The parts of each quantized weight. In the weights file they replace the weight, under its name plus theirs.
    """
    by_content = unique_by_content(weights)
    varying = graph.varying()
    found = [_Product(node, by_content.get(graph.array(node.input[1]).T.tobytes(), "")) for node in graph.products()]
    products = [product for product in found if product.weight and product.source in varying]
    tables = {node.output[0]: (node, name) for node, name in _lookups(graph, by_content)}
    int8 = dict(kept) or {name: _quantized_table(weights[name]) for _, name in tables.values()}
    if not kept:
        int8 |= _rounded(graph, products, seen)
    replacements: dict[str, list[onnx.NodeProto]] = {}
    prepared: set[str] = set()
    for product in products:
        quantizer = ActivationQuantizer(graph, product.source, int8[product.weight][FACTORS], rows)
        first = [] if product.source in prepared else quantizer.quantize()
        prepared.add(product.source)
        replacements[product.output] = [
            *first,
            *quantizer.multiply(product.weight, int8[product.weight], product.output),
        ]
    for product in found:
        if product.weight in int8 and product.source not in varying:
            replacements[product.output] = _multiplied_at_load(graph, product, int8[product.weight])
    for output, (node, name) in tables.items():
        replacements[output] = _looked_up(graph, node, name, int8[name])
    graph.replace_nodes(replacements)
    for node in reversed(index_rows(graph, rows)):
        graph.model.graph.node.insert(0, node)
    graph.drop_unused()
    graph.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return int8


@dataclass(frozen=True, slots=True)
class _Product:
    """A product with a constant matrix, and the name of its weight ("" if the matrix is none of the given weights)."""

    node: onnx.NodeProto
    weight: str

    @property
    def source(self) -> str:
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        return str(self.node.output[0])


def _rounded(graph: Graph, products: Sequence[_Product], seen: Seen) -> dict[str, Tensors]:
    """Quantize the weights of the products."""
    divisors = _divisors(graph, products, seen)
    grams: dict[str, NDArray[np.float64]] = {}
    for product in products:
        grams[product.weight] = grams.get(product.weight, 0) + seen[product.source].gram
    rounded: dict[str, Tensors] = {}
    for product in products:
        if product.weight in rounded:
            continue
        even = divisors[product.source]
        matrix = graph.array(product.node.input[1]) * even[:, None]
        int8, scale = quantize_columns(matrix, grams[product.weight] / np.outer(even, even))
        rounded[product.weight] = {INT8: int8, SCALE: scale, FACTORS: 1 / even}
    return rounded


def _divisors(graph: Graph, products: Sequence[_Product], seen: Seen) -> dict[str, FloatArray]:
    """Smoothing divisors of each activation. Activations linked by shared weights have the same divisors."""
    group = {product.source: product.source for product in products}
    for _ in products:  # merge groups until nothing changes; a handful of rounds at most
        for weight in {product.weight for product in products}:
            linked = {group[product.source] for product in products if product.weight == weight}
            group = {source: min(linked) if root in linked else root for source, root in group.items()}
        if all(
            group[one.source] == group[two.source] for one in products for two in products if one.weight == two.weight
        ):
            break
    divisors = {}
    for root in set(group.values()):
        members = [product for product in products if group[product.source] == root]
        inputs = [np.maximum(-seen[product.source].low, seen[product.source].high) for product in members]
        columns = [np.abs(graph.array(product.node.input[1])).max(axis=1) for product in members]
        divisors[root] = smoothing(np.max(inputs, axis=0), np.max(columns, axis=0))
    return {source: divisors[root] for source, root in group.items()}


def _lookups(graph: Graph, by_content: Mapping[bytes, str]) -> list[tuple[onnx.NodeProto, str]]:
    """Look-ups in embedding tables of more than MIN_TABLE rows, with the name of each table."""
    nodes = [node for node in graph.model.graph.node if node.op_type == "Gather" and node.input[0] in graph.constants]
    named = [(node, by_content.get(graph.array(node.input[0]).tobytes(), "")) for node in nodes]
    return [(node, name) for node, name in named if name and graph.constants[node.input[0]].dims[0] > MIN_TABLE]


def _looked_up(graph: Graph, node: onnx.NodeProto, name: str, parts: Tensors) -> list[onnx.NodeProto]:
    """Build nodes that look up rows of an int8 table by token ids and return them as float32."""
    output = node.output[0]
    rows, scales = (graph.constant(name + part, parts[part]) for part in (INT8, SCALE))
    return [
        helper.make_node("Gather", [rows, node.input[1]], [f"{output}.int8"], axis=0),
        helper.make_node("Gather", [scales, node.input[1]], [f"{output}.scale"], axis=0),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output]),
    ]


def _quantized_table(table: FloatArray) -> Tensors:
    """Quantize an embedding table to the parts of `gliclass_rerank.export.quantize_weights`."""
    int8, scale = quantize_rows(table)
    return {INT8: int8, SCALE: scale}


def _multiplied_at_load(graph: Graph, product: _Product, parts: Tensors) -> list[onnx.NodeProto]:
    """Build nodes for a product of two constants (DeBERTa's relative positions), which onnxruntime folds at load."""
    weight, output = product.weight, product.output
    int8, scale = (graph.constant(weight + part, parts[part]) for part in (INT8, SCALE))
    factors = graph.constant(f"{weight}.rows", parts[FACTORS][:, None])
    return [
        helper.make_node("Cast", [int8], [f"{output}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.float", scale], [f"{output}.scaled"]),
        helper.make_node("Mul", [f"{output}.scaled", factors], [f"{output}.matrix"]),
        helper.make_node("MatMul", [product.source, f"{output}.matrix"], [output]),
    ]


def unique_by_content(weights: Mapping[str, FloatArray]) -> dict[bytes, str]:
    """Names of matrices by their bytes. Matrices with equal content are ambiguous and left out."""
    names: dict[bytes, str] = {}
    twice: set[bytes] = set()
    for name, array in weights.items():
        content = np.ascontiguousarray(array, np.float32).tobytes()
        if content in names:
            twice.add(content)
        names[content] = name
    return {content: name for content, name in names.items() if content not in twice}
