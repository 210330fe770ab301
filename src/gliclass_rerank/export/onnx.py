"""Export a checkpoint to ONNX, in fp32 or int8, on top of the same safetensors file that torch reads.

The graph holds structure only. Its weights are external data that point into ``model.safetensors``, so a model
folder carries its weights once for all backends.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from gliclass import GLiClassModel
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import save_file

from gliclass_rerank.calibration.file import CALIBRATION_FILE
from gliclass_rerank.errors import InputError, OptionError, UnsupportedModelError
from gliclass_rerank.export.graph import Graph
from gliclass_rerank.export.independent import joined, trace_independent
from gliclass_rerank.export.independent import see_activations as see_independent
from gliclass_rerank.export.quantize_activations import Rows
from gliclass_rerank.export.quantize_graph import Activation, quantize_graph
from gliclass_rerank.export.trace import trace_module
from gliclass_rerank.export.unsigned_weights import with_unsigned_weights
from gliclass_rerank.models.checkpoint import OPTIONS_FILE, Checkpoint, graph_name, read_checkpoint, refuse_used_folder
from gliclass_rerank.models.encoding import EncodedSequence, InputEncoder
from gliclass_rerank.models.int8_weights import FACTORS, INT8, SCALE, Tensors
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.padded.arrays import uni_encoder_inputs
from gliclass_rerank.scorers.padded.forward import UniEncoderForward
from gliclass_rerank.scorers.torch import load_model, read_stored, read_weights
from gliclass_rerank.types import FloatArray, ScoreRequest

WEIGHTS = "model.safetensors"
MIN_SHARED = 1024  # elements; smaller constants stay in the graph
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json", CALIBRATION_FILE, "MODEL_CARD.md", "LICENSE")


def export_checkpoint(
    source: Path,
    target: Path,
    *,
    dtype: Literal["int8", "fp32"] = "int8",
    calibration: Sequence[ScoreRequest] = (),
    name: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a model folder that both scorers load: configuration, tokenizer, options, calibration, weights, graph.

    Args:
        source: a uni-encoder checkpoint folder.
        target: the new folder, which must be absent or empty.
        dtype: precision of the matrix products. "int8" also stores the weights as int8.
        calibration: typical requests, needed for "int8": they give the range of each activation. About a hundred
            suffice. Not needed if the source is already int8, since its weights are reused unchanged.
        name: the exported model's name, by default the source's.
        on_progress: called with (calibration sequences done, all calibration sequences).

    Raises:
        UnsupportedModelError: an architecture without a graph. Use the torch backend for it.
        InputError, OptionError: a target in use, no calibration for int8, an unknown dtype.
    """
    checkpoint = read_checkpoint(source)
    _refuse(checkpoint, target, dtype)
    stored = read_stored(source)
    kept = quantized_weights(stored)
    if kept:
        stored = read_weights(source)
    elif dtype == "int8" and not calibration:
        raise InputError("int8 needs calibration: some typical requests that show how far activations reach")
    model = load_model(checkpoint).eval()
    graphs = traced(model, checkpoint, int8=dtype == "int8")
    if dtype == "int8":
        seen: Sequence[Mapping[str, Activation]] = [{}, {}]
        if not kept:
            encoder = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))
            sequences = [item for request in encoder.encode(calibration) for item in request.sequences]
            seen = see_activations(graphs, checkpoint, sequences, on_progress)
        int8 = quantized(graphs, matrices_of(stored, kept), kept, seen, checkpoint)
        for key, parts in int8.items():
            stored.pop(key, None)
            stored |= {key + part: torch.from_numpy(array) for part, array in parts.items()}
    target.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in stored.items()}, target / WEIGHTS, {"format": "pt"})
    (target / WEIGHTS).chmod(0o644)
    if dtype == "int8" and checkpoint.independent and not kept:
        graphs = traced_again(model, checkpoint, target, int8)
    for graph, part in zip(graphs, ("", "labels"), strict=False):
        share_weights(graph, target / WEIGHTS)
        onnx.save(graph.model, target / graph_name(part))
        if dtype == "int8":
            onnx.save(with_unsigned_weights(graph.model), target / graph_name(part, "u8u8"))
    for file in COPIED:
        if (source / file).is_file():
            shutil.copyfile(source / file, target / file)
    told = checkpoint.prompts or checkpoint.options.prompts  # the new name may be of another family
    card = replace(checkpoint.options, name=name or checkpoint.name, dtype=dtype, prompts=told)
    (target / OPTIONS_FILE).write_text(card.as_json(), "utf-8")


