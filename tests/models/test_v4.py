"""What checkpoints of GLiClass v4 have beside those of v3: 2,048 tokens, steps that halt, and decoders with images.

`tests/laws/test_parity.py` compares the logits of all their layouts with upstream's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BY_NAME, SPECS, Built, upstream_inputs, upstream_tokenizer
from conftest import Tiny
from gliclass import GLiClassModel
from safetensors.torch import load_file, save_file
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.qwen2_vl import Qwen2VLImageProcessorPil
from upstream_logits import LABELS, TEXTS, TOLERANCE, requests_for, upstream_logits, upstream_runs

from gliclass_rerank import OptionError, ScoreRequest, UnsupportedModelError, load_scorer
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.scorers.torch import load_model
from gliclass_rerank.training.model import save_trained

__all__ = ["upstream_runs"]

LONG = "The court found that the contract was void, since neither party had signed the last page. " * 42
WITH_IMAGES = [spec.name for spec in SPECS if spec.flags.get("multimodal")]
HALTING = [
    spec.name
    for spec in SPECS
    if spec.flags.get("recurrent_halt_threshold") and spec.flags.get("recurrent_inference", True)
]
REQUESTS = [ScoreRequest(text, LABELS) for text in TEXTS]

Copied = Callable[[str], Path]


@pytest.fixture
def copied(tiny: Tiny, tmp_path: Path) -> Copied:
    """A copy of a checkpoint's folder, to be changed."""
    return lambda name: Path(shutil.copytree(tiny(name).folder, tmp_path / name))


def change(file: Path, *path: str, **values: Any) -> None:
    """Set values in a JSON file, below the keys of ``path``. None removes one."""
    whole = json.loads(file.read_text("utf-8")) if file.exists() else {}
    part = whole
    for key in path:
        part = part[key]
    part |= values
    for key in [key for key, value in values.items() if value is None]:
        del part[key]
    file.write_text(json.dumps(whole), "utf-8")


def scores(folder: Path) -> np.ndarray[Any, Any]:
    return np.stack(load_scorer(folder, backend="torch", device="cpu").score(REQUESTS))


# Length


@pytest.mark.parametrize(
    ("backbone", "name", "positions", "tokenizer", "truncation", "length"),
    [
        ("deberta-simple", "knowledgator/gliclass-v4-edge", None, None, None, 2048),
        ("deberta-simple", "gliclass-v4-edge", None, 512, 512, 2048),
        ("bert-simple", "knowledgator/gliclass-v4-edge", 512, None, None, 512),
        ("bert-simple", "knowledgator/gliclass-v4-edge", 1500, None, None, 1500),
        ("modernbert-mlp", "knowledgator/gliclass-v4-edge", 7999, 7999, None, 2048),
        ("deberta-simple", "mine", None, 2048, None, 2048),
        ("deberta-simple", "mine", None, None, 2048, 2048),
        ("deberta-simple", "mine", None, 10**30, 1500, 1500),
        ("deberta-simple", "mine", None, 512, None, 1024),
        ("bert-simple", "mine", 2048, None, None, 2048),
        ("bert-simple", "mine", 2048, 2048, None, 2048),
        ("modernbert-mlp", "mine", 8192, 2048, None, 2048),
        ("modernbert-mlp", "knowledgator/gliclass-modern-base-v3.0", 8192, 8192, None, 1024),
        ("modernbert-mlp", "mine", 8192, 10**30, None, 1024),
    ],
)
def test_the_default_length_is_the_checkpoints_own_up_to_2048(
    copied: Copied, backbone: str, name: str, positions: int | None, tokenizer: int | None, truncation: int | None,
    length: int,
) -> None:  # fmt: skip
    folder = copied(backbone)
    if positions:
        change(folder / "config.json", "encoder_config", max_position_embeddings=positions)
    change(folder / "tokenizer_config.json", **{"model_max_length": tokenizer} if tokenizer else {})
    cut = {"direction": "Right", "max_length": truncation, "strategy": "LongestFirst", "stride": 0}
    change(folder / "tokenizer.json", **{"truncation": cut} if truncation else {})
    assert read_checkpoint(folder, name=name).max_length == length
    assert read_checkpoint(folder, name=name, max_length=600 if length > 600 else 64).max_length in (600, 64)


def test_a_length_beyond_the_positions_is_refused_whatever_the_tokenizer_allows(copied: Copied) -> None:
    folder = copied("bert-simple")
    change(folder / "tokenizer_config.json", model_max_length=2048)
    assert read_checkpoint(folder).max_length == 512
    with pytest.raises(OptionError, match="8 to 512"):
        read_checkpoint(folder, max_length=2048)


@pytest.mark.parametrize("name", ["deberta-calibrated", "modernbert-calibrated"])
@torch.no_grad()
def test_a_text_of_more_than_1024_tokens_is_read_whole_and_like_upstream(copied: Copied, tiny: Tiny, name: str) -> None:
    folder, request = copied(name), ScoreRequest(LONG, LABELS)
    if name.startswith("modernbert"):  # of rotary positions the number changes nothing else
        change(folder / "config.json", "encoder_config", max_position_embeddings=8192)
    change(folder / "tokenizer_config.json", model_max_length=2048)
    inputs = upstream_inputs(tiny(name), request)
    assert 1500 < inputs["input_ids"].shape[1] <= 2048
    theirs = tiny(name).model(**inputs, max_num_classes=len(LABELS)).logits[0]
    [ours] = load_scorer(folder, backend="torch", device="cpu").score([request])
    assert ours.spans == ((0, len(LONG)),)
    assert not ours.truncated
    np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), atol=TOLERANCE)
    [cut] = load_scorer(folder, backend="torch", device="cpu", max_length=1024).score([request])
    assert len(cut.spans) > 1


