"""Find the int8 kernel that onnxruntime computes exactly on this processor.

On x86 without VNNI, onnxruntime multiplies unsigned activations by signed weights with an instruction that adds pairs
of products in 16 bits and saturates (documented at ``session.x64quantprecision``, its issue 6004). Products of unsigned
activations with unsigned weights do not saturate there, but are slower with VNNI or AMX. Releases before 1.25 also
multiply wrongly on AMX (its pull request 27671). A processor's name does not show these properties, so a small graph
tries both kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Literal, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gliclass_rerank.errors import UnsupportedModelError
from gliclass_rerank.types import FloatArray

Kernel = Literal["u8s8", "u8u8"]
"""Types of activations and weights, the faster kernel first. Unsigned weights are the int8 values plus 128."""

ZERO = 128  # the byte that represents 0, in activations and in unsigned weights
INPUTS, OUTPUTS = 256, 48
ROWS = (1, 2, 5, 33, 96)  # batch sizes that take different paths through onnxruntime
Products = Callable[[NDArray[np.uint8]], FloatArray]


def probe_weights() -> NDArray[np.int8]:
    """Weights of the small graph, every value from -127 to 127, shape (INPUTS, OUTPUTS)."""
    values = (np.arange(INPUTS * OUTPUTS) * 7919) % 255 - 127
    return values.astype(np.int8).reshape(INPUTS, OUTPUTS)


def is_exact(products: Products) -> bool:
    """Whether ``products`` multiplies rows of bytes, shape (rows, INPUTS), by `probe_weights` exactly."""
    generator = np.random.default_rng(0)
    weights = probe_weights().astype(np.int64)
    for count in ROWS:
        rows = generator.integers(0, 256, (count, INPUTS)).astype(np.uint8)
        rows[:, : INPUTS // 2] |= 0xC0  # large values, whose pairs saturate
        if not np.array_equal(products(rows), (rows.astype(np.int64) - ZERO) @ weights):
            return False
    return True


@cache
def exact_kernel() -> Kernel:
    """The fastest exact kernel of this process's onnxruntime on this processor.

    Raises:
        UnsupportedModelError: no kernel is exact.
    """
    graph = (resources.files("gliclass_rerank.scorers") / "onnx_kernels.onnx").read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kernels: tuple[Kernel, ...] = get_args(Kernel)
    for kernel in kernels:
        if is_exact(lambda rows, kernel=kernel: session.run([kernel], {"rows": rows})[0]):  # type: ignore[misc]
            return kernel
    raise UnsupportedModelError(
        f"onnxruntime {onnxruntime.__version__} multiplies int8 matrices wrongly on this processor; "
        "install onnxruntime 1.25 or newer, or load the model with backend='torch'"
    )
