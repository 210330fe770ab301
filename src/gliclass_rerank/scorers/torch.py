"""TorchScorer: run every GLiClass architecture on a CPU or a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gliclass import GLiClassModel, GLiClassModelConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from gliclass_rerank.errors import CheckpointError, LabelTooLongError, ModelError, NonFiniteError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.models.backbones import text_weight
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedSequence, InputEncoder
from gliclass_rerank.models.int8_weights import FACTORS, INT8, SCALE
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.models.upstream import refuse_breaks
from gliclass_rerank.scorers.base import LocalScorer, Waiting
from gliclass_rerank.scorers.independent.cache import PassageCache
from gliclass_rerank.scorers.independent.runner import IndependentRunner, ReadText
from gliclass_rerank.scorers.label_cache import LabelCache
from gliclass_rerank.scorers.packed.model import PackedHead, PackedUniEncoder, packs
from gliclass_rerank.scorers.padded.arrays import Padded, label_spans, pad, pad_mask, text_inputs, uni_encoder_inputs
from gliclass_rerank.scorers.padded.forward import (
    BiEncoderForward,
    DecoderForward,
    EncoderDecoderForward,
    UniEncoderForward,
)
from gliclass_rerank.types import FloatArray, ModelInfo

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Messages about a full device from libraries that allocate memory outside torch's allocator, for handles and kernels.
FULL = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


class TorchScorer(LocalScorer):
    """Run a checkpoint with upstream's modules and this package's encoding and batching.

    Args:
        checkpoint, info: as read and resolved by `load_scorer`.
        max_batch_tokens: budget of one forward pass, padding included.
        model: the checkpoint's model if it is already in memory, in training or with an adapter. It is moved in place
            to the device and dtype of ``info``.
        packed: run batches without padding, see `gliclass_rerank.scorers.packed.model`. Default: on CUDA in half
            precision, if the architecture supports it. A batch then costs its own tokens.
        passage_cache: bytes on the device for what is read of texts, for models with independent labels; 0 keeps
            nothing.

    Raises:
        UnsupportedModelError: ``packed=True`` for a model that cannot be packed.
    """

    _out_of_memory = (torch.cuda.OutOfMemoryError,)

    def __init__(
        self,
        checkpoint: Checkpoint,
        info: ModelInfo,
        *,
        max_batch_tokens: int,
        model: GLiClassModel | None = None,
        packed: bool | None = None,
        passage_cache: int = 0,
    ) -> None:
        super().__init__(checkpoint, info, max_batch_tokens=max_batch_tokens)
        model = model or load_model(checkpoint)
        device, dtype = torch.device(info.device), DTYPES[info.dtype]
        self._pads = checkpoint.independent or not packs(model, device, dtype, packed)
        # Copy the head before the weights are rounded: the head of a packed model is fp32.
        head = None if self._pads else PackedHead(model).to(device)
        model = cast_weights(model.to(device), dtype).eval()
        self._runner = ModelRunner(checkpoint, model).eval()
        if self._runner.label_tokenizer:
            self._encoder = InputEncoder(checkpoint, self._tokenizer, self._runner.label_tokenizer)
        if passage_cache and isinstance(self._runner.module, IndependentRunner):
            self.passage_cache = self._runner.module.cache = PassageCache[ReadText](passage_cache)
        self._packed = PackedUniEncoder(model, head, max_length=checkpoint.max_length) if head else None
        self._label_embeddings = LabelCache[Tensor](partial(map, self._runner.embed_label))
        self._entered = PerProcess(partial(_enter, os.getpid(), info))

    @property
    def packed(self) -> bool:
        """Whether batches run without padding."""
        return self._packed is not None

    def warm_up(self) -> None:
        """Compile and capture ahead of requests. No effect without packed batches or on a CPU."""
        if self._packed is not None:
            with torch.inference_mode():
                self._packed.warm_up()

    def _run(self, batch: Sequence[EncodedSequence]) -> FloatArray:
        return self._launch(batch)()

    def _launch(self, batch: Sequence[EncodedSequence]) -> Waiting:
        self._entered.get()
        try:
            return self._enqueue(batch)
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError) or not any(sign in str(error) for sign in FULL):
                raise
            torch.cuda.empty_cache()  # torch's allocator does so itself; these libraries cannot
            raise torch.cuda.OutOfMemoryError(str(error)) from None

    def _enqueue(self, batch: Sequence[EncodedSequence]) -> Waiting:
        with torch.inference_mode():
            logits = (self._packed(self._packed.pack(batch)) if self._packed else self._padded(batch)).float()
            if logits.device.type != "cuda":
                done: FloatArray = logits.cpu().numpy()
                return lambda: done
            host = torch.empty(logits.shape, pin_memory=True)
            host.copy_(logits, non_blocking=True)
            copied = torch.cuda.current_stream(logits.device).record_event()

        def wait() -> FloatArray:
            copied.synchronize()
            return host.numpy().copy()  # frees the pinned memory

        return wait

    def _padded(self, batch: Sequence[EncodedSequence]) -> Tensor:
        if not self._checkpoint.independent:
            joint: Tensor = self._runner(batch, self._embed_labels)
            return joint
        logits, vectors = self._runner.both(batch)
        assert vectors is not None
        return torch.cat([logits.float(), vectors.float()], dim=1)

    def _embed_labels(self, labels: Sequence[str]) -> Tensor:
        """Embed labels, shape (labels, D), each only once while it stays in the cache."""
        known = self._label_embeddings.of(labels)
        return torch.stack([known[label] for label in labels])


def _enter(loaded_by: int, info: ModelInfo) -> None:
    """Make torch safe to use in this process if it is a fork of the one that loaded the model.

    Raises:
        ModelError: the process is a fork, and the model is on a GPU.
    """
    if os.getpid() == loaded_by:
        return
    if info.device != "cpu":
        raise ModelError(
            f"{info.name}: {info.device!r} cannot be used in a forked process; start processes by 'spawn', or load the "
            "model in each"
        )
    torch.set_num_threads(1)  # OpenMP would wait forever for threads of the parent


class ModelRunner(nn.Module):
    """A model with its input arrays, for inference and training.

    Args:
        checkpoint: the checkpoint of the model.
        model: upstream's model, on its device and in its dtype.
    """

    def __init__(self, checkpoint: Checkpoint, model: GLiClassModel) -> None:
        super().__init__()
        self.module = IndependentRunner(model) if checkpoint.independent else forward_of(model)
        self._checkpoint = checkpoint
        self._device = next(model.parameters()).device
        self._pad_id = int(model.config.pad_token_id or 0)
        reads_labels_apart = isinstance(self.module, BiEncoderForward)
        self.label_tokenizer = TextTokenizer(label_tokenizer_file(checkpoint)) if reads_labels_apart else None

    def forward(
        self, batch: Sequence[EncodedSequence], embed_labels: Callable[[Sequence[str]], Tensor] | None = None
    ) -> Tensor:
        """Return logits, shape (sequences, labels). Columns beyond the labels of a sequence are meaningless.

        Args:
            batch: at least one sequence. For a bi-encoder or decoder, all with the same number of labels.
            embed_labels: label texts to embeddings, shape (labels, D), for a bi-encoder. Without it, labels are
                embedded anew.
        """
        if isinstance(self.module, IndependentRunner):
            return self.both(batch)[0]
        tensors = {name: torch.from_numpy(array).to(self._device) for name, array in self._arrays(batch).items()}
        if isinstance(self.module, BiEncoderForward):
            embed = embed_labels or (lambda labels: torch.stack([self.embed_label(label) for label in labels]))
            tensors["labels"] = torch.stack([embed(item.labels) for item in batch])
        logits: Tensor = self.module(**tensors)
        return logits

    def both(self, batch: Sequence[EncodedSequence]) -> tuple[Tensor, Tensor | None]:
        """Return logits as `forward`, and the vectors of the texts, shape (sequences, D), None with joint labels."""
        if not isinstance(self.module, IndependentRunner):
            return self(batch), None
        logits, vectors = self.module(batch)
        return logits, vectors

    def _arrays(self, batch: Sequence[EncodedSequence]) -> dict[str, Padded]:
        if isinstance(self.module, UniEncoderForward):
            segments = self._checkpoint.uses_segments
            return uni_encoder_inputs(batch, self._pad_id, segments=segments)
        arrays = text_inputs(batch, self._pad_id)
        if isinstance(self.module, EncoderDecoderForward):
            side = [item.side for item in batch]
            arrays |= {"side_ids": pad(side, self._pad_id), "side_mask": pad_mask(side)}
        if isinstance(self.module, EncoderDecoderForward | BiEncoderForward):
            arrays["label_spans"] = label_spans(batch)
        return arrays

    def embed_label(self, label: str) -> Tensor:
        """Embed one label with a bi-encoder's label encoder, shape (D,).

        Raises:
            LabelTooLongError: the label has more tokens than the encoder's limit.
        """
        assert isinstance(self.module, BiEncoderForward)
        assert self.label_tokenizer is not None
        tokenizer, limit = self.label_tokenizer, self._checkpoint.label_max_length
        ids = [*tokenizer.prefix, *tokenizer.ids(label, first=True).tolist(), *tokenizer.suffix]
        if len(ids) > limit:
            raise LabelTooLongError(
                f"label {label[:40]!r}: {len(ids)} tokens, and the label encoder reads at most {limit}; "
                "labels are never cut, shorten it"
            )
        tensor = torch.tensor([ids], device=self._device)
        embedding: Tensor = self.module.embed_labels(tensor, torch.ones_like(tensor))[0]
        return embedding


def forward_of(model: GLiClassModel) -> nn.Module:
    """The forward module for a model's architecture."""
    architecture = model.config.architecture_type
    if architecture == "uni-encoder":
        return UniEncoderForward(model)
    if architecture.startswith("bi-encoder"):
        return BiEncoderForward(model)
    return DecoderForward(model) if architecture == "decoder-kv" else EncoderDecoderForward(model)


