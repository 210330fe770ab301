"""The two graphs of a checkpoint with independent labels: one reads texts, one scores labels against what was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from gliclass import GLiClassModel
from numpy.typing import NDArray
from torch import Tensor, nn

from gliclass_rerank.export.graph import Graph
from gliclass_rerank.export.quantize_graph import Activation, unique_by_content
from gliclass_rerank.export.trace import trace_module
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.independent.arrays import label_passes, text_arrays
from gliclass_rerank.scorers.independent.forward import IndependentForward, TextState
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
    """Ids and lengths of texts to their vectors and all that labels read of them, rounded with ``int8``."""

    def __init__(self, forward: IndependentForward, *, int8: bool) -> None:
        super().__init__()
        self.read, self.int8 = forward, int8

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        state = self.read.read(ids, lengths)
        vectors = self.read.vectors(state.pooled)
        if not self.int8:
            return vectors, state.pooled, state.layers
        rounded = state.rounded()
        assert rounded.steps is not None
        return vectors, rounded.pooled, rounded.layers, rounded.steps


class LabelGraph(nn.Module):
    """Ids and widths of labels, and what was read of their texts, to logits."""

    def __init__(self, forward: IndependentForward) -> None:
        super().__init__()
        self.read = forward

    def forward(
        self,
        ids: Tensor,
        widths: Tensor,
        lengths: Tensor,
        pooled: Tensor,
        layers: Tensor,
        steps: Tensor | None = None,
    ) -> Tensor:
        return self.read.score(TextState(layers, steps, lengths, pooled), ids, widths)


def trace_independent(model: GLiClassModel, *, int8: bool) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Export both graphs, with all axes dynamic: texts, positions, labels of a text, tokens of a label.

    Args:
        model: with independent labels.
        int8: what is read of a text leaves the first graph, and enters the second, as int8.
    """
    forward = IndependentForward(model)
    names = state_names(int8=int8)
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(33).reshape(3, 11) % vocabulary
    lengths = torch.tensor([11, 9, 6])
    read = trace_module(
        TextGraph(forward, int8=int8),
        (ids, lengths),
        ({0: "texts", 1: "positions"}, {0: "texts"}),
        TEXT_INPUTS,
        [VECTORS, *names],
    )
    with torch.inference_mode():
        read_whole = forward.read(ids, lengths)
        state = read_whole.rounded() if int8 else read_whole
    labels = torch.arange(3 * 5 * 4).reshape(3, 5, 4) % vocabulary
    widths = torch.full((3, 5), 4)
    widths[0, 0] = 2
    of_layers = [{0: "texts", 4: "positions"}] * (2 if int8 else 1)
    layers = (state.layers,) if state.steps is None else (state.layers, state.steps)
    scored = trace_module(
        LabelGraph(forward),
        (labels, widths, lengths, state.pooled, *layers),
        (
            {0: "texts", 1: "labels", 2: "width"},
            {0: "texts", 1: "labels"},
            {0: "texts"},
            {0: "texts"},
            *of_layers,
        ),
        [*LABEL_INPUTS, LENGTHS, *names],
        [LOGITS],
    )
    return read, scored


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
