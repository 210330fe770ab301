"""load_scorer: a name becomes a scorer that was seen to score, or an error that says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MINI, Exported, Tiny, needs_mini
from safetensors.torch import load_file, save_file

from gliclass_rerank import (
    CheckpointError,
    GLiClassRerankError,
    ModelNotFoundError,
    NonFiniteError,
    OptionError,
    ScoreRequest,
    UnsupportedModelError,
    load_scorer,
)

REQUEST = ScoreRequest("Bread rises because yeast turns sugar into gas.", ("science", "law"))


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny("bert-simple").folder, tmp_path / "copy"))


@pytest.fixture
def graph(exported: Exported, tmp_path: Path) -> Path:
    """A copy of a good ONNX folder, to be spoilt."""
    return Path(shutil.copytree(exported("bert-simple"), tmp_path / "graph"))


def with_weights(folder: Path, change: Any) -> Path:
    """Rewrite the weights by a function from a dict of tensors to nothing."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_folder_says_what_it_is(folder: Path) -> None:
    scorer = load_scorer(folder)
    info = scorer.info
    assert (info.name, info.architecture, info.backend, info.max_length) == ("copy", "uni-encoder", "torch", 512)
    assert info.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert load_scorer(str(folder), device="cpu").info.dtype == "fp32"
    assert scorer.score([REQUEST])[0].shape == (2,)


@pytest.mark.slow
def test_auto_takes_the_graph_where_it_fits(graph: Path) -> None:
    assert load_scorer(graph).info.backend == "onnx"
    assert load_scorer(graph, dtype="fp32").info.backend == "onnx"
    assert load_scorer(graph, dtype="bf16", device="cpu").info.backend == "torch"
    assert load_scorer(graph, backend="torch").info.backend == "torch"
    with pytest.raises(OptionError, match="this graph is fp32"):
        load_scorer(graph, backend="onnx", dtype="int8")
    with pytest.raises(OptionError, match="onnx backend runs on 'cpu'"):
        load_scorer(graph, backend="onnx", device="cuda")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [
    "bert-average-text", "bert-calibrated", "bert-lstm-text", "fused", "t5-encoder-decoder-text", "qwen3-decoder-kv",
])  # fmt: skip
def test_narrow_types_score_about_the_same(name: str, dtype: Any, tiny: Tiny) -> None:
    wide = load_scorer(tiny(name).folder, device="cpu").score([REQUEST])[0]
    scorer = load_scorer(tiny(name).folder, device="cpu", dtype=dtype)
    assert scorer.info.dtype == dtype
    assert abs(scorer.score([REQUEST])[0] - wide).max() < 0.15 * max(1, abs(wide).max())


def test_threads_and_batches_change_nothing(folder: Path) -> None:
    expected = load_scorer(folder).score([REQUEST])[0]
    threads = torch.get_num_threads()
    try:
        assert abs(load_scorer(folder, threads=1, max_batch_tokens=1).score([REQUEST])[0] - expected).max() < 1e-5
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"backend": "tensorrt"}, "backend: expected one of 'auto', 'onnx', 'torch'"),
        ({"dtype": "int4"}, "dtype: expected one of"),
        ({"device": "toaster"}, "device 'toaster'"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
        ({"device": ""}, "device"),
        ({"dtype": "int8"}, "int8"),
        ({"dtype": "int8", "backend": "torch"}, "int8"),
        ({"max_batch_tokens": 0}, "max_batch_tokens"),
        ({"threads": 0}, "threads"),
        ({"threads": -1}, "threads"),
        ({"max_length": 3}, "max_length"),
        ({"max_length": 513}, "8 to 512"),
    ],
)
def test_an_impossible_option_is_named(folder: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        load_scorer(folder, **options)


def test_onnx_without_a_graph_says_how_to_make_one(folder: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx.*export"):
        load_scorer(folder, backend="onnx")


@pytest.mark.parametrize("name", ["no-such-model", "a/b/c", "../x", "C:\\models\\x", "owner/na me", "MINI"])
def test_a_name_that_is_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="expected 'mini', an existing folder, a hub id"):
        load_scorer(name)


def test_a_file_is_no_model(folder: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        load_scorer(folder / "config.json")


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_scorer(tmp_path)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors, found no weights"):
        load_scorer(folder)
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"found pytorch_model\.bin; pickled weights are never read"):
        load_scorer(folder)


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    with_weights(folder, lambda state: state.pop("model.text_projector.linear_1.weight"))
    with pytest.raises(CheckpointError, match=r"1 weights are missing.*text_projector\.linear_1\.weight"):
        load_scorer(folder)


def test_weights_of_another_size_are_no_checkpoint(folder: Path) -> None:
    name = "model.text_projector.linear_1.weight"
    with_weights(folder, lambda state: state.update({name: torch.zeros(5, 7)}))
    with pytest.raises(CheckpointError):
        load_scorer(folder)


def test_broken_files_are_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not a safetensors file at all")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not readable"):
        load_scorer(folder)
    (folder / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not readable"):
        load_scorer(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder: Path, value: float) -> None:
    def spoil(state: dict[str, torch.Tensor]) -> None:
        state["model.classes_projector.linear_2.bias"][0] = value

    with pytest.raises(NonFiniteError, match=r"weight model\.classes_projector\.linear_2\.bias is NaN or infinite"):
        load_scorer(with_weights(folder, spoil))


@pytest.mark.slow
def test_a_graph_over_weights_that_are_not_finite(graph: Path) -> None:
    def spoil(state: dict[str, torch.Tensor]) -> None:
        state["model.encoder_model.embeddings.word_embeddings.weight"].fill_(float("nan"))

    with pytest.raises(NonFiniteError, match="not finite"):
        load_scorer(with_weights(graph, spoil), backend="onnx")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.onnx", "model.safetensors"])
def test_a_broken_graph(graph: Path, file: str) -> None:
    (graph / file).write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"onnxruntime cannot load it"):
        load_scorer(graph, backend="onnx")


