"""An exported folder scores like the checkpoint it came from, by either backend, and says nothing of the machine."""

from __future__ import annotations

import getpass
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoints import CORPUS
from conftest import Exported, Scorers, Tiny

from gliclass_rerank import InputError, OptionError, ScoreRequest, UnsupportedModelError, load_scorer
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.export.unsigned_weights import with_unsigned_weights
from gliclass_rerank.models.checkpoint import graph_name
from gliclass_rerank.scorers.load import locate

REQUESTS = [
    ScoreRequest(text, labels, prompt=prompt)
    for text in CORPUS[:8]
    for labels in (("science",), ("a question", "law", "cooking and travel"))
    for prompt in ("", "Sort by topic:")
]
INT8 = ("bert-average-text", "bert-prompts", "bert-prompts-segments", "modernbert-mlp", "deberta-cross-attn")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", INT8)
def test_both_backends_read_one_and_the_same_int8(name: str, exported: Exported) -> None:
    folder = exported(name, "int8")
    graph, modules = load_scorer(folder), load_scorer(folder, backend="torch", device="cpu")
    assert (graph.info.dtype, modules.info.dtype) == ("int8", "fp32")
    assert graph.info.revision == modules.info.revision
    ours, theirs = np.concatenate(graph.score(REQUESTS)), np.concatenate(modules.score(REQUESTS))
    # What differs are the activations, which the graph rounds to 8 bits.
    assert np.abs(ours - theirs).max() <= 0.05 * np.ptp(theirs)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99


@pytest.mark.parametrize("name", INT8)
def test_int8_stays_close_to_the_checkpoint(name: str, exported: Exported, scorers: Scorers) -> None:
    ours, theirs = (
        np.concatenate(scorer.score(REQUESTS)) for scorer in (load_scorer(exported(name, "int8")), scorers(name))
    )
    assert np.abs(ours - theirs).max() <= 0.08 * np.ptp(theirs)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99


@pytest.mark.parametrize("name", ["bert-simple", "bert-prompts-segments", "modernbert-mlp", "deberta-cross-attn"])
def test_fp32_is_the_checkpoint(name: str, exported: Exported, scorers: Scorers) -> None:
    folder = exported(name)
    assert load_scorer(folder).info.dtype == "fp32"
    ours, theirs = (np.concatenate(scorer.score(REQUESTS)) for scorer in (load_scorer(folder), scorers(name)))
    assert np.abs(ours - theirs).max() <= 1e-4
    modules = load_scorer(folder, backend="torch", device="cpu").score(REQUESTS)
    assert np.abs(np.concatenate(modules) - theirs).max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "dtype"), [("bert-simple", "fp32"), ("bert-average-text", "int8"), ("modernbert-mlp", "int8")]
)
def test_the_graph_holds_no_trace_of_the_machine(name: str, dtype: str, exported: Exported) -> None:
    content = (exported(name, dtype) / "model.onnx").read_bytes()
    traces = [str(Path.home()), str(Path.cwd()), "site-packages", "/home/", "/tmp/", ".py", "Users"]
    assert not [trace for trace in traces if trace.encode() in content]
    if len(getpass.getuser()) > 4:
        assert getpass.getuser().encode() not in content


@pytest.mark.parametrize(("name", "dtype"), [("bert-simple", "fp32"), ("modernbert-mlp", "int8")])
def test_weights_are_stored_once_and_the_graph_points_to_them(name: str, dtype: str, exported: Exported) -> None:
    folder = exported(name, dtype)
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    external = [tensor for tensor in graph.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert external
    assert {item.value for tensor in external for item in tensor.external_data if item.key == "location"} == {
        "model.safetensors"
    }
    embedded = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    assert embedded < (folder / "model.safetensors").stat().st_size / 2
    onnx.checker.check_model(str(folder / "model.onnx"))


@pytest.mark.parametrize("name", INT8)
def test_int8_weights_are_not_rounded_twice(name: str, exported: Exported, tmp_path: Path) -> None:
    once, again = exported(name, "int8"), tmp_path / "again"
    export_checkpoint(once, again, dtype="int8")  # without calibration: all that it decides is in the weights
    for file in ("model.safetensors", "model.onnx", "model.u8u8.onnx"):
        assert (again / file).read_bytes() == (once / file).read_bytes()


def test_the_bundled_graph_is_what_export_makes_of_the_bundled_weights(tmp_path: Path) -> None:
    bundled, _, _ = locate("mini")
    export_checkpoint(bundled, tmp_path / "mini")
    for file in ("model.safetensors", "gliclass_rerank.json"):
        assert (tmp_path / "mini" / file).read_bytes() == (bundled / file).read_bytes()
    first, second = (np.concatenate(load_scorer(folder).score(REQUESTS)) for folder in (bundled, tmp_path / "mini"))
    assert np.abs(first - second).max() <= 1e-5


def test_the_bundled_unsigned_graph_is_made_from_the_signed_one() -> None:
    bundled, _, _ = locate("mini")
    names = graph_name(), graph_name(kernel="u8u8")
    signed, unsigned = (onnx.load(bundled / name, load_external_data=False) for name in names)
    assert with_unsigned_weights(signed) == unsigned


def test_a_folder_may_be_moved(exported: Exported, tmp_path: Path) -> None:
    expected = load_scorer(exported("bert-simple")).score(REQUESTS[:2])
    moved = Path(shutil.copytree(exported("bert-simple"), tmp_path / "elsewhere"))
    assert [row.tolist() for row in load_scorer(moved).score(REQUESTS[:2])] == [row.tolist() for row in expected]


def test_the_card_names_the_model(tiny: Tiny, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    export_checkpoint(
        tiny("bert-simple").folder, tmp_path / "new", dtype="int8", calibration=REQUESTS[:3], name="judge",
        on_progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    card = json.loads((tmp_path / "new" / "gliclass_rerank.json").read_text("utf-8"))
    assert (card["name"], card["dtype"]) == ("judge", "int8")
    assert load_scorer(tmp_path / "new").info.name == "judge"
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_in_use_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(InputError, match="has files in it"):
        export_checkpoint(tiny("bert-simple").folder, tmp_path, dtype="fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("bi-encoder", "bi-encoder"),
        ("fused", "bi-encoder-fused"),
        ("t5-encoder-decoder", "encoder-decoder"),
        ("qwen3-decoder-kv", "decoder-kv"),
        ("bert-lstm", "use_lstm"),
    ],
)
def test_what_has_no_graph_is_refused_by_name(name: str, named: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=f"no ONNX export of {named}"):
        export_checkpoint(tiny(name).folder, tmp_path / "new", dtype="fp32")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [({"dtype": "int4"}, OptionError, "int4"), ({"dtype": "int8"}, InputError, "calibration")],
)
def test_impossible_options(
    options: dict[str, Any], error: type[Exception], named: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(error, match=named):
        export_checkpoint(tiny("bert-simple").folder, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
