"""Int8 products are exact on every processor, or the model is refused."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Exported
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from gliclass_rerank import CheckpointError, ModelError, ScoreRequest, UnsupportedModelError, load_scorer
from gliclass_rerank.export.unsigned_weights import probe_graph
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.models.encoding import InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.onnx_kernels import ZERO, exact_kernel, is_exact, probe_weights
from gliclass_rerank.scorers.padded.arrays import uni_encoder_inputs
from gliclass_rerank.types import FloatArray

REQUESTS = [ScoreRequest("Winter crops need rain and a mild spring.", ("farming", "music and film", "law"))]


def saturated(rows: NDArray[np.uint8], weights: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Products as AVX2 computes them: pairs are added in 16 bits, and what does not fit is cut."""
    terms = rows.astype(np.int64)[:, :, None] * weights.astype(np.int64)[None]
    padded = np.pad(terms, ((0, 0), (0, terms.shape[1] % 2), (0, 0)))
    pairs: NDArray[np.int64] = padded[:, ::2] + padded[:, 1::2]
    return np.asarray(pairs.clip(-(2**15), 2**15 - 1).sum(axis=1), np.int64)


class MatMulIntegerToFloat(OpRun):
    """onnxruntime's operator in NumPy; signed weights are multiplied as a processor without VNNI does it."""

    op_domain = "com.microsoft"
    saturates = True

    def _run(self, rows: Any, weights: Any, one: Any, scale: Any, zero: Any, weights_zero: Any = None) -> Any:
        flat = rows.reshape(-1, rows.shape[-1])
        if weights.dtype == np.int8 and self.saturates:
            products = saturated(flat, weights)
        else:
            products = flat.astype(np.int64) @ weights.astype(np.int64)
        offset = 0 if weights_zero is None else int(weights_zero)
        products -= offset * flat.sum(axis=1, dtype=np.int64)[:, None]
        products -= int(zero) * (weights.astype(np.int64) - offset).sum(axis=0)
        return ((products * (one * scale)).astype(np.float32).reshape(*rows.shape[:-1], -1),)


class Exact(MatMulIntegerToFloat):
    """The same on a processor with VNNI."""

    saturates = False


Exact.__name__ = MatMulIntegerToFloat.__name__  # operators are found by it


class GatherElements(OpRun):
    """As the standard has it; onnx 1.23 looks up one element a row."""

    def _run(self, data: Any, indices: Any, axis: int = 0) -> Any:
        return (np.take_along_axis(data, indices, axis),)


def logits(graph: Path, operator: type[MatMulIntegerToFloat]) -> FloatArray:
    """Logits of `REQUESTS` by a graph in NumPy."""
    checkpoint = read_checkpoint(graph.parent)
    passes = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file)).encode(REQUESTS)[0].sequences
    model = onnx.load(graph)
    feed = uni_encoder_inputs(passes, 0, segments=checkpoint.uses_segments)
    evaluator = ReferenceEvaluator(model, new_ops=[operator, GatherElements])
    (result,) = list(evaluator.run(["logits"], feed))
    of_the_text: FloatArray = np.asarray(result, np.float32)[0]
    return of_the_text


def test_saturating_products_are_told_from_exact_ones() -> None:
    weights = probe_weights().astype(np.int64)

    def exact(rows: NDArray[np.uint8]) -> FloatArray:
        return np.asarray((rows.astype(np.int64) - ZERO) @ weights, np.float32)

    def cut(rows: NDArray[np.uint8]) -> FloatArray:
        return np.asarray(saturated(rows, weights) - ZERO * weights.sum(axis=0), np.float32)

    def wrong_in_large_batches(rows: NDArray[np.uint8]) -> FloatArray:
        return exact(rows) + np.float32(len(rows) == 96)

    assert is_exact(exact)
    assert not is_exact(cut)
    assert not is_exact(wrong_in_large_batches)


def test_the_probe_in_the_package_is_the_one_that_its_source_makes() -> None:
    packed = resources.files("gliclass_rerank.scorers") / "onnx_kernels.onnx"
    assert onnx.load_from_string(packed.read_bytes()) == probe_graph()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert-average-text", "modernbert-mlp"])
def test_no_kernel_that_is_chosen_moves_a_score(name: str, exported: Exported) -> None:
    """A processor without VNNI cuts products of the signed graph, and none of the unsigned one."""
    folder = exported(name, "int8")
    expected = logits(folder / "model.onnx", Exact)
    assert np.abs(logits(folder / "model.u8u8.onnx", MatMulIntegerToFloat) - expected).max() <= 1e-5
    assert np.abs(logits(folder / "model.onnx", MatMulIntegerToFloat) - expected).max() > 1e-3
    scorer = load_scorer(folder)
    assert scorer.info.kernel == exact_kernel()
    assert np.abs(scorer.score(REQUESTS)[0] - expected).max() <= 1e-4


@pytest.mark.slow
def test_a_folder_without_the_graph_that_this_processor_needs_is_refused(graph_folder: Path) -> None:
    kernel = exact_kernel()
    read_checkpoint(graph_folder).graph_file(kernel).unlink()
    # A folder without model.onnx, the graph for VNNI, has no graph at all for the loader.
    refusal: type[ModelError] = CheckpointError if kernel == "u8u8" else UnsupportedModelError
    told = "export the checkpoint again" if kernel == "u8u8" else "make it with: gliclass-rerank export"
    with pytest.raises(refusal, match=told):
        load_scorer(graph_folder, backend="onnx")


@pytest.fixture
def graph_folder(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported("bert-average-text", "int8"), tmp_path / "model"))