@pytest.mark.parametrize("marker", ["<<LABEL>>", "<<SEP>>"])
def test_a_tokenizer_without_a_marker(folder: Path, marker: str) -> None:
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text("utf-8"))
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != marker]
    file.write_text(json.dumps(spec), "utf-8")
    with pytest.raises(CheckpointError, match=f"no added token {marker}"):
        load_scorer(folder)


@pytest.mark.parametrize("name", ["bert-simple", "fused", "qwen3-decoder-kv"])
def test_a_tokenizer_of_another_model(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """Upstream finds labels by the id in the configuration, so another id in the tokenizer is a broken checkpoint."""
    folder = Path(shutil.copytree(tiny(name).folder, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"class_token_index": 7}), "utf-8")
    with pytest.raises(CheckpointError, match="class_token_index"):
        load_scorer(folder)


def test_a_bi_encoder_needs_the_tokenizer_of_its_labels(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bi-encoder").folder, tmp_path / "copy"))
    assert load_scorer(folder).info.architecture == "bi-encoder"
    shutil.rmtree(folder / "label_tokenizer")
    config = json.loads((folder / "config.json").read_text("utf-8")) | {"label_model_name": "somewhere/else"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match="label_tokenizer"):
        load_scorer(folder)
    # A label encoder of the same origin as the text encoder has its tokenizer.
    config |= {"encoder_model_name": "somewhere/else"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    shutil.copyfile(tiny("bi-encoder").folder / "label_tokenizer" / "tokenizer.json", folder / "tokenizer.json")
    assert load_scorer(folder).info.architecture == "bi-encoder"


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, text=True, capture_output=True, check=False
    )


def test_a_hub_id_while_offline_is_one_clear_error(tmp_path: Path) -> None:
    start = time.monotonic()
    done = run(
        "from gliclass_rerank import load_scorer; load_scorer('nobody/no-such-model')",
        HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("gliclass_rerank.errors.ModelNotFoundError: model 'nobody/no-such-model'")
    assert "HF_HUB_OFFLINE" in last
    assert time.monotonic() - start < 30


BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # Python's own way to say that a module cannot be imported
"""


@pytest.mark.parametrize("package", ["torch", "transformers", "gliclass"])
def test_without_torch_the_torch_backend_names_its_extra(package: str, folder: Path) -> None:
    program = (
        BLOCKED.format(blocked={package})
        + f"""
from gliclass_rerank import MissingExtraError, load_scorer
try:
    load_scorer({str(folder)!r})
except MissingExtraError as error:
    print(error.extra, error)
"""
    )
    done = run(program)
    assert done.stdout.startswith("torch "), done.stderr
    assert "pip install 'gliclass-rerank[torch]'" in done.stdout


@needs_mini
def test_mini_needs_neither_torch_nor_a_network() -> None:
    absent = {"torch", "transformers", "gliclass", "huggingface_hub", "onnx", "safetensors"}
    program = (
        BLOCKED.format(blocked=absent)
        + """
from gliclass_rerank import ScoreRequest, load_scorer
scorer = load_scorer()
print(scorer.info.name, scorer.info.backend, len(scorer.score([ScoreRequest("Bread rises.", ("bread", "law"))])[0]))
"""
    )
    done = run(program)
    assert done.stdout.split() == ["mini", "onnx", "2"], done.stderr


def test_importing_the_package_imports_no_backend() -> None:
    done = run("import sys, gliclass_rerank; print({'torch', 'onnxruntime', 'transformers'} & sys.modules.keys())")
    assert done.stdout.strip() == "set()", done.stderr


@needs_mini
def test_mini_says_what_it_is() -> None:
    info = load_scorer("mini").info
    assert (info.name, info.backend, info.dtype, info.device) == ("mini", "onnx", "int8", "cpu")
    assert load_scorer(MINI, backend="torch", device="cpu").info.revision == info.revision


@pytest.mark.parametrize("name", ["bert-simple", "bi-encoder", "qwen3-decoder-kv"])
def test_scoring_from_many_threads_gives_the_same(name: str, tiny: Tiny) -> None:
    from concurrent.futures import ThreadPoolExecutor

    scorer = load_scorer(tiny(name).folder, device="cpu")
    requests = [ScoreRequest(f"Prices rose by {i} percent.", (f"label {i % 7}", "law")) for i in range(24)]
    expected = [row.tolist() for row in scorer.score(requests)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda request: scorer.score([request])[0], requests))
    assert all(abs(row - value).max() < 1e-5 for row, value in zip(results, expected, strict=True))


def test_every_refusal_is_one_of_ours(tmp_path: Path) -> None:
    for content in ("{}", "[]", '{"encoder_config": {}}', '{"encoder_config": {"model_type": "bert"}}'):
        (tmp_path / "config.json").write_text(content, "utf-8")
        (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
        with pytest.raises(GLiClassRerankError):
            load_scorer(tmp_path)


@pytest.mark.parametrize("model", ["", " "])
def test_an_empty_name_is_no_model(model: str) -> None:
    with pytest.raises(ModelNotFoundError, match="expected 'mini', an existing folder, a hub id"):
        load_scorer(model)