def matrices_of(weights: Mapping[str, torch.Tensor], kept: Mapping[str, Tensors]) -> dict[str, FloatArray]:
    """The weights to round, float32: those of ``kept``, or if there are none all of the encoder."""
    return {
        key: value.float().numpy()
        for key, value in weights.items()
        if (key in kept if kept else ".encoder_model." in key)
    }


def traced(model: GLiClassModel, checkpoint: Checkpoint, *, int8: bool) -> list[Graph]:
    """The graphs of a checkpoint: one, or with independent labels that of the texts and that of the labels."""
    if checkpoint.independent:
        return [Graph(proto) for proto in trace_independent(model, int8=int8)]
    # The trace of "sdpa" transposes keys in nine operators per layer and rebuilds the mask in each layer.
    model.model.encoder_model.set_attn_implementation("eager")
    return [Graph(trace(UniEncoderForward(model), checkpoint))]


def traced_again(
    model: GLiClassModel, checkpoint: Checkpoint, target: Path, int8: Mapping[str, Tensors]
) -> list[Graph]:
    """The int8 graphs of a checkpoint with its rounded weights, those of ``target``. They also replace the model's.

    The steps of int8 keys and values follow from the weights. Those of the rounded ones make another export of
    ``target`` give the same graphs.
    """
    rounded = read_weights(target)
    model.load_state_dict(rounded, strict=False)
    graphs = traced(model, checkpoint, int8=True)
    quantized(graphs, matrices_of(rounded, int8), int8, [{}, {}], checkpoint)
    return graphs


def quantized(
    graphs: Sequence[Graph],
    matrices: Mapping[str, FloatArray],
    kept: Mapping[str, Tensors],
    seen: Sequence[Mapping[str, Activation]],
    checkpoint: Checkpoint,
) -> dict[str, Tensors]:
    """Rewrite all graphs of a checkpoint to int8, see `quantize_graph`. They share the parts of each weight."""
    if len(graphs) == 1:
        return quantize_graph(graphs[0], matrices, kept, seen[0], Rows(prompt_first=checkpoint.prompt_first))
    text, labels = graphs
    both = seen[0] if kept else joined(matrices, text, seen[0], labels, seen[1])
    int8 = quantize_graph(text, matrices, kept, both, Rows(ids="ids", fine="special"))
    quantize_graph(labels, matrices, int8, {}, Rows(ids="label_ids", fine="none"))
    return int8


def quantized_weights(stored: Mapping[str, torch.Tensor]) -> dict[str, Tensors]:
    """Int8 weights among stored tensors, each with its scale and factors under INT8, SCALE and FACTORS."""
    names = [key.removesuffix(INT8) for key in stored if key.endswith(INT8)]
    return {
        name: {part: stored[name + part].numpy() for part in (INT8, SCALE, FACTORS) if name + part in stored}
        for name in names
    }


def _refuse(checkpoint: Checkpoint, target: Path, dtype: str) -> None:
    if checkpoint.architecture != "uni-encoder" or checkpoint.config.get("use_lstm"):
        kind = "use_lstm" if checkpoint.config.get("use_lstm") else checkpoint.architecture
        raise UnsupportedModelError(f"{checkpoint.name}: no ONNX export of {kind}; run it with backend='torch'")
    if dtype not in ("int8", "fp32"):
        raise OptionError(f"dtype: expected 'int8' or 'fp32', got {dtype!r}")
    refuse_used_folder(target)


def trace(forward: UniEncoderForward, checkpoint: Checkpoint) -> onnx.ModelProto:
    """Export a forward pass to ONNX with all axes dynamic: batch, sequence and number of labels."""
    vocabulary = forward.model.get_input_embeddings().num_embeddings
    ids = torch.arange(48).reshape(2, 24) % vocabulary
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    spans = torch.tensor([[[1, 3], [3, 5], [5, 8]]] * 2)
    inputs = [ids, mask, spans, torch.tensor([8, 8])]
    names = ["input_ids", "attention_mask", "label_spans", "separators"]
    sequence = {0: "batch", 1: "sequence"}
    shapes = [sequence, sequence, {0: "batch", 1: "labels"}, {0: "batch"}]
    if checkpoint.uses_segments:
        inputs.append((torch.arange(24) > 8).long().expand(2, -1))
        names.append("segment_ids")
        shapes.append(sequence)
    return trace_module(forward, tuple(inputs), tuple(shapes), names, ["logits"])