def cast_weights(model: GLiClassModel, dtype: torch.dtype) -> GLiClassModel:
    """Round a model's parameters to a dtype, in place. Buffers keep their dtype.

    `Module.to` would also round the frequencies of rotary embeddings. At a position of some hundreds the error of a
    bf16 frequency makes the angle arbitrary.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    return model


def load_model(checkpoint: Checkpoint) -> GLiClassModel:
    """Build upstream's model in fp32 from safetensors, with float or int8 weights.

    Raises:
        CheckpointError: no safetensors, or weights missing or of another shape.
        NonFiniteError: NaN or infinite weights.
        UnsupportedModelError: the installed gliclass, transformers and torch cannot build it.
    """
    weights = ((text_weight(name, checkpoint.backbone), item) for name, item in read_weights(checkpoint.folder).items())
    state = _with_tied_embeddings({name: tensor for name, tensor in weights if name})
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise NonFiniteError(f"{checkpoint.folder}: weight {name} is NaN or infinite; the checkpoint is broken")
    with refuse_breaks(checkpoint, "torch"), _quiet_transformers():  # its loading report is checked below
        if checkpoint.backbone not in CONFIG_MAPPING:  # upstream would download and run its code from the hub
            raise LookupError(f"transformers has no {checkpoint.backbone!r}")
        config = GLiClassModelConfig.from_dict(dict(checkpoint.config))
        # Upstream looks for an adapter beside its encoder, by a name relative to the working directory.
        config.encoder_model_name = str(checkpoint.folder / "no-encoder-beside")
        model, report = GLiClassModel.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        _refuse_other_weights(checkpoint, report)
    loaded: GLiClassModel = model
    return loaded


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Suppress progress bars and warnings of transformers."""
    progress, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _refuse_other_weights(checkpoint: Checkpoint, report: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` if transformers' loading report shows that weights and configuration differ."""
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise CheckpointError(
            f"{checkpoint.folder}: weight {name} has shape {tuple(found)}, expected {tuple(expected)}; "
            "these weights belong to another configuration"
        )
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{checkpoint.folder}: {len(missing)} weights are missing, the first is {missing[0]}; "
            "these weights belong to another configuration"
        )


def read_stored(folder: Path) -> dict[str, Tensor]:
    """Read a folder's safetensors as they are stored.

    Raises:
        CheckpointError: there are none, or they cannot be read.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        found = ", ".join(path.name for path in sorted(folder.glob("*.bin"))) or "no weights"
        raise CheckpointError(f"{folder}: expected model.safetensors, found {found}; pickled weights are never read")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: not readable as safetensors: {error}") from error
    return state


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read a folder's safetensors as fp32 tensors, with int8 matrices dequantized. Errors as in `read_stored`."""
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in _multiplied_out(read_stored(folder)).items()
    }


def _multiplied_out(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `gliclass_rerank.models.int8_weights`: names ending in INT8 and their scales become one fp32 weight."""
    plain = {name: tensor for name, tensor in state.items() if not name.endswith((INT8, SCALE, FACTORS))}
    for name in [name for name in state if name.endswith(INT8)]:
        stem = name.removesuffix(INT8)
        weight = state[name].float() * state[stem + SCALE].float()
        if stem + FACTORS in state:  # a matrix, stored as (inputs, outputs) and smoothed by its inputs
            weight = (weight * state[stem + FACTORS].float()[:, None]).T
        plain[stem] = weight.contiguous()
    return plain


def _with_tied_embeddings(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Repeat a T5's or BART's embeddings under all their names. transformers 5 initialises unsaved ones randomly."""
    for name in list(state):
        stem, found, _ = name.partition("shared.weight")
        if found:
            halves = [half for half in ("encoder", "decoder") if any(key.startswith(f"{stem}{half}.") for key in state)]
            for half in halves:
                state.setdefault(f"{stem}{half}.embed_tokens.weight", state[name])
    return state


def label_tokenizer_file(checkpoint: Checkpoint) -> Path:
    """Find the tokenizer of a bi-encoder's label encoder, which upstream does not save with the model.

    It is searched in the folder (``label_tokenizer/tokenizer.json``), then in the folder named as the label encoder's
    origin in the configuration. A label encoder with the same origin as the text encoder shares its tokenizer.

    Raises:
        CheckpointError: it is in none of these places.
    """
    config = checkpoint.config
    name = config.get("label_model_name")
    places = [checkpoint.folder / "label_tokenizer" / "tokenizer.json"]
    if name:
        places.append(Path(name) / "tokenizer.json")
        if name == config.get("encoder_model_name"):
            places.append(checkpoint.tokenizer_file)
    for place in places:
        if place.is_file():
            return place
    raise CheckpointError(f"{checkpoint.folder}: no tokenizer for the label encoder {name!r}; save it as {places[0]}")
