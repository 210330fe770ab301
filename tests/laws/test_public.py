"""The public surface: its names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import gliclass_rerank

HEAVY = ("torch", "transformers", "gliclass", "onnxruntime", "onnx", "huggingface_hub", "rich", "typer")


def test_all_names_what_is_there() -> None:
    for name in gliclass_rerank.__all__:
        assert getattr(gliclass_rerank, name) is not None
    assert sorted(gliclass_rerank.__all__) == sorted(set(gliclass_rerank.__all__))


def test_every_public_error_is_of_our_tree() -> None:
    errors = [getattr(gliclass_rerank, name) for name in gliclass_rerank.__all__ if name.endswith("Error")]
    assert len(errors) > 10
    assert all(issubclass(error, gliclass_rerank.GLiClassRerankError) for error in errors)
    for error in errors:
        assert error.__doc__


def test_importing_loads_no_backend() -> None:
    code = f"import sys, gliclass_rerank; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
