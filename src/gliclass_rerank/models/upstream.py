"""Packages that run a model: tested versions, and the error if they cannot run a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gliclass_rerank.errors import GLiClassRerankError, UnsupportedModelError

if TYPE_CHECKING:
    from gliclass_rerank.models.checkpoint import Checkpoint

# Versions of requirements.lock that install on every supported Python.
TESTED: Mapping[str, Mapping[str, str]] = {
    "torch": {"gliclass": "0.1.21", "transformers": "5.20.2", "torch": "2.13.0"},
    "onnx": {"onnxruntime": "1.23.2"},
}
# Words of a RuntimeError about the machine, which other package versions would not fix.
MACHINE = ("memory", "CUDA", "MPS")


@contextmanager
def refuse_breaks(checkpoint: Checkpoint, backend: str) -> Iterator[None]:
    """Convert an error of a backend's packages to one that names them, their versions and the checkpoint.

    Errors of this package pass unchanged, as do errors of files, memory and devices.

    Args:
        checkpoint: the model that is built or run.
        backend: "torch" or "onnx".

    Raises:
        UnsupportedModelError: the packages cannot build or run the checkpoint.
    """
    try:
        yield
    except (GLiClassRerankError, OSError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and any(word in str(error) for word in MACHINE):
            raise
        tested = TESTED[backend]
        installed = ", ".join(f"{name} {_version(name)}" for name in tested)
        wanted = " ".join(f"{name}=={number}" for name, number in tested.items())
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UnsupportedModelError(
            f"{checkpoint.name}: expected {installed} to run a {checkpoint.architecture} over {checkpoint.backbone}, "
            f"got {cause}; install the versions that are tested: pip install {wanted}"
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
