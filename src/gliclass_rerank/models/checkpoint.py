"""Configuration of a GLiClass checkpoint, read without torch. Unsupported checkpoints are refused with the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from gliclass_rerank.calibration.file import CALIBRATION_FILE
from gliclass_rerank.errors import CheckpointError, InputError, OptionError, UnsupportedModelError
from gliclass_rerank.models.backbones import (
    BACKBONES,
    ENCODERS,
    backbone_of,
    positions_of,
    refuse_other_media,
    text_part,
)
from gliclass_rerank.types import Direction, LabelAttention

OPTIONS_FILE = "gliclass_rerank.json"
FINGERPRINTED = ("config.json", OPTIONS_FILE, CALIBRATION_FILE)  # in addition to the weights
UPSTREAM_MAX_LENGTH = 1024  # the default of upstream's pipeline, for which checkpoints up to v3 are published
# Largest limit that is taken for a checkpoint's own; larger ones are of its backbone, such as ModernBERT's 8,192.
LARGEST_DEFAULT = 2048
# Lengths on the cards of published checkpoints.
PUBLISHED_LENGTHS: Mapping[str, int] = {"gliclass-v4-edge": 2048}

ARCHITECTURES = (
    "uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder", "encoder-decoder-cls", "decoder-kv",
)  # fmt: skip
POOLINGS = ("first", "last", "avg", "max", "sum", "rms", "abs_max", "abs_avg", "pass")
SCORERS = ("simple", "weighted-dot", "mlp", "hopfield", "cross-attn")
# Starts of the names of published checkpoints that were trained with prompts.
PROMPTED_FAMILIES = ("gliclass-instruct-", "gliclass-multilang-", "gliclass-v4-")

SQUEEZED = "gliclass 0.1.21 cannot run it itself (a layer attention for L layers is given L+1 states)"
FULL_SEQUENCE = "gliclass 0.1.21 stores it and scores as without it, so no reference for its scores exists"
# The arguments of upstream's GLiClassModelConfig (0.1.21) ...
UPSTREAM_FLAGS = frozenset(
    """architecture_type calibrator_beta_max calibrator_dropout calibrator_hidden_size calibrator_use_bias
    class_token_index class_token_pooling contrastive_loss_coef dropout embed_class_token encoder_config
    encoder_layer_id encoder_model example_token_index extract_text_features focal_loss_alpha focal_loss_gamma
    focal_loss_reduction freeze_media_encoders hidden_size ignore_index initializer_range label_model_config
    label_model_name layer_wise logit_scale_init_value max_labels_alloc max_num_classes multimodal
    normalize_features pooling_strategy problem_type projector_hidden_act prompt_first recurrent_bptt_steps
    recurrent_confidence_coef recurrent_confidence_margin recurrent_confidence_mode recurrent_halt_threshold
    recurrent_improvement_coef recurrent_improvement_margin recurrent_inference recurrent_inference_max_steps
    recurrent_min_steps recurrent_read_text recurrent_steps scorer_attn_dropout scorer_encoder_num_layers
    scorer_full_sequence scorer_mlp_hidden_size scorer_num_heads scorer_type squeeze_layers text_token_index
    use_calibrator use_embedding_projection use_lstm use_segment_embeddings vocab_size""".split()
)
# ... and further fields written by it and transformers, which change no score.
BYSTANDER_FLAGS = frozenset(
    """_attn_implementation _attn_implementation_autoset _name_or_path architectures attn_implementation bos_token_id
    chunk_size_feed_forward decoder_start_token_id dtype encoder_model_name eos_token_id finetuning_task id2label
    is_composition is_decoder is_encoder_decoder label2id model_type num_labels output_attentions
    output_hidden_states pad_token_id prefix return_dict sep_token_id sep_token_index tie_word_embeddings
    tokenizer_class torch_dtype transformers_version use_cache use_return_dict""".split()
)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options of a model folder beyond upstream's configuration (``gliclass_rerank.json``).

    Attributes:
        name: the model's name, or "".
        direction: which of query and passage it was trained to read as its text.
        first_stage_weight: log-odds that one standard deviation of a first-stage score is worth.
        similarity: what a cosine of vectors adds to a logit, by task, see `ModelInfo.similarity`.
        dtype: precision of the ONNX graph in the folder, "int8" or "fp32".
        max_labels: number of labels per pass in training; more are divided over passes. None: as many as fit.
        labels: "joint": text and labels attend to each other, as in upstream. "independent": a text attends to itself
            only, and each label to the text and itself, so a label's logit does not depend on the other labels.
        prompts: whether it was trained with prompts, task descriptions before the text. None: by its name, see
            `Checkpoint.prompts`.
    """

    name: str = ""
    direction: Direction = "passage-as-text"
    first_stage_weight: float | None = None
    similarity: Mapping[str, float] = field(default_factory=dict)
    dtype: str = "fp32"
    max_labels: int | None = None
    labels: LabelAttention = "joint"
    prompts: bool | None = None

    def as_json(self) -> str:
        """The text of the file, without ``labels``, ``prompts`` and ``similarity`` where they have their defaults."""
        defaults: tuple[tuple[str, object], ...] = (("labels", "joint"), ("prompts", None), ("similarity", {}))
        values = {key: value for key, value in asdict(self).items() if (key, value) not in defaults}
        return json.dumps(values, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A supported checkpoint folder. ``config`` is upstream's, of a multimodal checkpoint that of its text part."""

    folder: Path
    name: str
    revision: str
    config: Mapping[str, Any]
    options: ModelOptions
    max_length: int
    label_max_length: int

    @property
    def architecture(self) -> str:
        return str(self.config.get("architecture_type", "uni-encoder"))

    @property
    def backbone(self) -> str:
        return backbone_of(self.config["encoder_config"])

    @property
    def prompt_first(self) -> bool:
        return bool(self.config.get("prompt_first", False))

    @property
    def averages_labels(self) -> bool:
        return bool(self.config.get("class_token_pooling", "first") == "average")

    @property
    def embeds_class_token(self) -> bool:
        return bool(self.config.get("embed_class_token", True))

    @property
    def extracts_text(self) -> bool:
        return bool(self.config.get("extract_text_features", False))

    @property
    def pooling(self) -> str:
        return str(self.config.get("pooling_strategy", "first"))

    @property
    def uses_segments(self) -> bool:
        return bool(self.config.get("use_segment_embeddings", False))

    @property
    def independent(self) -> bool:
        """Whether labels are read independently of each other, see `ModelOptions.labels`."""
        return self.options.labels == "independent"

    @property
    def prompts(self) -> bool:
        """Whether it was trained with prompts: as its options say, else whether its name is of `PROMPTED_FAMILIES`."""
        told = self.options.prompts
        return self.name.rpartition("/")[2].startswith(PROMPTED_FAMILIES) if told is None else told

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def onnx_file(self) -> Path:
        return self.graph_file("")

    def graph_file(self, kernel: str, part: str = "") -> Path:
        """The graph of a `ModelInfo.kernel`. All graphs share one weights file."""
        return self.folder / graph_name(part, kernel)


def graph_name(part: str = "", kernel: str = "") -> str:
    """File of a graph: the only one or that of texts, or with the part "labels" that of independent labels."""
    return ".".join(filter(None, ("model", part, "u8u8" if kernel == "u8u8" else "", "onnx")))


def read_checkpoint(
    folder: Path, *, name: str | None = None, revision: str | None = None, max_length: int | None = None
) -> Checkpoint:
    """Read a checkpoint folder and check that it is supported.

    Args:
        name: the model's name in results. Default: that of its options, else of the folder.
        revision: a hub commit. Default: a fingerprint of the files.
        max_length: tokens of one pass. Default: 1024, or up to 2048 if the model is published for it, or if its
            positions and its tokenizer end there. Larger values are accepted up to the number of positions.

    Raises:
        CheckpointError: no configuration or tokenizer, or a broken one.
        UnsupportedModelError: an unsupported flag, value, architecture or backbone.
        OptionError: ``max_length`` beyond the model's positions.
    """
    config = _read_json(folder / "config.json", "a GLiClass checkpoint has a config.json")
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder}: no tokenizer.json; save the fast tokenizer of the model beside its weights")
    if not isinstance(config.get("encoder_config"), dict):
        raise CheckpointError(f"{folder}: config.json has no encoder_config, so this is no GLiClass checkpoint")
    refuse_unsupported(config)
    card = _read_options(folder)
    if card.labels == "independent":
        refuse_joint(config)
    config = dict(text_part(config))
    positions = positions_of(config["encoder_config"])
    name = name or card.name or folder.name
    return Checkpoint(
        folder=folder,
        name=name,
        revision=revision or fingerprint(folder),
        config=config,
        options=card,
        max_length=_default_length(folder, name, positions) if max_length is None else _checked(max_length, positions),
        label_max_length=positions_of(config.get("label_model_config") or {}) or UPSTREAM_MAX_LENGTH,
    )


def refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModelError` that names the first unsupported flag or value.

    Unknown flags are refused unless they are switched off (false, null or 0), since an unknown flag may change every
    score. Remote code is refused before upstream reads the configuration and would run it.
    """
    if remote := _find_key(config, "auto_map"):
        raise UnsupportedModelError(f"config.json asks for remote code (auto_map: {remote!r:.60}), which is never run")
    if config.get("model_type", "GLiClass") != "GLiClass":
        raise UnsupportedModelError(f"model_type {config['model_type']!r}: expected 'GLiClass'")
    for flag, value in config.items():
        if flag not in UPSTREAM_FLAGS | BYSTANDER_FLAGS and value:
            raise UnsupportedModelError(
                f"config.json: unknown flag {flag}={value!r:.60}; it may change scores, so this version refuses it"
            )
    architecture = _one_of(config, "architecture_type", ARCHITECTURES, "uni-encoder")
    _one_of(config["encoder_config"], "model_type", BACKBONES[architecture], "deberta-v2")
    if architecture.startswith("bi-encoder"):
        if not isinstance(config.get("label_model_config"), dict):
            raise UnsupportedModelError(f"{architecture} without label_model_config")
        _one_of(config["label_model_config"], "model_type", ENCODERS, "deberta-v2")
    _one_of(config, "class_token_pooling", ("first", "average"), "first")
    if architecture == "decoder-kv":
        if not isinstance(config.get("sep_token_index"), int):
            raise UnsupportedModelError("decoder-kv without sep_token_index")
    else:
        _refuse_unsupported_head(config, architecture)
    if config.get("squeeze_layers"):
        raise UnsupportedModelError(f"config.json: squeeze_layers=true is not supported: {SQUEEZED}")
    if config.get("scorer_full_sequence") and architecture == "decoder-kv":
        raise UnsupportedModelError(f"config.json: scorer_full_sequence=true is not supported: {FULL_SEQUENCE}")
    refuse_other_media(config)


# What a checkpoint with independent labels has: encoders of BERT's modules and absolute positions, and the simple head.
INDEPENDENT_BACKBONES = ("bert", "electra", "roberta", "xlm-roberta", "camembert")
INDEPENDENT_FLAGS: Mapping[str, object] = {
    "architecture_type": "uni-encoder", "class_token_pooling": "average", "embed_class_token": True,
    "encoder_layer_id": -1, "pooling_strategy": "avg", "scorer_type": "simple", "use_calibrator": False,
    "use_lstm": False, "use_segment_embeddings": False, "normalize_features": True,
}  # fmt: skip
UPSTREAM_DEFAULTS: Mapping[str, object] = {
    "architecture_type": "uni-encoder", "class_token_pooling": "first", "embed_class_token": True,
    "encoder_layer_id": -1, "pooling_strategy": "first", "scorer_type": "simple",
}  # fmt: skip


def refuse_joint(config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModelError` that names the first flag with which labels cannot be independent."""
    for flag, needed in INDEPENDENT_FLAGS.items():
        if (value := config.get(flag, UPSTREAM_DEFAULTS.get(flag, False))) != needed:
            raise UnsupportedModelError(f"independent labels need {flag}={needed!r}, got {value!r}")
    backbone = backbone_of(config["encoder_config"])
    if backbone not in INDEPENDENT_BACKBONES:
        raise UnsupportedModelError(
            f"independent labels need an encoder of {', '.join(INDEPENDENT_BACKBONES)}, got {backbone!r}"
        )


def _refuse_unsupported_head(config: Mapping[str, Any], architecture: str) -> None:
    pooling = _one_of(config, "pooling_strategy", POOLINGS, "first")
    scorer = _one_of(config, "scorer_type", SCORERS, "simple")
    if (pooling == "pass") != (scorer == "cross-attn"):
        raise UnsupportedModelError(
            f"pooling_strategy={pooling!r} with scorer_type={scorer!r}: 'pass' and 'cross-attn' need each other"
        )
    if scorer == "cross-attn" and architecture.startswith(("bi-encoder", "encoder-decoder-cls")):
        raise UnsupportedModelError(f"scorer_type='cross-attn' in a {architecture}: it has no text tokens to attend to")
    if scorer == "cross-attn" and config.get("use_calibrator"):
        raise UnsupportedModelError("use_calibrator with scorer_type='cross-attn': it needs one vector a text")
    unused_slots = architecture.startswith("encoder-decoder") or config.get("max_labels_alloc", "dynamic") != "dynamic"
    if scorer == "hopfield" and unused_slots:
        raise UnsupportedModelError("scorer_type='hopfield' with a fixed number of labels: unused ones change scores")
    hidden = config["encoder_config"].get("hidden_size") or config["encoder_config"].get("d_model")
    if config.get("hidden_size") not in (None, hidden) and (config.get("use_lstm") or scorer != "simple"):
        raise UnsupportedModelError(f"scorer_type={scorer!r} or use_lstm with a hidden_size other than the encoder's")
    if config.get("use_lstm") and architecture != "uni-encoder":
        raise UnsupportedModelError(f"use_lstm in a {architecture}")


def _one_of(config: Mapping[str, Any], flag: str, supported: tuple[str, ...], default: str) -> str:
    value = config.get(flag, default)
    if value not in supported:
        raise UnsupportedModelError(f"{flag}={value!r} is not supported; supported are {', '.join(supported)}")
    return str(value)


def _find_key(value: object, key: str) -> object:
    if isinstance(value, Mapping):
        return value.get(key) or next(filter(None, (_find_key(item, key) for item in value.values())), None)
    return None


def _checked(max_length: int, positions: int | None) -> int:
    if max_length < 8 or (positions is not None and max_length > positions):
        limit = f"8 to {positions}" if positions else "at least 8"
        raise OptionError(f"max_length: expected {limit} tokens for this model, got {max_length}")
    return max_length


def _default_length(folder: Path, name: str, positions: int | None) -> int:
    """Tokens of one pass, if nobody asks for another number: what a checkpoint is published for, or says of itself."""
    if positions is not None and positions <= UPSTREAM_MAX_LENGTH:
        return positions
    length = PUBLISHED_LENGTHS.get(name.rpartition("/")[2])
    if length is None:
        least = min(filter(None, (positions, *_tokenizer_limits(folder))), default=UPSTREAM_MAX_LENGTH)
        length = max(least, UPSTREAM_MAX_LENGTH) if least <= LARGEST_DEFAULT else UPSTREAM_MAX_LENGTH
    return min(length, positions or length)


def _tokenizer_limits(folder: Path) -> list[int]:
    """Lengths at which a checkpoint's tokenizer cuts: ``model_max_length``, and the truncation it was saved with."""
    settings = folder / "tokenizer_config.json"
    length = _read_json(settings, "").get("model_max_length") if settings.is_file() else None
    truncation = _read_json(folder / "tokenizer.json", "").get("truncation")
    cut = truncation.get("max_length") if isinstance(truncation, dict) else None
    return [number for number in (length, cut) if isinstance(number, int) and number > 0]


