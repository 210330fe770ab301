"""Training loop: from a configuration to a model folder, with checkpoints to resume from.

A run's folder holds ``start/`` (the start model, if it was made from a plain encoder), ``metrics.jsonl``, ``state.pt``
(weights, optimizer, counters: the whole state for resuming), ``model/`` (the best weights so far, or the adapter)
and ``loss.png``. On one machine with the same number of threads, a resumed run ends in the same weights as an
uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from gliclass_rerank.errors import InputError, NonFiniteError
from gliclass_rerank.models.checkpoint import Checkpoint, read_checkpoint
from gliclass_rerank.models.encoding import EncodedSequence, InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.batch_plan import plan_batches
from gliclass_rerank.scorers.load import torch_device, usable_cores
from gliclass_rerank.scorers.padded.forward import UniEncoderForward
from gliclass_rerank.scorers.torch import ModelRunner, TorchScorer, load_model
from gliclass_rerank.training.config import Source, TrainConfig
from gliclass_rerank.training.data.examples import ExampleBuilder
from gliclass_rerank.training.data.records import LabelRecord, Record, TextRecord, read_records
from gliclass_rerank.training.data.vectors import TextVectors, read_vectors
from gliclass_rerank.training.evaluate import evaluate, refuse_texts
from gliclass_rerank.training.losses import example_loss, vector_loss
from gliclass_rerank.training.model import (
    base_folder,
    pooled_by,
    prompted,
    save_trained,
    set_dropout,
    with_adapters,
    with_labels,
)
from gliclass_rerank.training.plot import draw_losses
from gliclass_rerank.training.sampler import EncodedExample, MixtureSampler, RecordSource
from gliclass_rerank.types import ModelInfo

MAX_ATTENTION_BYTES = 4 << 30  # limit for unfused attention; fused attention needs almost no memory
SUBSTEP_TOKENS = 2048  # of one forward pass: sequences of similar length share a pass, which limits padding
NO_DECAY = ("bias", "norm", "logit_scale")


@dataclass(slots=True)
class TrainState:
    """Progress of a run, stored in ``state.pt``. ``evaluated`` is the last evaluated step."""

    step: int = 0
    evaluated: int = -1
    seconds: float = 0.0
    best: float = -math.inf
    evals_without_improvement: int = 0
    drawn: dict[str, int] = field(default_factory=dict)


def train(config: TrainConfig, *, console: Console | None = None) -> Path:
    """Run or resume a training run. Return the folder of the trained model.

    Raises:
        InputError: a malformed record, named by file and line, raised before training starts.
        NonFiniteError: the loss is NaN or infinite. The last checkpoint stays as it is.
    """
    records = [read_records(source.file) for source in config.train]
    dev = [record for file in config.dev for record in read_records(file)[: config.dev_records]]
    refuse_texts(dev)
    trainer = Trainer(config, records, dev)
    trainer.run(console or Console(stderr=True))
    return config.out / "model"


class Trainer:
    """One training run. All randomness depends on the seed and the step."""

    def __init__(self, config: TrainConfig, records: Sequence[Sequence[Record]], dev: Sequence[Record]) -> None:
        self.config = config
        self.dev = dev
        torch.set_num_threads(config.threads or usable_cores())
        torch.manual_seed(config.seed)
        config.out.mkdir(parents=True, exist_ok=True)
        self.device = torch_device(config.device)
        checkpoint = read_checkpoint(base_folder(config), name=config.out.resolve().name)
        checkpoint = pooled_by(checkpoint, config.pooling) if config.pooling else checkpoint
        self.checkpoint = with_labels(checkpoint, config.labels) if config.labels else checkpoint
        if any(isinstance(record, LabelRecord) and record.prompt for given in records for record in given):
            self.checkpoint = prompted(self.checkpoint)
        self.vectors = vectors_for(self.checkpoint, config, records)
        self.model = load_model(self.checkpoint).to(self.device)
        self.bf16 = computes_in_bf16(config, self.device)
        if (
            self.device.type == "cpu"
            and self.bf16
            and 0 < attention_bytes(config, self.checkpoint) <= MAX_ATTENTION_BYTES
        ):
            # On CPUs with bf16, the backward pass of torch's fused attention takes a third of a step. With eager
            # attention mini's step took 0.7 of the time.
            self.model.set_attn_implementation("eager")
        if config.dropout is not None:
            set_dropout(self.model, config.dropout)
        self.adapted = with_adapters(self.model, self.checkpoint, config.lora, config.model) if config.lora else None
        for name, parameter in self.model.named_parameters():
            if any(part in name for part in config.freeze):
                parameter.requires_grad_(False)
        self.scorer().check()
        self.runner = ModelRunner(self.checkpoint, self.model)
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.mean = {name: p.detach().clone() for name, p in self.trained.items()} if config.ema else {}
        self.optimizer = optimizer_of(self.trained, config)
        self.stream = self._stream(records)
        self.state = TrainState()

    def _stream(self, records: Sequence[Sequence[Record]]) -> MixtureSampler:
        config = self.config
        tokenizer = TextTokenizer(self.checkpoint.tokenizer_file)

        def source(chosen: Source, rows: Sequence[Record], number: int) -> RecordSource:
            length = min(chosen.max_length or config.max_length, self.checkpoint.max_length)
            cut = replace(self.checkpoint, max_length=length)
            name = f"{number} {chosen.file.name}"
            return RecordSource(name, rows, chosen.weight, InputEncoder(cut, tokenizer), config.seed)

        sources = [source(c, r, i) for i, (c, r) in enumerate(zip(config.train, records, strict=True))]
        make = ExampleBuilder(
            direction=self.checkpoint.options.direction,
            list_size=config.list_size,
            max_labels=config.max_labels,
            distillation_weight=config.distillation_weight,
            soft_targets=config.soft_targets,
        )
        return MixtureSampler(sources, make, step_tokens=config.step_tokens, seed=config.seed, vectors=self.vectors)

    def run(self, console: Console) -> None:
        """Train until a budget is used up or early stopping ends the run."""
        self._resume(console)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("training", total=self.config.steps, completed=self.state.step)
            while not self._done():
                started = time.perf_counter()
                losses, tokens = self._step(self.stream.step(self.state.step))
                self.state.step += 1
                self.state.seconds += time.perf_counter() - started
                loss = sum(map(sum, losses.values())) / sum(map(len, losses.values()))
                self._log(
                    step=self.state.step,
                    loss=round(loss, 5),
                    sources={name: round(sum(values) / len(values), 5) for name, values in sorted(losses.items())},
                    rate=self._rate(),
                    tokens=tokens,
                    seconds=round(self.state.seconds, 2),
                )
                progress.update(task, completed=self.state.step, description=f"training, loss {loss:.3f}")
                if self.state.step % self.config.eval_every == 0:
                    self._evaluate(console)
        if self.state.evaluated != self.state.step:
            self._evaluate(console)
        draw_losses(self.config.out / "metrics.jsonl", self.config.out / "loss.png")

    def _done(self) -> bool:
        patience = self.config.patience
        return self._used() >= 1 or (patience is not None and self.state.evals_without_improvement >= patience)

    def _used(self) -> float:
        """Used share of the budget, in steps or minutes, whichever is larger."""
        minutes = self.state.seconds / 60 / self.config.minutes if self.config.minutes else 0.0
        return max(self.state.step / self.config.steps, minutes)

    def _rate(self) -> float:
        used, warmup = self._used(), self.config.warmup
        rise = used / warmup if warmup else 1.0
        first = self.config.learning_rate / (warmup * self.config.steps + 1)  # not zero in the first step
        return max(first, self.config.learning_rate * min(rise, (1 - used) / max(1 - warmup, 1e-9)))

    def _step(self, examples: Sequence[EncodedExample]) -> tuple[dict[str, list[float]], int]:
        """Take one optimizer step. Return the losses by source and the tokens read."""
        self.runner.train()
        torch.manual_seed(self.config.seed * 1_000_003 + self.state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        losses: dict[str, list[float]] = defaultdict(list)
        whole = sum(item.example.weight for item in examples)
        for batch in batches(examples, self.config.batch_tokens):
            values = self._losses(batch)
            parts = [value * (item.example.weight / whole) for item, value in zip(batch, values, strict=True)]
            torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
            for item, value in zip(batch, values, strict=True):
                losses[item.source].append(float(value.detach()))
        if not all(math.isfinite(value) for row in losses.values() for value in row):
            raise NonFiniteError(f"step {self.state.step}: the loss is not finite; try a lower learning_rate")
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.mean:
            # Limit the decay in early steps, so that the mean forgets the initial weights.
            decay = min(self.config.ema, (1 + self.state.step) / (10 + self.state.step))
            with torch.no_grad():
                now = [self.trained[name] for name in self.mean]
                torch._foreach_lerp_(list(self.mean.values()), now, 1 - decay)
        return losses, sum(example.tokens for example in examples)

    def _losses(self, batch: Sequence[EncodedExample]) -> list[Tensor]:
        """Compute the loss of each example. Sequences of similar length share a forward pass across examples."""
        sequences = [item for example in batch for request in example.encoded for item in request.sequences]
        rows = iter(self._forward(sequences))
        losses = []
        for item in batch:
            own = [next(rows) for request in item.encoded for _ in request.sequences]
            losses.append(self._loss(item, torch.cat([logits for logits, _ in own]), [vector for _, vector in own]))
        return losses

    def _loss(self, item: EncodedExample, logits: Tensor, vectors: Sequence[Tensor | None]) -> Tensor:
        config = self.config
        loss = example_loss(
            logits,
            item.example,
            bce_weight=config.bce_weight,
            listwise_weight=config.listwise_weight,
            mse_weight=config.mse_weight,
        )
        if item.vectors is not None:
            found = torch.stack([vector for vector in vectors if vector is not None])
            loss = loss + config.vector_weight * vector_loss(found, torch.from_numpy(item.vectors).to(found.device))
        return loss

    def _forward(self, sequences: Sequence[EncodedSequence]) -> list[tuple[Tensor, Tensor | None]]:
        """Compute the logits of each sequence, shape (labels,), and the vector of its text, if the model has one."""
        padded = self.checkpoint.independent or isinstance(self.runner.module, UniEncoderForward)
        kinds = [0 if padded else len(item.labels) for item in sequences]
        rows: dict[int, tuple[Tensor, Tensor | None]] = {}
        for plan in plan_batches([item.cost for item in sequences], kinds, max_tokens=SUBSTEP_TOKENS):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits, vectors = self.runner.both([sequences[i] for i in plan])
            for place, i in enumerate(plan):
                vector = None if vectors is None else vectors[place]
                rows[i] = logits[place, : len(sequences[i].labels)], vector
        return [rows[i] for i in range(len(sequences))]

    def _evaluate(self, console: Console) -> None:
        """Evaluate on the dev records, save the model if it is the best so far, and save the state."""
        self.state.evaluated = self.state.step
        with _Swapped(self.trained, self.mean):
            better = True
            if self.dev:
                report = evaluate(self.scorer(), self.dev)
                self._log(step=self.state.step, dev=report.as_dict(each_class=False))
                console.print(f"step {self.state.step}: {report.summary()}", highlight=False)
                better = report.score > self.state.best
                self.state.evals_without_improvement = 0 if better else self.state.evals_without_improvement + 1
                self.state.best = max(report.score, self.state.best)
            if better:
                save_trained(self.adapted or self.model, self.checkpoint, self.config.out / "model")
        self._save()

    def scorer(self) -> TorchScorer:
        """Return a scorer over the current weights in memory."""
        self.model.eval()
        info = ModelInfo(
            name=self.checkpoint.name,
            revision="in training",
            architecture=self.checkpoint.architecture,
            backend="torch",
            device=str(self.device),
            dtype="fp32",
            max_length=self.checkpoint.max_length,
            direction=self.checkpoint.options.direction,
            independent_labels=self.checkpoint.independent,
            embeds=self.checkpoint.independent,
            prompts=self.checkpoint.prompts,
        )
        return TorchScorer(self.checkpoint, info, max_batch_tokens=SUBSTEP_TOKENS, model=self.model)

    def _log(self, **values: object) -> None:
        with (self.config.out / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(values) + "\n")

    def _save(self) -> None:
        self.state.drawn = {source.name: source.drawn for source in self.stream.sources}
        state = {
            "config": self.config.model_dump(mode="json"),
            "state": {name: getattr(self.state, name) for name in TrainState.__slots__},
            "weights": {name: p.detach().cpu() for name, p in self.trained.items()},
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.config.out / "state.partial"
        torch.save(state, partial)
        partial.replace(self.config.out / "state.pt")  # atomic: an interrupted run leaves the old file or the new one

    def _resume(self, console: Console) -> None:
        file = self.config.out / "state.pt"
        if not file.is_file():
            (self.config.out / "metrics.jsonl").unlink(missing_ok=True)
            return
        state: Mapping[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
        refuse_another_run(state["config"], self.config, file)
        self.state = TrainState(**state["state"])
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["weights"][name])
        self.mean = {name: tensor.to(self.device) for name, tensor in state["mean"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        for source in self.stream.sources:
            source.drawn = self.state.drawn[source.name]
        keep_metrics_until(self.config.out / "metrics.jsonl", self.state.step)
        console.print(f"resumed at step {self.state.step}", highlight=False)


class _Swapped:
    """Context manager that swaps other values into parameters. Does nothing without values."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
        self._parameters, self._values = parameters, values

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._values.items():
            now = self._parameters[name].detach().clone()
            self._parameters[name].copy_(value)
            value.copy_(now)


