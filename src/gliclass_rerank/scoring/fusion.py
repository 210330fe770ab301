"""Attention as one operator of onnxruntime, which never writes the attention weights to memory.

Its flash kernel takes no mask, so a graph with it reads batches without padding: of sequences of equal length, as
`OnnxScorer` makes them for every graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from gliclass_rerank.scoring.graph import Graph
from gliclass_rerank.types import FloatArray

MICROSOFT = "com.microsoft"
OUTPUT = "attention.output.dense.weight"  # of a layer of BERT and its kin, under transformers' names
INPUTS = tuple(f"attention.self.{part}.weight" for part in ("query", "key", "value"))


def fuse_attention(graph: Graph, weights: Mapping[str, FloatArray], *, heads: int) -> int:
    """Compute the attention of each layer of BERT and its kin by one node; returns the layers that were rewritten.

    What lies between the projections of a layer is found by the weights at both ends, and left away.

    Args:
        graph: changed in place.
        weights: the checkpoint's matrices by name, float32, linear layers as (outputs, inputs).
        heads: of each layer.
    """
    names = {array.tobytes(): name for name, array in weights.items()}
    products = {names.get(graph.array(node.input[1]).T.tobytes(), ""): node for node in graph.products()}
    replacements: dict[str, list[onnx.NodeProto]] = {}
    for name, node in products.items():
        stem = name.removesuffix(OUTPUT)
        projections = [products.get(stem + part) for part in INPUTS]
        if stem == name or None in projections:
            continue
        inputs = []
        for projection in projections:
            assert projection is not None
            biased = graph.bias_of(projection)
            inputs.append((biased or projection).output[0])
        mixed = node.input[0]
        attention = helper.make_node("MultiHeadAttention", inputs, [mixed], domain=MICROSOFT, num_heads=heads)
        replacements[mixed] = [attention]
    graph.replace_nodes(replacements)
    if replacements:
        graph.drop_unread()
        graph.use_domain(MICROSOFT)
    return len(replacements)
