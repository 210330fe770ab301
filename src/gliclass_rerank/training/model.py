"""The trained model: base checkpoint, LoRA adapters, saving and merging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gliclass import GLiClassModel
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from gliclass_rerank.errors import InputError, OptionError
from gliclass_rerank.models.adapter import ADAPTER_FILE, base_name, is_adapter, with_adapter
from gliclass_rerank.models.checkpoint import (
    OPTIONS_FILE,
    Checkpoint,
    read_checkpoint,
    refuse_joint,
    refuse_unsupported,
    refuse_used_folder,
)
from gliclass_rerank.scorers.load import locate
from gliclass_rerank.scorers.torch import load_model
from gliclass_rerank.training.config import Lora, TrainConfig
from gliclass_rerank.training.init_from_encoder import new_checkpoint
from gliclass_rerank.types import LabelAttention

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

# Linear layers of each kind of backbone: attention and feed-forward.
BERT_LIKE = ("query", "key", "value", "dense")
T5_LIKE = ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")
BART_LIKE = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
DECODER_LIKE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT_LIKE),
    "modernbert": ("Wqkv", "Wo", "Wi"),
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "dense"),
    "deberta": ("in_proj", "dense"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    "mpnet": ("q", "k", "v", "o", "dense"),
    "albert": (*BERT_LIKE, "ffn", "ffn_output"),
    **dict.fromkeys(("t5", "mt5", "umt5"), T5_LIKE),
    **dict.fromkeys(("bart", "mbart"), BART_LIKE),
    **dict.fromkeys(("qwen3", "qwen3_5_text", "qwen3_5", "embedding_gemma2", "gemma4"), DECODER_LIKE),
}
HEAD_TARGETS = ("linear_1", "linear_2", "mlp.0", "mlp.2", "mlp.4")  # projectors and the MLP scorer


def base_folder(config: TrainConfig) -> Path:
    """Return the folder of the checkpoint that a run starts from. Create it from the backbone if one is configured."""
    if config.model is not None:
        return locate(config.model)[0]
    assert config.backbone is not None
    start, partial = config.out / "start", config.out / "start.partial"
    if not start.exists():
        shutil.rmtree(partial, ignore_errors=True)
        new_checkpoint(config.backbone, partial, max_labels=config.max_labels, seed=config.seed)
        partial.rename(start)  # atomic: an interrupted run leaves the whole folder or none
    return start


def pooled_by(checkpoint: Checkpoint, strategy: str) -> Checkpoint:
    """Return the checkpoint with another text pooling, for which it is not trained yet.

    Raises:
        UnsupportedModelError: a head that reads all tokens of a text.
    """
    config = {**checkpoint.config, "pooling_strategy": strategy}
    refuse_unsupported(config)
    return replace(checkpoint, config=config)


def with_labels(checkpoint: Checkpoint, labels: LabelAttention) -> Checkpoint:
    """Return the checkpoint with another attention of labels, for which it is not trained yet.

    Raises:
        UnsupportedModelError: its labels cannot be independent.
    """
    if labels == "independent":
        refuse_joint(checkpoint.config)
    return replace(checkpoint, options=replace(checkpoint.options, labels=labels))


def prompted(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint as one that is trained with prompts."""
    return replace(checkpoint, options=replace(checkpoint.options, prompts=True))


def with_adapters(model: GLiClassModel, checkpoint: Checkpoint, lora: Lora, name: str | None) -> PeftModel:
    """Freeze ``model`` and add adapters to it, in place. Return the PEFT model that saves them."""
    if lora.r > (hidden := int(model.config.encoder_config.hidden_size)):
        raise OptionError(f"lora.r: expected at most the backbone's hidden size, {hidden}, got {lora.r}")
    targets = lora.target_modules or (*TARGETS[checkpoint.backbone], *HEAD_TARGETS)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=int(lora.alpha or 2 * lora.r),
        lora_dropout=lora.dropout,
        target_modules=list(targets),
    )
    adapted: PeftModel = get_peft_model(model, config)
    # PEFT takes the name from the model, which was built from a configuration without one.
    adapted.peft_config["default"].base_model_name_or_path = name or str(checkpoint.folder.resolve())
    return adapted


def save_trained(model: GLiClassModel | PeftModel, checkpoint: Checkpoint, target: Path) -> None:
    """Write the folder of a checkpoint or an adapter, replacing an earlier one."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if isinstance(model, PeftModel):
        # "auto" would ask the hub whether the base model has more embeddings now. Training never adds any.
        model.save_pretrained(str(partial), save_embedding_layers=False)
        (partial / "README.md").unlink(missing_ok=True)  # PEFT's model card template
    else:
        model.save_pretrained(str(partial))
        _complete(partial, checkpoint)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _complete(folder: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint's other files, without calibration and first-stage weight, which fit the old weights only."""
    (folder / "config.json").write_text(json.dumps(dict(checkpoint.config), indent=2) + "\n", "utf-8")
    for file in (*TOKENIZER_FILES, "label_tokenizer"):
        if (checkpoint.folder / file).is_dir():
            shutil.copytree(checkpoint.folder / file, folder / file)
        elif (checkpoint.folder / file).is_file():
            shutil.copyfile(checkpoint.folder / file, folder / file)
    card = replace(checkpoint.options, name=checkpoint.name, dtype="fp32", first_stage_weight=None, similarity={})
    (folder / OPTIONS_FILE).write_text(card.as_json(), "utf-8")


def merge_adapter(adapter: Path, target: Path) -> None:
    """Merge an adapter into its base model and write the result as a checkpoint folder.

    Raises:
        InputError: ``adapter`` is not an adapter's folder, or ``target`` is in use.
    """
    if not is_adapter(adapter):
        raise InputError(f"{adapter}: expected an adapter's folder with {ADAPTER_FILE}; there is nothing to merge")
    refuse_used_folder(target)
    checkpoint = read_checkpoint(locate(base_name(adapter))[0], name=target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_trained(with_adapter(load_model(checkpoint), adapter), checkpoint, target)


def set_dropout(model: nn.Module, share: float) -> None:
    """Set the probability of every dropout of a model, including those in attention."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)
