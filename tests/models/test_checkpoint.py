"""What a checkpoint folder says of itself is believed, checked, or refused by name, without torch."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from checkpoints import SPECS
from conftest import Tiny
from gliclass import GLiClassModelConfig

from gliclass_rerank import CheckpointError, OptionError, UnsupportedModelError, load_scorer
from gliclass_rerank.models.backbones import BACKBONES
from gliclass_rerank.models.checkpoint import (
    POOLINGS,
    SCORERS,
    UPSTREAM_FLAGS,
    ModelOptions,
    read_checkpoint,
)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny("bert-simple").folder, tmp_path / "copy"))


def change(folder: Path, **flags: Any) -> Path:
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8"))
    for key, value in flags.items():
        place, _, name = key.rpartition("__")
        (config[place] if place else config)[name] = value
    file.write_text(json.dumps(config), "utf-8")
    return folder


def test_flags_are_those_of_upstreams_configuration() -> None:
    arguments = inspect.signature(GLiClassModelConfig.__init__).parameters.keys()
    assert arguments - {"self", "kwargs"} == UPSTREAM_FLAGS


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_every_layout_is_read(name: str, tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny(name).folder)
    config = tiny(name).model.config
    assert checkpoint.name == name
    assert checkpoint.architecture == config.architecture_type
    expected = config.encoder_config.model_type  # of a Qwen3.5 with images only its text model is read
    assert checkpoint.backbone == ("qwen3_5_text" if expected == "qwen3_5" else expected)
    assert checkpoint.prompt_first == config.prompt_first
    assert checkpoint.pooling == config.pooling_strategy
    assert checkpoint.embeds_class_token == config.embed_class_token


def test_nothing_is_called_supported_without_a_parity_test() -> None:
    compared = {(family(spec.architecture), spec.backbone) for spec in SPECS}
    # The encoders of a bi-encoder run like those of a uni-encoder.
    claimed = {(family(name), backbone) for name, backbones in BACKBONES.items() for backbone in backbones}
    assert {pair for pair in claimed if pair[0] != "bi"} <= compared
    assert {spec.flags.get("pooling_strategy", "first") for spec in SPECS} == set(POOLINGS)
    assert {spec.flags.get("scorer_type", "simple") for spec in SPECS} == set(SCORERS)


def family(architecture: str) -> str:
    return architecture.partition("-")[0]


@pytest.mark.parametrize("value", [True, 1, "new", [0], {"a": 1}])
def test_an_unknown_flag_is_refused_by_name(folder: Path, value: object) -> None:
    with pytest.raises(UnsupportedModelError, match="brand_new_flag"):
        read_checkpoint(change(folder, brand_new_flag=value))


@pytest.mark.parametrize("value", [False, None, 0, "", []])
def test_an_unknown_flag_that_is_switched_off_is_accepted(folder: Path, value: object) -> None:
    assert read_checkpoint(change(folder, brand_new_flag=value)).architecture == "uni-encoder"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"auto_map": {"AutoModel": "their.code"}}, "auto_map"),
        ({"encoder_config__auto_map": {"AutoModel": "their.code"}}, "auto_map"),
        ({"encoder_config__model_type": "my_backbone"}, "my_backbone"),
        ({"encoder_config__model_type": "llama"}, "llama"),
        ({"model_type": "bert"}, "bert"),
        ({"architecture_type": "tri-encoder"}, "tri-encoder"),
        ({"architecture_type": "bi-encoder"}, "label_model_config"),
        ({"architecture_type": "encoder-decoder"}, "bert"),
        ({"architecture_type": "decoder-kv"}, "bert"),
        ({"pooling_strategy": "median"}, "median"),
        ({"pooling_strategy": "pass"}, "pass"),
        ({"scorer_type": "cross-attn"}, "cross-attn"),
        ({"scorer_type": "cross-attn", "pooling_strategy": "pass", "use_calibrator": True}, "use_calibrator"),
        ({"scorer_type": "tree"}, "tree"),
        ({"scorer_type": "hopfield", "max_labels_alloc": "fixed"}, "hopfield"),
        ({"scorer_type": "mlp", "hidden_size": 40}, "hidden_size"),
        ({"use_lstm": True, "hidden_size": 40}, "hidden_size"),
        ({"class_token_pooling": "last"}, "last"),
        ({"squeeze_layers": True}, "squeeze_layers"),
        ({"multimodal": True}, "multimodal"),
    ],
)
def test_what_is_unsupported_is_refused_by_name(folder: Path, flags: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        read_checkpoint(change(folder, **flags))


@pytest.mark.parametrize("backbone", ["t5", "bart"])
def test_refused_combinations_of_encoder_decoders(tiny: Tiny, tmp_path: Path, backbone: str) -> None:
    folder = Path(shutil.copytree(tiny(f"{backbone}-encoder-decoder").folder, tmp_path / "copy"))
    for flags, named in (
        ({"scorer_type": "hopfield"}, "hopfield"),
        ({"scorer_type": "simple", "use_lstm": True}, "use_lstm"),
        ({"use_lstm": False, "architecture_type": "bi-encoder"}, backbone),
    ):
        with pytest.raises(UnsupportedModelError, match=named):
            read_checkpoint(change(folder, **flags))


@pytest.mark.parametrize("flags", [{"encoder_config__model_type": "their_own"}, {"auto_map": {"AutoModel": "x.Y"}}])
def test_strange_encoders_are_refused_before_upstream_is_imported(folder: Path, flags: dict[str, Any]) -> None:
    """Upstream would fetch and run the code of an encoder type that it does not know."""
    change(folder, **flags)
    program = f"""