# Steps


@pytest.mark.parametrize("name", HALTING)
@torch.no_grad()
def test_texts_of_one_batch_halt_after_different_steps(tiny: Tiny, name: str) -> None:
    """Else parity would not show that each text halts by itself."""
    built = tiny(name)
    taken = {
        int(built.model.model(**upstream_inputs(built, request)).recurrent_num_steps[0])
        for request in requests_for(built)
    }
    assert len(taken) > 1


def test_an_embedding_projection_of_older_checkpoints_is_kept(copied: Copied, tiny: Tiny) -> None:
    """They have no flag for it. What they were trained with shows in the size of the head."""
    name = "embedding-gemma2-decoder-kv-projected"
    if name not in BY_NAME:
        pytest.skip("this transformers has no EmbeddingGemma 2")
    folder = copied(name)
    change(folder / "config.json", use_embedding_projection=None)
    np.testing.assert_allclose(scores(folder), scores(tiny(name).folder), atol=1e-6)


# Images


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_only_the_text_part_is_loaded(tiny: Tiny, copied: Copied, name: str) -> None:
    """What reads images may be broken, or absent: it is never built."""
    folder = copied(name)
    stored = load_file(folder / "model.safetensors")
    media = [key for key in stored if "visual." in key or "vision" in key]
    assert media or name.startswith("embedding")
    save_file(stored | {key: torch.full_like(stored[key], torch.nan) for key in media}, folder / "model.safetensors")
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    assert not [key for key, _ in model.named_parameters() if "visual" in key or "vision" in key or "audio" in key]
    kept = {key: tensor for key, tensor in stored.items() if key not in media}
    save_file(kept, folder / "model.safetensors")
    theirs = np.stack([upstream_logits(tiny(name), request) for request in REQUESTS])
    np.testing.assert_allclose(scores(folder), theirs, atol=TOLERANCE)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_what_is_saved_again_is_a_text_model_that_upstream_loads(tiny: Tiny, tmp_path: Path, name: str) -> None:
    checkpoint = read_checkpoint(tiny(name).folder)
    save_trained(load_model(checkpoint), checkpoint, tmp_path / "saved")
    again = scores(tmp_path / "saved")
    np.testing.assert_allclose(again, scores(tiny(name).folder), atol=1e-6)
    theirs, report = GLiClassModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    built = Built(BY_NAME[name], tmp_path / "saved", theirs.eval())
    np.testing.assert_allclose(again, [upstream_logits(built, request) for request in REQUESTS], atol=TOLERANCE)


def test_the_tokenizer_is_read_from_a_processors_files(tiny: Tiny, copied: Copied) -> None:
    """A processor saves its tokenizer in the folder itself. Its placeholders of images are plain text in a text."""
    folder = copied("qwen3-decoder-kv")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    tokenizer = upstream_tokenizer(tiny("qwen3-decoder-kv").folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image_pad|>"]})
    images, placeholder = Qwen2VLImageProcessorPil(), "<|image_pad|>"
    processor = LlavaProcessor(images, tokenizer, patch_size=4, image_token=placeholder)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    assert (folder / "processor_config.json").is_file()
    np.testing.assert_allclose(scores(folder), scores(tiny("qwen3-decoder-kv").folder), atol=1e-6)
    [row] = load_scorer(folder, backend="torch", device="cpu").score([ScoreRequest("an <|image_pad|>", LABELS)])
    assert np.isfinite(row).all()


@pytest.mark.parametrize(
    ("name", "path", "values", "told"),
    [
        ("qwen3-decoder-kv", (), {"multimodal": True}, "multimodal=true over 'qwen3' is not supported; only texts"),
        ("qwen3-decoder-kv", (), {"scorer_full_sequence": True}, "scorer_full_sequence=true is not supported"),
        ("qwen3-decoder-kv", ("encoder_config",), {"model_type": "qwen3_5_moe"}, "'qwen3_5_moe' is not supported"),
        ("qwen3-decoder-kv", ("encoder_config",), {"model_type": "gemma4_text"}, "'gemma4_text' is not supported"),
        ("qwen3-decoder-kv", ("encoder_config",), {"model_type": "gemma4"}, "without multimodal=true"),
        ("qwen3-decoder-kv", ("encoder_config",), {"model_type": "qwen3_5"}, "without text_config"),
        ("qwen3-decoder-kv", ("encoder_config",), {"vision_config": {"auto_map": {"x": "y.Z"}}}, "remote code"),
        ("bert-simple", (), {"multimodal": True}, "multimodal=true over 'bert'"),
    ],
)
def test_what_has_no_text_part_is_refused_by_name(
    copied: Copied, name: str, path: tuple[str, ...], values: dict[str, Any], told: str
) -> None:
    folder = copied(name)
    change(folder / "config.json", *path, **values)
    with pytest.raises(UnsupportedModelError, match=told):
        read_checkpoint(folder)


def test_a_qwen_with_images_that_is_not_marked_so_is_read_alike(copied: Copied, tiny: Tiny) -> None:
    name = "qwen3.5-decoder-kv-images"
    if name not in BY_NAME:
        pytest.skip("this transformers has no Qwen3.5")
    folder = copied(name)
    change(folder / "config.json", multimodal=False)
    np.testing.assert_allclose(scores(folder), scores(tiny(name).folder), atol=1e-6)
