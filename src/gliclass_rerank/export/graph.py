"""Wrapper around an ONNX graph under rewriting: nodes, constants, and references to stored constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gliclass_rerank.types import FloatArray

STORED_TYPES = {
    "I8": TensorProto.INT8,
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "F32": TensorProto.FLOAT,
}


class Graph:
    """An ONNX model whose nodes are rewritten in place, with consistent nodes and constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        # The exporter's shapes are stale after rewriting. Its metadata holds paths of the exporting machine.
        del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:]
        for node in model.graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        self.constants = {constant.name: constant for constant in model.graph.initializer}

    def products(self) -> list[onnx.NodeProto]:
        """Return the MatMul nodes that multiply by a constant matrix."""
        return [
            node
            for node in self.model.graph.node
            if node.op_type == "MatMul" and len(getattr(self.constants.get(node.input[1]), "dims", ())) == 2
        ]

    def varying(self) -> set[str]:
        """Names of all values that depend on the model's inputs. All other values are the same in every run."""
        return self.behind({item.name for item in self.model.graph.input})

    def behind(self, names: set[str]) -> set[str]:
        """Return the named values and all values that depend on them."""
        found = set(names)
        for node in self.model.graph.node:
            if found.intersection(node.input):
                found.update(node.output)
        return found

    def operator(self, name: str) -> str:
        """Type of the node that computes a value, such as "MatMul", or "" for the model's inputs and constants."""
        return next((str(node.op_type) for node in self.model.graph.node if name in node.output), "")

    def product_inputs(self) -> list[str]:
        """Names of the input-dependent activations that enter `products`, each once."""
        varying = self.varying()
        return list(dict.fromkeys(node.input[0] for node in self.products() if node.input[0] in varying))

    def with_outputs(self, names: Iterable[str]) -> onnx.ModelProto:
        """Return a copy of the model that also outputs the named activations."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        return copy

    def constant(self, name: str, value: object) -> str:
        """Add a constant and return its name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
            self.model.graph.initializer.append(self.constants[name])
            self.constants[name] = self.model.graph.initializer[-1]
        return name

    def array(self, name: str) -> FloatArray:
        """Return the value of a constant."""
        return np.asarray(numpy_helper.to_array(self.constants[name]), np.float32)

    def replace_nodes(self, replacements: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
        """Replace the nodes whose first output is named by the given nodes."""
        nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            nodes += replacements.get(node.output[0], [node])
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)

    def drop_unused(self) -> None:
        """Remove constants that no node reads."""
        used = {name for node in self.model.graph.node for name in node.input}
        kept = [constant for constant in self.model.graph.initializer if constant.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)
        self.constants = {constant.name: constant for constant in self.model.graph.initializer}

    def refer(self, name: str, entry: tuple[str, tuple[int, ...], int, int], file: str) -> None:
        """Turn a constant into a reference to ``entry`` of ``file`` (external data)."""
        kind, shape, offset, size = entry
        constant = self.constants[name]
        constant.Clear()
        constant.name, constant.data_type = name, STORED_TYPES[kind]
        constant.dims.extend(shape)
        constant.data_location = TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", offset), ("length", size)):
            item = constant.external_data.add()
            item.key, item.value = key, str(value)

    def replace_by_stored(
        self,
        constant: onnx.TensorProto,
        stored: str,
        entry: tuple[str, tuple[int, ...], int, int],
        file: str,
        *,
        transposed: bool,
    ) -> None:
        """Replace a float32 constant by the same values as stored in ``file``, cast and transposed where needed."""
        name = constant.name
        if entry[0] == "F32" and not transposed:
            self.refer(name, entry, file)
            return
        source = f"{stored}.stored"
        if source not in self.constants:
            self.constant(source, np.float32(0))
            self.refer(source, entry, file)
        nodes = [helper.make_node("Cast", [source], [f"{name}.cast" if transposed else name], to=TensorProto.FLOAT)]
        if transposed:
            nodes.append(helper.make_node("Transpose", [f"{name}.cast"], [name], perm=[1, 0]))
        self.model.graph.initializer.remove(constant)
        del self.constants[name]
        for node in reversed(nodes):
            self.model.graph.node.insert(0, node)
