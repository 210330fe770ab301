"""The two graphs of a checkpoint with independent labels: one reads texts, one scores labels against what was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from gliclass import GLiClassModel
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from gliclass_rerank.export.graph import Graph
from gliclass_rerank.export.quantize_graph import Activation, unique_by_content
from gliclass_rerank.export.trace import trace_module
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.independent.arrays import label_passes, text_arrays
from gliclass_rerank.scorers.independent.forward import IndependentForward, Steps, TextState
from gliclass_rerank.scorers.independent.graphs import (
    LABEL_INPUTS,
    LENGTHS,
    LOGITS,
    TEXT_INPUTS,
    VECTORS,
    state_names,
)
from gliclass_rerank.types import FloatArray


class TextGraph(nn.Module):
    """Ids and lengths of texts to their vectors and all that labels read of them, rounded if there are ``steps``."""

    def __init__(self, forward: IndependentForward, steps: Steps | None) -> None:
        super().__init__()
        self.read, self.steps = forward, steps

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        state = self.read.read(ids, lengths)
        vectors = self.read.vectors(state.pooled)
        if self.steps is not None:
            state = state.rounded(self.steps)
        return vectors, state.pooled, *state.keys, *state.values


class LabelGraph(nn.Module):
    """Ids and widths of labels, and what was read of their texts, to logits."""

    def __init__(self, forward: IndependentForward, steps: Steps | None) -> None:
        super().__init__()
        self.read, self.steps = forward, steps

    def forward(
        self, ids: Tensor, widths: Tensor, lengths: Tensor, pooled: Tensor, keys: list[Tensor], values: list[Tensor]
    ) -> Tensor:
        return self.read.score(TextState(keys, values, lengths, pooled, self.steps), ids, widths)


def trace_independent(model: GLiClassModel, *, int8: bool) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Export both graphs, with all axes dynamic: texts, positions, labels of a text, tokens of a label.

    Args:
        model: with independent labels.
        int8: what is read of a text leaves the first graph, and enters the second, as int8.
    """
    forward = IndependentForward(model)
    # Computed here, not in the trace, where the weights would no longer be constants of their own.
    steps = forward.steps() if int8 else None
    layers = len(forward.layers)
    names = state_names(layers)
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(33).reshape(3, 11) % vocabulary
    lengths = torch.tensor([11, 9, 6])
    read = trace_module(
        TextGraph(forward, steps),
        (ids, lengths),
        ({0: "texts", 1: "positions"}, {0: "texts"}),
        TEXT_INPUTS,
        [VECTORS, *names],
    )
    with torch.inference_mode():
        state = forward.read(ids, lengths)
        state = state if steps is None else state.rounded(steps)
    labels = torch.arange(3 * 5 * 4).reshape(3, 5, 4) % vocabulary
    widths = torch.full((3, 5), 4)
    widths[0, 0] = 2
    of_states = [{0: "texts", 2: "positions"}] * layers
    scored = trace_module(
        LabelGraph(forward, steps),
        (labels, widths, lengths, state.pooled, state.keys, state.values),
        (
            {0: "texts", 1: "labels", 2: "width"},
            {0: "texts", 1: "labels"},
            {0: "texts"},
            {0: "texts"},
            of_states,
            of_states,
        ),
        [*LABEL_INPUTS, LENGTHS, *names],
        [LOGITS],
    )
    return with_quantize_linear(read), scored


def with_quantize_linear(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace Cast(Clip(Round(x))) to int8 by QuantizeLinear, which does it in one pass over the values. In place."""
    graph = Graph(model)
    made_by = {node.output[0]: node for node in model.graph.node}
    one, zero = graph.constant("int8.one", np.float32(1)), graph.constant("int8.signed_zero", np.int8(0))
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.INT8:
            clip = made_by[node.input[0]]
            rounding = made_by[clip.input[0]]
            quantize = helper.make_node("QuantizeLinear", [rounding.input[0], one, zero], list(node.output))
            replaced |= {node.output[0]: [quantize], clip.output[0]: [], rounding.output[0]: []}
    graph.replace_nodes(replaced)
    return model


def see_activations(
    text: Graph, labels: Graph, sequences: Sequence[EncodedSequence], on_progress: Callable[[int, int], None]
) -> tuple[dict[str, Activation], dict[str, Activation]]:
    """Collect statistics of the inputs of both graphs' weight products over ``sequences``.

    The label tokens of a sequence together weigh as much as its text tokens, as for joint labels.
    """
    names = text.product_inputs(), labels.product_inputs()
    outputs = [item.name for item in text.model.graph.output]
    reader, scorer = (
        onnxruntime.InferenceSession(graph.with_outputs(found).SerializeToString())
        for graph, found in zip((text, labels), names, strict=True)
    )
    seen: tuple[dict[str, Activation], dict[str, Activation]] = ({}, {})
    for done, item in enumerate(sequences, 1):
        ids, lengths = text_arrays([item], 0)
        found = reader.run([*outputs, *names[0]], dict(zip(TEXT_INPUTS, (ids, lengths), strict=True)))
        state = dict(zip(outputs[1:], found[1:], strict=False)) | {LENGTHS: lengths}
        add(seen[0], dict(zip(names[0], found[len(outputs) :], strict=True)), np.ones(ids.size, np.bool_))
        for part in label_passes([item], 0):
            values = scorer.run(names[1], {"label_ids": part.ids, "widths": part.widths, **state})
            inside = (np.arange(part.ids.shape[2]) < part.widths[..., None]).ravel()
            add(seen[1], dict(zip(names[1], values, strict=True)), inside)
        on_progress(done, len(sequences))
    return seen


def joined(
    matrices: Mapping[str, FloatArray],
    text: Graph,
    of_text: Mapping[str, Activation],
    labels: Graph,
    of_labels: Mapping[str, Activation],
) -> dict[str, Activation]:
    """Statistics of the text graph's activations, with those of the label graph that meet the same weights."""
    by_weight = {name: of_labels[source] for source, name in product_weights(labels, matrices) if source in of_labels}
    found = dict(of_text)
    for source, weight in product_weights(text, matrices):
        if source in of_text and weight in by_weight:
            found[source] = of_text[source] + by_weight[weight]
    return found


def product_weights(graph: Graph, matrices: Mapping[str, FloatArray]) -> list[tuple[str, str]]:
    """Each product of a graph with one of ``matrices``: the name of its input, and that of the weight."""
    by_content = unique_by_content(matrices)
    named = [(node.input[0], by_content.get(graph.array(node.input[1]).T.tobytes(), "")) for node in graph.products()]
    return [(str(source), weight) for source, weight in named if weight]


def add(seen: dict[str, Activation], values: Mapping[str, FloatArray], inside: NDArray[np.bool_]) -> None:
    """Add the rows of activations to their statistics, without padding; together they weigh one half."""
    for name, array in values.items():
        rows = array.reshape(-1, array.shape[-1])
        rows = rows[inside] if len(rows) == len(inside) else rows
        one = Activation.of(rows, np.full(len(rows), 0.5 / len(rows), np.float32))
        seen[name] = seen[name] + one if name in seen else one
