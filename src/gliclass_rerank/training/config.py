"""Configuration of `gliclass-rerank train`: one TOML file, validated before anything is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gliclass_rerank.errors import InputError
from gliclass_rerank.types import LabelAttention

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A file of records, and its share of the training tokens.

    Attributes:
        file: JSON lines (see `gliclass_rerank.training.data.records`), relative to the configuration.
        weight: the source's share of tokens is this divided by the sum of all weights.
        max_length: tokens of a sequence. Longer texts are cut. The run's ``max_length`` by default.
    """

    file: Path
    weight: float = Field(default=1.0, gt=0)
    max_length: int | None = Field(default=None, ge=16)


class Lora(_Strict):
    """Low-rank adapters (Hu et al. 2021) beside the frozen weights, through PEFT.

    Attributes:
        r: rank, at most the backbone's hidden size.
        alpha: the update is multiplied by ``alpha / r``. Twice the rank by default, as in the GLiClass-v3 models.
        dropout: of the adapters' input.
        target_modules: names of the linear layers, by default those of the backbone (attention and feed-forward)
            and of the head (projectors and scorer).
    """

    r: Positive = 32
    alpha: float | None = Field(default=None, gt=0)
    dropout: Share = 0.1
    target_modules: tuple[str, ...] | None = None


class TrainConfig(_Strict):
    """Configuration of one training run.

    Attributes:
        model: "mini", a GLiClass checkpoint folder or a hub id to start from. Exclusive with ``backbone``.
        backbone: a plain encoder's folder, from which a new GLiClass model is made (see `init_from_encoder`).
        pooling: how the trained model pools a text's tokens into one vector, by default that of the start model.
        labels: whether labels attend to each other ("joint") or not ("independent"), by default as in the start model.
            A joint model becomes an independent one by training.
        vectors: file of a teacher's vectors (`gliclass_rerank.training.data.vectors`). The model learns to give the
            texts in it these vectors. Only with independent labels. Relative to the configuration.
        out: folder of the run: metrics, checkpoints, and the model in ``model/``. Relative to the configuration.
        train: sources of training records.
        dev: files for evaluation during training and early stopping. Without them the last weights are kept.
        dev_records: how many records of each dev file are used, from its start, all by default.
        steps: maximum number of optimizer steps.
        minutes: maximum training time. The learning rate follows the budget that is used up faster.
        step_tokens: approximate tokens of one optimizer step.
        batch_tokens: tokens in memory at once. A step accumulates gradients over several batches.
        max_length: maximum tokens of one sequence.
        learning_rate, warmup, weight_decay, max_grad_norm: of AdamW. The rate rises over the share ``warmup`` of
            the run and then falls linearly to zero.
        freeze: weights whose name contains one of these strings are frozen.
        ema: decay per step of the exponential moving average of the weights, which is then evaluated and saved. 0
            turns it off.
        list_size, max_labels, distillation_weight, soft_targets: see `ExampleBuilder`.
        bce_weight, listwise_weight, mse_weight: weights of the losses of logits, see `example_loss`.
        vector_weight: weight of the loss of vectors, see `vector_loss`.
        dropout: dropout probability. None keeps the checkpoint's own.
        precision: "auto" computes in bf16 if the device supports it in hardware, else in fp32.
        device: see `load_scorer`.
        eval_every: steps between evaluations and checkpoints.
        patience: evaluations without a better result before the run stops. None never stops early.
        lora: train adapters instead of all weights.
        seed: of sampling, initialization and dropout.
        threads: CPU threads. All cores by default.
    """

    model: str | None = None
    backbone: Path | None = None
    pooling: Literal["avg", "first"] | None = None
    labels: LabelAttention | None = None
    vectors: Path | None = None
    out: Path
    train: tuple[Source, ...] = Field(min_length=1)
    dev: tuple[Path, ...] = ()
    dev_records: Positive | None = None
    steps: Positive
    minutes: float | None = Field(default=None, gt=0)
    step_tokens: Positive = 4096
    batch_tokens: Positive = 8192
    max_length: int = Field(default=256, ge=16)
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup: Share = 0.05
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    freeze: tuple[str, ...] = ()
    ema: float = Field(default=0.0, ge=0, lt=1)
    list_size: int = Field(default=6, ge=2)
    max_labels: Positive = 32
    distillation_weight: Share = 0.5
    soft_targets: Share = 0.0
    bce_weight: float = Field(default=0.5, ge=0)
    listwise_weight: float = Field(default=1.0, ge=0)
    mse_weight: float = Field(default=0.0, ge=0)
    vector_weight: float = Field(default=1.0, ge=0)
    dropout: Share | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    eval_every: Positive = 200
    patience: Positive | None = None
    lora: Lora | None = None
    seed: int = 0
    threads: Positive | None = None

    @model_validator(mode="after")
    def _one_start(self) -> TrainConfig:
        if (self.model is None) == (self.backbone is None):
            raise ValueError("expected one of 'model' and 'backbone'")
        if self.lora and self.freeze:
            raise ValueError("'lora' freezes all weights but its own; leave 'freeze' out")
        if self.lora and self.pooling:
            raise ValueError("'lora' trains an adapter, which has no configuration to keep a 'pooling' in")
        if self.lora and self.labels:
            raise ValueError("'lora' trains an adapter, which has no configuration to keep 'labels' in")
        if self.bce_weight == self.listwise_weight == self.mse_weight == 0:
            raise ValueError("'bce_weight', 'listwise_weight' and 'mse_weight' are all 0, nothing would be learned")
        return self


def read_config(file: Path) -> TrainConfig:
    """Read a configuration. Its paths are relative to the file.

    Raises:
        InputError: not readable, not TOML, or unexpected keys or values, all of which the message names.
    """
    try:
        values = tomllib.loads(file.read_text("utf-8"))
        config = TrainConfig.model_validate(values)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file}: not readable as TOML: {error}") from error
    except ValidationError as error:
        raise InputError(f"{file}: {explained(error)}") from error
    return resolved(config, file.parent)


def resolved(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return the configuration with its paths taken relative to ``folder``."""
    return config.model_copy(
        update={
            "out": folder / config.out,
            "backbone": config.backbone and folder / config.backbone,
            "vectors": config.vectors and folder / config.vectors,
            "model": str(folder / config.model) if config.model and (folder / config.model).is_dir() else config.model,
            "train": tuple(s.model_copy(update={"file": folder / s.file}) for s in config.train),
            "dev": tuple(folder / file for file in config.dev),
        }
    )


def explained(error: ValidationError) -> str:
    """Format pydantic's findings as one line."""
    found = [f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in error.errors()]
    return "; ".join(found)