def batches(examples: Sequence[EncodedExample], max_tokens: int) -> list[list[EncodedExample]]:
    """Split a step's examples into batches of about ``max_tokens``. An example is never split."""
    cut: list[list[EncodedExample]] = []
    room = 0
    for example in examples:
        if not cut or example.tokens > room:
            cut.append([])
            room = max_tokens
        cut[-1].append(example)
        room -= example.tokens
    return cut


def optimizer_of(trained: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov and Hutter 2019) without weight decay of biases, norms and the logit scale."""
    plain = [p for name, p in trained.items() if any(part in name.lower() for part in NO_DECAY)]
    decayed = [p for name, p in trained.items() if not any(part in name.lower() for part in NO_DECAY)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)


def vectors_for(checkpoint: Checkpoint, config: TrainConfig, records: Sequence[Sequence[Record]]) -> TextVectors | None:
    """Read the target vectors of a run, if it has any.

    Raises:
        InputError: the model gives no vectors, or they have another width, or texts are to be learned without any.
    """
    texts = [record.text for rows in records for record in rows if isinstance(record, TextRecord)]
    if config.vectors is None:
        if texts:
            raise InputError("records with only a \"text\" need the teacher's 'vectors' in the configuration")
        return None
    if not checkpoint.independent:
        raise InputError("'vectors': a model with joint labels has no vectors to learn; set labels = \"independent\"")
    vectors = read_vectors(config.vectors)
    if vectors.width != (width := int(checkpoint.config["encoder_config"]["hidden_size"])):
        raise InputError(f"{config.vectors}: expected vectors of {width} numbers, got {vectors.width}")
    unknown = np.flatnonzero(np.isnan(vectors.of(texts)[:, 0]))
    if len(unknown):
        raise InputError(
            f"{config.vectors}: expected a vector of each record with only a text, {len(unknown)} have none, the first "
            f"is {texts[unknown[0]][:40]!r}"
        )
    return vectors


def attention_bytes(config: TrainConfig, checkpoint: Checkpoint) -> int:
    """Approximate memory of a batch's unfused attention, in bytes, 0 if the configuration lacks layers or heads."""
    encoder = checkpoint.config.get("encoder_config") or {}
    longest = min(max(source.max_length or config.max_length for source in config.train), checkpoint.max_length)
    maps = int(encoder.get("num_hidden_layers") or 0) * int(encoder.get("num_attention_heads") or 0)
    return maps * config.batch_tokens * longest * 10  # scores and weights as fp32, weights as bf16


