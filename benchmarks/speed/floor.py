"""Lower bound of scoring time: the operations of a model, and the rate of plain matrix products on this machine.

An operation is a multiplication or an addition, so a product of (m, k) and (k, n) has 2mkn. Only the matrix products
of the encoder for each sequence's own tokens are counted, which no kernel can avoid. Padding, embeddings, norms,
activations, the head and Python are excluded. The peak is the best rate of a single product among the model's own
shapes and a square one, on all threads at once, in fp32 (torch and onnxruntime) and int8 (onnxruntime).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from gliclass_rerank import ScoreRequest
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedSequence, InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer

Kind = Literal["fp32", "int8"]
Shape = tuple[int, int, int]
"""Rows, inner size and columns of a matrix product."""

TOKENS = 512  # rows of a product: a batch of our ONNX scorer
SQUARE = 1024
SECONDS, TRIES = 0.2, 3  # of each measurement
OPSET, IR_VERSION = 17, 8
# Matrices of a feed-forward block: two, or three with a gate.
FEED_FORWARD = {"modernbert": 3}


def sequence_lengths(checkpoint: Checkpoint, requests: Sequence[ScoreRequest]) -> list[int]:
    """Tokens of every sequence of the requests: labels, markers and text."""
    return [len(item.ids) for item in sequences_of(checkpoint, requests)]


def sequences_of(checkpoint: Checkpoint, requests: Sequence[ScoreRequest]) -> list[EncodedSequence]:
    encoder = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))
    return [item for request in encoder.encode(requests) for item in request.sequences]


def operations(encoder: Mapping[str, Any], lengths: Sequence[int]) -> int:
    """Operations of an encoder's matrix products for sequences of these lengths.

    Multiplications of a layer of width H with S tokens: 4 S H² for queries, keys, values and output, S H I for each
    matrix of its feed-forward block of width I, and H for each pair of tokens that attend to each other and each
    product of `attention_products`. These are all S² pairs, or those within the window in layers with local attention
    (`pairs_within`).

    Args:
        encoder: ``encoder_config`` of a checkpoint.
        lengths: tokens of each sequence, without padding.
    """
    width, inner, layers = (int(encoder[key]) for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    matrices = FEED_FORWARD.get(encoder.get("model_type", ""), 2)
    linear = layers * (4 * width * width + matrices * width * inner)
    local = list(encoder.get("layer_types") or ()).count("sliding_attention")
    window = int(encoder.get("local_attention") or 0) // 2
    attention = attention_products(encoder) * width
    multiplications = sum(
        tokens * linear + attention * ((layers - local) * tokens * tokens + local * pairs_within(window, tokens))
        for tokens in lengths
    )
    return 2 * multiplications


def attention_products(encoder: Mapping[str, Any]) -> int:
    """Products per pair of tokens: attention score, weighted value, and DeBERTa's two scores of the distance."""
    kinds = encoder.get("pos_att_type") or () if encoder.get("relative_attention") else ()
    return 2 + len(kinds.split("|") if isinstance(kinds, str) else kinds)


def pairs_within(window: int, tokens: int) -> int:
    """Number of ordered pairs of tokens, including each with itself, at most ``window`` positions apart."""
    reach = min(window, tokens - 1)
    return tokens + 2 * reach * tokens - reach * (reach + 1)


def peaks(encoder: Mapping[str, Any], threads: int) -> dict[Kind, dict[str, float]]:
    """Operations per second of plain products on ``threads`` threads, by shape. The largest of a kind is its peak."""
    shapes = model_shapes(encoder)
    fp32 = {named(shape): max(torch_rate(shape, threads), onnx_rate(shape, threads, "fp32")) for shape in shapes}
    return {"fp32": fp32, "int8": {named(shape): onnx_rate(shape, threads, "int8") for shape in shapes}}


def model_shapes(encoder: Mapping[str, Any]) -> list[Shape]:
    """Products of a layer for a batch of TOKENS, and a square one."""
    width, inner = encoder["hidden_size"], encoder["intermediate_size"]
    of_layer = [(TOKENS, width, width), (TOKENS, width, inner), (TOKENS, inner, width)]
    return [*of_layer, (SQUARE, SQUARE, SQUARE)]


def named(shape: Shape) -> str:
    return "x".join(map(str, shape))


def torch_rate(shape: Shape, threads: int) -> float:
    """Operations per second of torch's fp32 product, with all threads on one product."""
    rows, inner, columns = shape
    left, right = torch.rand(rows, inner), torch.rand(inner, columns)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return rate(lambda: torch.mm(left, right), shape, 1)
    finally:
        torch.set_num_threads(before)


def onnx_rate(shape: Shape, threads: int, kind: Kind) -> float:
    """Operations per second of onnxruntime's product with constant weights, with a separate product on each thread."""
    rows, inner, _ = shape
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(product(shape, kind), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    left = rng.random((rows, inner), np.float32)
    feed = {"left": left if kind == "fp32" else (255 * left).astype(np.uint8)}
    return rate(lambda: session.run(None, feed), shape, threads)


def product(shape: Shape, kind: Kind) -> bytes:
    """A graph of one matrix product: fp32, or uint8 by int8 to int32 as in dynamically quantised models."""
    rows, inner, columns = shape
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((inner, columns)).astype(np.float32)
    if kind == "int8":
        weights = np.clip(40 * weights, -127, 127).astype(np.int8)
    given, result = (TensorProto.FLOAT, TensorProto.FLOAT) if kind == "fp32" else (TensorProto.UINT8, TensorProto.INT32)
    graph = helper.make_graph(
        [helper.make_node("MatMul" if kind == "fp32" else "MatMulInteger", ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", given, [rows, inner])],
        [helper.make_tensor_value_info("out", result, [rows, columns])],
        [numpy_helper.from_array(weights, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    serialized: bytes = model.SerializeToString()
    return serialized


def rate(run: Callable[[], object], shape: Shape, threads: int) -> float:
    """Operations per second of the best of TRIES, each of SECONDS, with ``threads`` threads in parallel."""
    run()
    with ThreadPoolExecutor(threads) as pool:
        return max(timed(run, threads, pool) for _ in range(TRIES)) * 2 * int(np.prod(shape))


def timed(run: Callable[[], object], threads: int, pool: ThreadPoolExecutor) -> float:
    """Runs per second of all threads together."""
    start = time.perf_counter()

    def loop(_: int) -> int:
        count = 0
        while time.perf_counter() - start < SECONDS:
            run()
            count += 1
        return count

    count = sum(pool.map(loop, range(threads)))
    return count / (time.perf_counter() - start)
