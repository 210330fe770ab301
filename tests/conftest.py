"""Fixtures shared by all tests: tiny checkpoints, their ONNX exports, and the bundled model where it is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

# Before anything imports it: no test may reach for a runner.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads of torch that wait leave the core to others. By default they turn in a loop, which takes ten times as long
# where other processes compute.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from checkpoints import BY_NAME, CORPUS, Built, build_checkpoint
from filelock import FileLock
from hypothesis import settings
from transformers.utils import logging as transformers_logging

from gliclass_rerank import ScoreRequest
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.scorers.load import LoadedScorer, load_scorer

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

Tiny = Callable[[str], Built]
Exported = Callable[..., Path]
Scorers = Callable[..., LoadedScorer]

MINI = Path(str(resources.files("gliclass_rerank") / "bundled" / "mini"))
needs_mini = pytest.mark.skipif(not (MINI / "model.onnx").is_file(), reason="the bundled model is not there")


@pytest.fixture(scope="session", autouse=True)
def _small_and_quiet() -> Iterator[None]:
    """One thread, since tiny products only wait for each other on more; no progress bars of upstream's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    yield
    transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Checkpoints of `checkpoints.SPECS` by name, each built once a session."""
    root, built = tmp_path_factory.mktemp("checkpoints"), dict[str, Built]()

    def get(name: str) -> Built:
        if name not in built:
            built[name] = build_checkpoint(BY_NAME[name], root)
        return built[name]

    return get


@pytest.fixture(scope="session")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """ONNX exports of tiny checkpoints by name and dtype, each made once, for all workers of a run."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "exported"
    root.mkdir(exist_ok=True)

    def get(name: str, dtype: str = "fp32") -> Path:
        target = root / f"{name}-{dtype}"
        with FileLock(root / f"{target.name}.lock"):
            if not target.is_dir():
                calibration = [ScoreRequest(text, ("science", "a question", "politics and law")) for text in CORPUS]
                made = root / f"{target.name}.partial"
                export_checkpoint(tiny(name).folder, made, dtype=dtype, calibration=calibration)  # type: ignore[arg-type]
                made.rename(target)
        return target

    return get


@pytest.fixture(scope="session")
def scorers(tiny: Tiny, exported: Exported) -> Scorers:
    """Scorers of tiny checkpoints by name, backend ("torch", "onnx") and further options, each loaded once."""
    loaded: dict[tuple[object, ...], LoadedScorer] = {}

    def get(name: str, backend: str = "torch", **options: int) -> LoadedScorer:
        key = (name, backend, *sorted(options.items()))
        if key not in loaded:
            folder = tiny(name).folder if backend == "torch" else exported(name)
            loaded[key] = load_scorer(folder, backend=backend, **options)  # type: ignore[arg-type]
        return loaded[key]

    return get
