"""Backbones of checkpoints: the supported ones, their positions, and the text part of those that also read images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gliclass_rerank.errors import UnsupportedModelError

ENCODERS = (
    "bert", "modernbert", "deberta-v2", "deberta", "roberta", "xlm-roberta", "camembert", "distilbert", "electra",
    "mpnet", "albert",
)  # fmt: skip
ENCODER_HALVES = ("t5", "mt5", "umt5")  # encoder-decoders whose encoder a uni-encoder uses
ENCODER_DECODERS = ("t5", "mt5", "umt5", "bart", "mbart")
DECODERS = ("qwen3", "qwen3_5_text", "qwen3_5", "embedding_gemma2", "gemma4")
BACKBONES: Mapping[str, tuple[str, ...]] = {
    "uni-encoder": (*ENCODERS, *ENCODER_HALVES),
    "bi-encoder": ENCODERS,
    "bi-encoder-fused": ENCODERS,
    "encoder-decoder": ENCODER_DECODERS,
    "encoder-decoder-cls": ENCODER_DECODERS,
    "decoder-kv": DECODERS,
}
MULTIMODAL = ("qwen3_5", "gemma4", "embedding_gemma2")
# Backbones with relative positions only: their max_position_embeddings is no limit.
RELATIVE_POSITIONS = ("t5", "mt5", "umt5")
# Positions of these start after the padding index, so the table has two more rows than positions.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")

DECODER, LANGUAGE = "model.decoder_model.", "language_model."
MEDIA = ("visual.", "vision_tower.", "embed_vision.", "audio_tower.", "embed_audio.")


def refuse_other_media(config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModelError` for a multimodal decoder that has no text part which gliclass runs."""
    backbone, multimodal = backbone_of(config["encoder_config"]), config.get("multimodal", False)
    if multimodal and backbone not in MULTIMODAL:
        raise UnsupportedModelError(
            f"config.json: multimodal=true over {backbone!r} is not supported; only texts are read, and the text part "
            f"is known of {', '.join(MULTIMODAL)}"
        )
    if backbone == "gemma4" and not multimodal:
        raise UnsupportedModelError("encoder_config of 'gemma4' without multimodal=true: gliclass 0.1.21 refuses it")


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a checkpoint that reads only texts, with the same logits for them.

    Images and audio have no part in it. Upstream has no Gemma 4 without ``multimodal``, so this one keeps the flag.
    """
    encoder = config["encoder_config"]
    backbone = backbone_of(encoder)
    if backbone not in MULTIMODAL:
        return config
    if backbone == "qwen3_5":
        if not isinstance(encoder.get("text_config"), Mapping):
            raise UnsupportedModelError("encoder_config of 'qwen3_5' without text_config")
        encoder = {**encoder["text_config"], "model_type": "qwen3_5_text"}
    else:
        encoder = {**encoder, "vision_config": None, "audio_config": None}
    return {**config, "encoder_config": encoder, "multimodal": backbone == "gemma4"}


def text_weight(name: str, backbone: str) -> str | None:
    """The name of a stored weight in the model of a text part, or None for a weight that reads images or audio.

    Args:
        name: as stored.
        backbone: of the `text_part`. Qwen3.5's text model stands alone there, the others keep their names.
    """
    part = name.removeprefix(DECODER)
    if part == name:
        return name
    if part.startswith(MEDIA):
        return None
    return DECODER + part.removeprefix(LANGUAGE) if backbone == "qwen3_5_text" else name


def backbone_of(encoder: Mapping[str, Any]) -> str:
    """The ``model_type`` of an encoder's configuration, with upstream's default."""
    return str(encoder.get("model_type", "deberta-v2"))


def positions_of(encoder: Mapping[str, Any]) -> int | None:
    """Largest number of tokens of a backbone, or None if its positions are relative or unknown."""
    kind = backbone_of(encoder)
    biased = encoder.get("position_biased_input", True)  # DeBERTa: absolute positions only if so
    if kind in RELATIVE_POSITIONS or (kind in ("deberta-v2", "deberta") and not biased):
        return None
    text = encoder.get("text_config")
    positions = (text if isinstance(text, Mapping) else encoder).get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    return positions - 2 if kind in OFFSET_POSITIONS else positions
