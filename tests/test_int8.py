"""The int8 rewriting by itself: what a product may lose, and that its rows do not see each other."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gliclass_rerank.scoring.fusion import fuse_attention
from gliclass_rerank.scoring.graph import Graph
from gliclass_rerank.scoring.int8 import LEVELS, MIN_SPLIT, SPLIT, Activation, Split, quantize_graph, split_range
from gliclass_rerank.types import FloatArray

ROWS, INPUTS, OUTPUTS = 40, 48, 24
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([0, 1, 2, 5]), st.sampled_from([1.0, 3.0, 20.0]), st.booleans())
def test_the_columns_of_a_split_add_up_to_what_came_in(seed: int, outliers: int, reach: float, up: bool) -> None:
    rows = activations(seed, outliers, reach, one_sided=up)
    split = split_range(rows.min(0), rows.max(0))
    assert len(split.channels) <= max(MIN_SPLIT, SPLIT * INPUTS)
    roundings = 1 + np.bincount([*split.channels, 0]).max()
    assert np.abs(through(split, rows) - rows).max() <= 0.51 * split.step * roundings


def test_one_channel_that_stands_out_does_not_coarsen_the_others() -> None:
    rows = activations(0, 1, 2.5, one_sided=True)
    split = split_range(rows.min(0), rows.max(0))
    rest = np.delete(rows, np.unique(split.channels), axis=1)
    assert split.high - split.low == pytest.approx(max(rest.max(), 0) - min(rest.min(), 0), rel=1e-6)
    assert split.high < rows.max() / 1.5


def test_channels_of_one_kind_are_not_split() -> None:
    rows = np.tile(np.linspace(-1, 1, ROWS, dtype=np.float32)[:, None], INPUTS)
    assert not len(split_range(rows.min(0), rows.max(0)).channels)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_stays_within_what_rounding_can_take(one_sided: bool, bias: bool) -> None:
    rows = activations(3, 2, 12.0, one_sided=one_sided)
    matrix = np.random.default_rng(4).standard_normal((INPUTS, OUTPUTS)).astype(np.float32)
    session, exact = quantized(rows, matrix, bias=bias), rows @ matrix + (BIAS if bias else 0)
    result = run(session, rows)
    assert np.abs(result - exact).max() <= 0.03 * np.abs(exact).max()
    assert np.abs(result - exact).max() > 0, "nothing was rounded, so nothing was tested"


def test_a_row_does_not_see_the_others() -> None:
    rows = activations(5, 2, 12.0, one_sided=False)
    session = quantized(rows, np.random.default_rng(6).standard_normal((INPUTS, OUTPUTS)).astype(np.float32), bias=True)
    together = run(session, rows)
    for i in (0, ROWS // 2, ROWS - 1):
        assert np.array_equal(run(session, rows[i : i + 1])[0], together[i])


def test_attention_between_other_weights_is_left_alone() -> None:
    graph = product(np.ones((INPUTS, OUTPUTS), np.float32), bias=True)
    assert fuse_attention(graph, {"some.weight": np.ones((OUTPUTS, INPUTS), np.float32)}, heads=2) == 0
    assert [node.op_type for node in graph.model.graph.node] == ["MatMul", "Add"]


BIAS = np.linspace(-2, 2, OUTPUTS, dtype=np.float32)


def activations(seed: int, outliers: int, reach: float, *, one_sided: bool) -> FloatArray:
    """Rows (ROWS, INPUTS) of which some channels reach ``reach`` times as far as the others."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((ROWS, INPUTS)).astype(np.float32)
    rows[:, rng.choice(INPUTS, outliers, replace=False)] *= np.float32(reach)
    return np.maximum(rows, -0.17).astype(np.float32) if one_sided else rows


def through(split: Split, rows: FloatArray) -> FloatArray:
    """What int8 keeps of rows: their own columns and those of the split, each rounded and saturated, put together."""

    def rounded(values: FloatArray) -> FloatArray:
        return (np.clip(np.rint(values / split.step) + split.zero, 0, LEVELS) - split.zero) * split.step

    kept = rounded(rows).astype(np.float32)
    for channel, offset in zip(split.channels, split.offsets, strict=True):
        beyond = rows[:, channel] - offset
        kept[:, channel] += rounded(np.maximum(beyond, 0) if offset > 0 else np.minimum(beyond, 0))
    return kept


def product(matrix: FloatArray, *, bias: bool) -> Graph:
    """The graph x @ matrix (+ BIAS)."""
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["product" if bias else "y"])]
    constants = [numpy_helper.from_array(matrix, "matrix")]
    if bias:
        nodes.append(helper.make_node("Add", ["product", "bias"], ["y"]))
        constants.append(numpy_helper.from_array(BIAS, "bias"))
    given_, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", len(matrix)), ("y", matrix.shape[1]))
    )
    graph = helper.make_graph(nodes, "product", [given_], [result], constants)
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def quantized(rows: FloatArray, matrix: FloatArray, *, bias: bool) -> onnxruntime.InferenceSession:
    """A session of `product` in int8, calibrated on the rows."""
    graph = product(matrix, bias=bias)
    seen = {"x": Activation.of(rows, np.ones(len(rows), np.float32))}
    stored = quantize_graph(graph, {"weight": matrix.T.copy()}, seen)
    assert set(stored) == {"weight"}
    onnx.checker.check_model(graph.model)
    return onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, rows: FloatArray) -> FloatArray:
    return np.asarray(session.run(["y"], {"x": rows})[0], np.float32)
