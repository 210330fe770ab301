"""The safetensors file of a router: vectors of examples and queries, logits of the queries, and the regression."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.errors import CheckpointError, InputError
from gliclass_rerank.tasks.routing.head import Regression
from gliclass_rerank.tasks.routing.outcomes import NO_ROUTE
from gliclass_rerank.tasks.routing.reader import State
from gliclass_rerank.tasks.routing.routes import examples_of

BOTH = "keep the two files of a router together, or save it anew"

VECTORS = ("examples", "queries", "coefficients")

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class VectorFile:
    """Arrays by name, of a file that was found to be the right one.

    "examples" (texts, D): each distinct example once. Of a fitted router "queries" (queries, D) and "logits" (queries,
    routes), and with a regression "coefficients" (classes, D), "intercepts" and "classes" (classes,).
    """

    path: Path
    arrays: Arrays

    def get(self, name: str, *shape: int, dtype: type[np.generic] = np.float32) -> NDArray[Any]:
        """An array of this shape, -1 for any size. Raises `CheckpointError` if it is not there."""
        array = self.arrays.get(name)
        if (
            array is None
            or array.dtype != dtype
            or len(array.shape) != len(shape)
            or not np.isfinite(array).all()
            or any(expected not in (-1, size) for expected, size in zip(shape, array.shape, strict=True))
        ):
            got = "none" if array is None else f"{array.dtype} of shape {array.shape}"
            raise CheckpointError(
                f"{self.path}, {name}: expected finite {dtype.__name__} of shape {shape}, got {got}; {BOTH}"
            )
        return array

    @property
    def width(self) -> int:
        """D, of the first array of vectors; -1 without any."""
        return next((a.shape[1] for name in VECTORS if (a := self.arrays.get(name)) is not None and a.ndim == 2), -1)

    def regression(self, routes: int) -> Regression | None:
        """The regression, or None without one."""
        if "coefficients" not in self.arrays:
            return None
        coefficients = self.get("coefficients", -1, self.width)
        classes = self.get("classes", len(coefficients), dtype=np.int64)
        if (
            len(classes) < 2
            or len(set(classes.tolist())) < len(classes)
            or classes.min() < NO_ROUTE
            or classes.max() >= routes
        ):
            raise CheckpointError(
                f"{self.path}, classes: expected different ones of {routes} routes, got {classes}; {BOTH}"
            )
        return Regression(coefficients, self.get("intercepts", len(coefficients)), classes.astype(np.intp))


def arrays_of(state: State) -> Arrays:
    """All arrays of a router with a head."""
    examples = examples_of(state.routes)
    lesson, regression = (state.fitted.lesson, state.fitted.regression) if state.fitted else (None, None)
    arrays: dict[str, NDArray[Any]] = {}
    if examples:
        arrays["examples"] = np.stack([state.vectors[text] for text in examples])
    if lesson:
        arrays |= {"queries": lesson.vectors, "logits": lesson.logits.astype(np.float32)}
    if regression:
        arrays |= {"coefficients": regression.coefficients, "intercepts": regression.intercepts}
        arrays["classes"] = regression.owners.astype(np.int64)
    return arrays


def as_bytes(arrays: Arrays) -> bytes:
    """Content of the file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_vector_file(path: Path, sha256: object) -> VectorFile:
    """Read the file beside a router's.

    Raises:
        CheckpointError: no such file, or not the one with this digest.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected the vectors of the router: {error}; {BOTH}") from error
    if digest(content) != sha256:
        raise CheckpointError(
            f"{path}: expected the file that was saved with the router, of SHA-256 {sha256!r:.14}..., got "
            f"{digest(content)[:12]}...; {BOTH}"
        )
    try:
        return VectorFile(path, load(content))
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}; {BOTH}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises `InputError`."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InputError(f"{path}: expected a place to write to: {error}; is there such a folder?") from error
