"""LoRA adapters: small PEFT folders that change a base checkpoint."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gliclass_rerank.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from gliclass import GLiClassModel

ADAPTER_FILE = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter without a checkpoint."""
    return (folder / ADAPTER_FILE).is_file() and not (folder / "config.json").is_file()


def base_name(adapter: Path) -> str:
    """Base model of an adapter: "mini", a folder or a hub id.

    Raises:
        CheckpointError: the adapter's configuration has no base model.
    """
    file = adapter / ADAPTER_FILE
    try:
        name = json.loads(file.read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: not readable as an adapter's configuration: {error}") from error
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{file}: expected base_model_name_or_path, the model it belongs to, got {name!r}")
    return name


def with_adapter(model: GLiClassModel, adapter: Path, *, merge: bool = True) -> GLiClassModel:
    """Apply an adapter to its base model, in place: merged into the weights, or as separate layers.

    Raises:
        MissingExtraError: PEFT is not installed.
        CheckpointError: the adapter does not fit the model.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("train", f"the adapter {adapter}")
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{adapter}: does not fit its base model: {str(error).splitlines()[0]}") from error
    changed: GLiClassModel = adapted.merge_and_unload() if merge else model
    return changed.eval()