def computes_in_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether matrix products run in bf16: as configured, or with "auto" if the device supports it in hardware."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def refuse_another_run(stored: Mapping[str, Any], config: TrainConfig, file: Path) -> None:
    """Raise `InputError` if a checkpoint was written under another configuration. Budgets may differ."""
    free = {"steps", "minutes", "patience", "eval_every", "threads", "device", "out"}
    now = config.model_dump(mode="json")
    # A checkpoint of an older version lacks the newer options.
    known = {name: field.default for name, field in TrainConfig.model_fields.items()} | dict(stored)
    if changed := [name for name in now if name not in free and now[name] != known[name]]:
        raise InputError(
            f"{file} is of a run with another {', '.join(changed)}; go on with the same, or choose another 'out'"
        )


def keep_metrics_until(file: Path, step: int) -> None:
    """Drop metrics logged after the checkpoint at ``step``, and incomplete lines of an interrupted run."""
    lines = file.read_text("utf-8", errors="replace").split("\n") if file.is_file() else []
    kept = [line for line in lines if (logged := _step_of(line)) is not None and logged <= step]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in kept), "utf-8")
    partial.replace(file)


def _step_of(line: str) -> int | None:
    """Step of a line of metrics, None for an incomplete line."""
    try:
        step: int = json.loads(line)["step"]
    except ValueError:
        return None
    return step
