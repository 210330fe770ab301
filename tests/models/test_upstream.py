"""Packages that cannot run a checkpoint are named when it is loaded, with their versions and what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gliclass.model
import onnxruntime
import pytest
import torch
from conftest import Exported, Tiny
from transformers import CONFIG_MAPPING, AutoConfig, BertModel, Qwen3Model

from gliclass_rerank import UnsupportedModelError, load_scorer
from gliclass_rerank.models.upstream import TESTED

ERRORS = (TypeError, AttributeError, KeyError, IndexError, ImportError, ValueError, RuntimeError, NotImplementedError)
TORCH = ", ".join(f"{name} {version(name)}" for name in ("gliclass", "transformers", "torch"))
PIP = "pip install " + " ".join(f"{name}=={number}" for name, number in TESTED["torch"].items())


def raising(error: BaseException) -> Any:
    def broken(*args: object, **kwargs: object) -> object:
        raise error

    return broken


def refusal(folder: Path, **options: Any) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught:
        load_scorer(folder, **options)
    return caught.value


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_from_inside_a_forward_pass(
    error: type[Exception], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BertModel, "forward", raising(error("no such thing")))
    refused = refusal(tiny("bert-avg").folder, backend="torch")
    for part in ("uni-encoder over bert", TORCH, error.__name__, "no such thing", PIP):
        assert part in str(refused)
    assert isinstance(refused.__cause__, error)


def test_a_renamed_argument(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Qwen3Model, input_ids: torch.Tensor, mask: torch.Tensor) -> object:
        return input_ids, mask

    monkeypatch.setattr(Qwen3Model, "forward", forward)
    refused = str(refusal(tiny("qwen3-decoder-kv").folder))
    assert "decoder-kv over qwen3, got TypeError" in refused
    assert "unexpected keyword argument" in refused


@pytest.mark.parametrize(("name", "part"), [("bert-simple", "UniEncoder"), ("qwen3-decoder-kv", "DecoderKV")])
def test_an_error_from_inside_the_construction(
    name: str, part: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny(name).folder
    monkeypatch.setattr(getattr(gliclass.model, f"GLiClass{part}"), "__init__", raising(TypeError("three arguments")))
    assert "TypeError: three arguments" in str(refusal(folder))


def test_a_step_that_upstream_does_not_have(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gliclass.model.GLiClassDecoderKV, "_extract_label_section")
    assert "_extract_label_section" in str(refusal(tiny("qwen3-decoder-kv").folder))


def test_a_backbone_that_transformers_does_not_have(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream would look for it on the hub, and trust the code that it finds there."""
    folder = tiny("qwen3-decoder-kv").folder
    monkeypatch.delitem(CONFIG_MAPPING._mapping, "qwen3")
    monkeypatch.setattr(AutoConfig, "from_pretrained", raising(AssertionError("the hub was asked")))
    assert "got LookupError: transformers has no 'qwen3'" in str(refusal(folder))


def test_an_import_that_fails(tiny: Tiny, tmp_path: Path) -> None:
    """As with a transformers that no longer has a class that gliclass imports."""
    (tmp_path / "gliclass").mkdir()
    (tmp_path / "gliclass" / "__init__.py").write_text("from transformers import RenamedLongAgo\n", "utf-8")
    program = f"""
from gliclass_rerank import UnsupportedModelError, load_scorer
try:
    load_scorer({str(tiny("bert-simple").folder)!r})
except UnsupportedModelError as error:
    print(error)
"""
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, text=True, capture_output=True
    )
    assert "RenamedLongAgo" in done.stdout, done.stderr
    assert PIP in done.stdout


@pytest.mark.parametrize(
    "error",
    [OSError("no space left"), MemoryError("host"), RuntimeError("can't allocate memory"), RuntimeError("CUDA error")],
)
def test_an_error_of_the_machine_stays_what_it_is(
    error: Exception, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BertModel, "forward", raising(error))
    with pytest.raises(type(error)) as caught:
        load_scorer(tiny("bert-avg").folder, backend="torch", device="cpu")
    assert caught.value is error


@pytest.mark.slow
def test_an_onnxruntime_that_cannot_run_the_graph(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", raising(TypeError("no such input")))
    refused = str(refusal(exported("bert-simple"), backend="onnx"))
    assert f"onnxruntime {onnxruntime.__version__}" in refused
    assert f"pip install onnxruntime=={TESTED['onnx']['onnxruntime']}" in refused