def _read_json(path: Path, missing: str) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: {missing}, and this folder has none")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _read_options(folder: Path) -> ModelOptions:
    if not (folder / OPTIONS_FILE).is_file():
        return ModelOptions()
    values = _read_json(folder / OPTIONS_FILE, "")
    if values.get("direction", "passage-as-text") not in get_args(Direction):
        raise CheckpointError(f"{folder / OPTIONS_FILE}: direction {values['direction']!r} is none of {Direction}")
    labels, known = values.get("labels", "joint"), get_args(LabelAttention)
    if labels not in known:
        raise CheckpointError(f"{folder / OPTIONS_FILE}: labels: expected {' or '.join(known)}, got {labels!r}")
    if not isinstance(values.get("prompts"), bool | None):
        raise CheckpointError(
            f"{folder / OPTIONS_FILE}: prompts: expected true or false, got {values['prompts']!r:.60}"
        )
    similarity = values.get("similarity", {})
    if not isinstance(similarity, dict) or not all(isinstance(one, int | float) for one in similarity.values()):
        raise CheckpointError(
            f"{folder / OPTIONS_FILE}: similarity: expected a number for each task, got {similarity!r:.60}"
        )
    most = values.get("max_labels")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise CheckpointError(f"{folder / OPTIONS_FILE}: max_labels: expected a positive number or null, got {most!r}")
    return ModelOptions(**{key: value for key, value in values.items() if key in ModelOptions.__slots__})


def write_option(folder: Path, name: str, value: object) -> None:
    """Change an option of a model folder (`ModelOptions`)."""
    file = folder / OPTIONS_FILE
    known = _read_json(file, "") if file.is_file() else {}
    file.write_text(json.dumps(known | {name: value}, indent=2) + "\n", "utf-8")


def fingerprint(*folders: Path) -> str:
    """Twelve hex digits that change with the configuration, the weights or the calibration.

    Files beyond 64 MB are sampled: their size and 64 blocks spread over them. Changed weights differ in many places.
    """
    digest = hashlib.sha256()
    files = [
        path
        for folder in folders
        for path in [*sorted(folder.glob("*.safetensors")), *(folder / name for name in FINGERPRINTED)]
    ]
    for path in files:
        if not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            step = max(1 << 20, size // 64)
            for offset in range(0, size, step):
                file.seek(offset)
                digest.update(file.read(1 << 20))
    return digest.hexdigest()[:12]


def refuse_used_folder(target: Path) -> None:
    """Raise `InputError` if the folder of a new checkpoint already contains files."""
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target}: expected a new or empty folder, it has files in it; choose another or empty it")