def see_activations(
    graphs: Sequence[Graph],
    checkpoint: Checkpoint,
    sequences: Sequence[EncodedSequence],
    on_progress: Callable[[int, int], None],
) -> Sequence[Mapping[str, Activation]]:
    """Collect statistics of the inputs of each graph's weight products over ``sequences``.

    In each sequence, the label tokens together weigh as much as the text tokens together: they are few, but the score
    depends on them as much.
    """
    if checkpoint.independent:
        text, labels = graphs
        return see_independent(text, labels, sequences, on_progress)
    (graph,) = graphs
    names = graph.product_inputs()
    session = onnxruntime.InferenceSession(graph.with_outputs(names).SerializeToString())
    seen: dict[str, Activation] = {}
    for done, item in enumerate(sequences, 1):
        feed = uni_encoder_inputs([item], 0, segments=checkpoint.uses_segments)
        inside = (np.arange(len(item.ids)) <= item.separator) == checkpoint.prompt_first
        weights = np.where(inside, 0.5 / max(inside.sum(), 1), 0.5 / max((~inside).sum(), 1)).astype(np.float32)
        for name, values in zip(names, session.run(names, feed), strict=True):
            rows = values.reshape(-1, values.shape[-1])
            # The head's products have one row per text or label, not per token.
            of_rows = weights if len(rows) == len(weights) else np.full(len(rows), 1 / len(rows), np.float32)
            one = Activation.of(rows, of_rows)
            seen[name] = seen[name] + one if name in seen else one
        on_progress(done, len(sequences))
    return [seen]


def share_weights(graph: Graph, weights: Path) -> None:
    """Replace the graph's large constants by references into a safetensors file that holds the same values.

    The file may store a constant in another precision or transposed. The graph then casts and transposes it, which
    onnxruntime does once, at load.
    """
    entries = safetensors_entries(weights)
    by_content: dict[bytes, tuple[str, bool]] = {}
    for name, (kind, shape, offset, size) in entries.items():
        array = _read(weights, kind, shape, offset, size)
        if array is None or array.size < MIN_SHARED:
            continue
        by_content.setdefault(_content(array), (name, False))
        if array.ndim == 2:
            by_content.setdefault(_content(array.T), (name, True))
    for constant in list(graph.constants.values()):
        if constant.name in entries:  # written by quantize_graph under the stored name
            graph.refer(constant.name, entries[constant.name], weights.name)
            continue
        array = numpy_helper.to_array(constant)
        if array.size >= MIN_SHARED and (found := by_content.get(_content(array))):
            graph.replace_by_stored(constant, found[0], entries[found[0]], weights.name, transposed=found[1])


Entry = tuple[str, tuple[int, ...], int, int]
"""Type name, shape, offset in the file and size in bytes of a stored tensor."""


def safetensors_entries(file: Path) -> Mapping[str, Entry]:
    """Find each tensor in a safetensors file, which holds 8 bytes of header size, the header, then the data."""
    with file.open("rb") as handle:
        (size,) = struct.unpack("<Q", handle.read(8))
        header = json.loads(handle.read(size))
    header.pop("__metadata__", None)
    return {
        name: (
            value["dtype"],
            tuple(value["shape"]),
            8 + size + value["data_offsets"][0],
            value["data_offsets"][1] - value["data_offsets"][0],
        )
        for name, value in header.items()
    }


def _read(file: Path, kind: str, shape: tuple[int, ...], offset: int, size: int) -> FloatArray | None:
    """Read a stored tensor as float32, None if its type is not floating point."""
    types = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    if kind not in types:
        return None
    with file.open("rb") as handle:
        handle.seek(offset)
        values: NDArray[Any] = np.frombuffer(handle.read(size), dtype=np.dtype(types[kind])).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    floats: FloatArray = values.astype(np.float32)
    return floats


def _content(array: FloatArray) -> bytes:
    return str(array.shape).encode() + np.ascontiguousarray(array, np.float32).tobytes()