import sys
from gliclass_rerank import UnsupportedModelError, load_scorer
try:
    load_scorer({str(folder)!r}, backend="torch")
except UnsupportedModelError:
    sys.exit(40 + len({{"gliclass", "transformers", "torch"}} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 40


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not readable as JSON"),
        ("\xff", "not readable as JSON"),
        ("[1]", "expected a JSON object"),
        ("{}", "no encoder_config"),
        ('{"encoder_config": "bert"}', "no encoder_config"),
    ],
)
def test_a_broken_configuration(folder: Path, content: str, complaint: str) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=complaint):
        read_checkpoint(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "positions"),
    [("bert-simple", 512), ("roberta", 512), ("deberta-simple", 1024), ("t5-encoder", 1024), ("qwen3-decoder-kv", 512)],
)
def test_max_length_is_what_the_positions_allow(name: str, positions: int, tiny: Tiny) -> None:
    assert read_checkpoint(tiny(name).folder).max_length == positions
    assert read_checkpoint(tiny(name).folder, max_length=100).max_length == 100
    with pytest.raises(OptionError, match="max_length"):
        read_checkpoint(tiny(name).folder, max_length=4)
    if positions < 1024:
        with pytest.raises(OptionError, match=str(positions)):
            read_checkpoint(tiny(name).folder, max_length=positions + 1)
    else:  # relative positions set no limit, only a default
        assert read_checkpoint(tiny(name).folder, max_length=4096).max_length == 4096


def test_the_card_is_read(folder: Path) -> None:
    card = {"name": "judge", "direction": "passage-as-label", "first_stage_weight": 0.5, "max_labels": 9}
    card |= {"calibrated": True, "added_later": 1}
    (folder / "gliclass_rerank.json").write_text(json.dumps(card), "utf-8")
    checkpoint = read_checkpoint(folder)
    assert checkpoint.name == "judge"
    known = {
        "name": "judge",
        "direction": "passage-as-label",
        "first_stage_weight": 0.5,
        "dtype": "fp32",
        "max_labels": 9,
        "labels": "joint",
        "prompts": None,
        "similarity": {},
    }
    assert asdict(checkpoint.options) == known  # "calibrated" was of the first versions
    (folder / "gliclass_rerank.json").write_text('{"direction": "sideways"}', "utf-8")
    with pytest.raises(CheckpointError, match="sideways"):
        read_checkpoint(folder)
    (folder / "gliclass_rerank.json").write_text('{"max_labels": 0}', "utf-8")
    with pytest.raises(CheckpointError, match="max_labels"):
        read_checkpoint(folder)


def test_the_revision_changes_with_configuration_and_weights(folder: Path) -> None:
    revisions = [read_checkpoint(folder).revision]
    assert read_checkpoint(folder).revision == revisions[0]
    change(folder, dropout=0.3)
    revisions.append(read_checkpoint(folder).revision)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    revisions.append(read_checkpoint(folder).revision)
    assert len(set(revisions)) == 3
    assert read_checkpoint(folder, revision="abc", name="x").revision == "abc"


@pytest.mark.parametrize(
    ("name", "options", "prompts"),
    [
        ("mini", {}, False),
        ("knowledgator/gliclass-edge-v3.0", {}, False),
        ("knowledgator/gliclass-instruct-edge-v1.0", {}, True),
        ("gliclass-multilang-mini", {}, True),
        ("knowledgator/gliclass-v4-edge", {}, True),
        ("gliclass-instruct/other", {}, False),
        ("mini", {"prompts": True}, True),
        ("gliclass-v4-edge", {"prompts": False}, False),
        ("gliclass-v4-edge", {"prompts": None}, True),
    ],
)
def test_the_folder_tells_of_prompts_and_else_the_name(
    folder: Path, name: str, options: dict[str, Any], prompts: bool
) -> None:
    (folder / "gliclass_rerank.json").write_text(json.dumps(options), "utf-8")
    checkpoint = read_checkpoint(folder, name=name)
    assert checkpoint.prompts is prompts
    assert load_scorer(folder, backend="torch", device="cpu").info.prompts is bool(options.get("prompts"))


@pytest.mark.parametrize("prompts", ["yes", 1, [True]])
def test_prompts_of_another_type_are_refused(folder: Path, prompts: object) -> None:
    (folder / "gliclass_rerank.json").write_text(json.dumps({"prompts": prompts}), "utf-8")
    with pytest.raises(CheckpointError, match="prompts: expected true or false"):
        read_checkpoint(folder)


@pytest.mark.parametrize("prompts", [None, True, False])
def test_prompts_are_written_as_they_are_read(folder: Path, prompts: bool | None) -> None:
    (folder / "gliclass_rerank.json").write_text(ModelOptions(prompts=prompts).as_json(), "utf-8")
    assert read_checkpoint(folder).options == ModelOptions(prompts=prompts)
