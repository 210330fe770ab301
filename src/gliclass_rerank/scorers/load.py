"""load_scorer: load or connect to a model by its name, and resolve backend, device and dtype."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from gliclass_rerank.calibration.file import read_calibration
from gliclass_rerank.copies import Origin
from gliclass_rerank.errors import MissingExtraError, ModelNotFoundError, OptionError, UnsupportedModelError
from gliclass_rerank.models.adapter import base_name, is_adapter, with_adapter
from gliclass_rerank.models.checkpoint import Checkpoint, fingerprint, read_checkpoint
from gliclass_rerank.models.upstream import refuse_breaks
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.remote.connect import CHOSEN, TIMEOUT, URL, connect
from gliclass_rerank.types import ModelInfo, Scorer
from gliclass_rerank.validation import check_bytes, check_choice, refuse_options

if TYPE_CHECKING:
    import torch

    from gliclass_rerank.scorers.remote.named_model import NamedModelScorer
    from gliclass_rerank.scorers.remote.service import HttpScorer

LoadedScorer: TypeAlias = "LocalScorer | HttpScorer | NamedModelScorer"
"""Result of `load_scorer`: a `Scorer` whose results are `Logits`."""

Backend = Literal["auto", "onnx", "torch"]
Dtype = Literal["auto", "int8", "fp32", "bf16", "fp16"]

BUNDLED = ("mini",)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ("*.json", "*.safetensors", "*.onnx")
TORCH_PARTS = ("torch", "transformers", "gliclass")
# Measured: small batches stay in a CPU's caches. A GPU needs large ones; on CUDA the size is fitted to free memory.
BATCH_TOKENS = {"onnx": 512, "cpu": 1024, "gpu": 32768}


def load_scorer(
    source: str | Path = "mini",
    /,
    *,
    backend: Backend = "auto",
    device: str = "auto",
    dtype: Dtype = "auto",
    max_batch_tokens: int | None = None,
    max_length: int | None = None,
    threads: int | None = None,
    passage_cache: int | str = 0,
    revision: str | None = None,
    model: str | None = None,
    concurrency: int | None = None,
    api_key: str | None = None,
    timeout: float = TIMEOUT,
) -> LoadedScorer:
    """Load a model and check that it scores, or connect to a service with a model.

    Args:
        source: "mini" (bundled, offline, the default), a checkpoint folder, a hub id
            ("knowledgator/gliclass-edge-v3.0"), or a URL: of a running service ("http://host:8000"), of an
            OpenAI-compatible server ("openai+http://host:8001/v1", see `connect_openai`), or of a decision server
            ("systemone+http://host/v1" in TypeSafe's format, "decisions+http://host/v1" in OpenAI's, see
            `DecisionScorer`). A folder may also hold a LoRA adapter, which is merged into its base. Only a hub id
            causes a download. ``HF_HUB_OFFLINE=1`` limits it to the cache.
        backend: "onnx" (CPU, no torch needed) or "torch". "auto" is ONNX if the folder has a graph of the requested
            dtype and no GPU is requested.
        device: "cpu", "cuda", "cuda:1", "mps". "auto" is a GPU for the torch backend if there is one.
        dtype: "auto" is the graph's own for ONNX; for torch fp32 on a CPU, bf16 (else fp16) on a GPU.
        max_batch_tokens: budget of one forward pass, padding included. Default: a measured one on a CPU, and on CUDA
            one fitted to its free memory, see `gliclass_rerank.scorers.packed.memory`.
        max_length: tokens of one pass, labels included. Default: the model's number of positions, 1024 at most, or
            up to 2048 if the model is published for it or its positions and its tokenizer end there.
        threads: CPU threads: batches that the ONNX backend runs at a time, or torch's threads. Default: the usable
            cores.
        passage_cache: memory for what the model has read of texts, in bytes or as "1GB". The least recently used leave
            first. A passage that is kept costs only the tokens of its labels (a query, say). Only for models with
            independent labels. On a GPU it is the GPU's memory. 0 keeps nothing.
        revision: branch, tag or commit of a hub id.
        model, concurrency: only for an OpenAI-compatible or decision server, see `connect_openai`.
        api_key: key of a service. Default: ``GLICLASS_RERANK_API_KEY`` of the environment, ``OPENAI_API_KEY`` for an
            OpenAI-compatible server and "decisions+", or ``TYPESAFE_API_KEY`` for "systemone+".
        timeout: seconds in which a service must answer, see `HttpScorer`.

    The options of local models are refused with a URL, and those of servers without one.

    Raises:
        ModelNotFoundError: no such model, or not in the cache while offline.
        CheckpointError, UnsupportedModelError, NonFiniteError: a folder that is no usable checkpoint, or one that the
            installed versions of gliclass, transformers, torch or onnxruntime cannot run.
        DeviceMemoryError: a single sequence does not fit into the device's memory.
        MissingExtraError: the torch backend, or httpx for a service, is needed and not installed.
        ServiceError: the service cannot be reached, refuses the key, or does not have the API of the URL.
        OptionError: an option's value is impossible, alone or for this model.
    """
    if isinstance(source, str) and URL.match(source):
        for_models = {"backend": backend, "device": device, "dtype": dtype, "max_batch_tokens": max_batch_tokens}
        for_models |= {"max_length": max_length, "threads": threads, "revision": revision}
        for_models |= {"passage_cache": passage_cache or None}
        refuse_options(for_models, CHOSEN)
        return connect(source, model=model, concurrency=concurrency, api_key=api_key, timeout=timeout)
    seconds = None if timeout == TIMEOUT else timeout
    for_servers = {"model": model, "concurrency": concurrency, "api_key": api_key, "timeout": seconds}
    refuse_options(for_servers, f"only for a service, and {str(source)!r} is no URL; leave it out")
    check_choice(backend, get_args(Backend), "backend")
    check_choice(dtype, get_args(Dtype), "dtype")
    for value, what in ((max_batch_tokens, "max_batch_tokens"), (threads, "threads")):
        if value is not None and value < 1:
            raise OptionError(f"{what}: expected a positive number, got {value}")
    kept_bytes = check_bytes(passage_cache, "passage_cache")
    folder, name, commit = locate(str(source), revision=revision)
    options = {"backend": backend, "device": device, "dtype": dtype, "max_batch_tokens": max_batch_tokens}
    options |= {"max_length": max_length, "threads": threads, "passage_cache": kept_bytes}
    options |= {"revision": commit or revision}
    origin = Origin(load_scorer, name or str(folder.absolute()), options)
    adapter = folder if is_adapter(folder) else None
    if adapter:
        if backend == "onnx":
            raise UnsupportedModelError(
                f"{adapter}: an adapter runs on the torch backend; merge and export it for ONNX"
            )
        base = locate(base_name(adapter))[0]
        folder, name, commit = base, name or adapter.name, fingerprint(base, adapter)
        backend = "torch"
    checkpoint = read_checkpoint(folder, name=name, revision=commit, max_length=max_length)
    if kept_bytes and not checkpoint.independent:
        raise OptionError(
            f"passage_cache: {checkpoint.name} reads a passage anew for each query; leave it out, or take a model with "
            "independent labels"
        )
    if _chosen_backend(checkpoint, backend, device, dtype) == "onnx":
        scorer = _load_onnx(checkpoint, max_batch_tokens, threads or usable_cores(), kept_bytes)
    else:
        with refuse_breaks(checkpoint, "torch"):  # importing the packages can fail too
            scorer = _load_torch(checkpoint, device, dtype, max_batch_tokens, threads, adapter, kept_bytes)
    scorer.check()
    scorer.origin = origin
    return scorer


def as_scorer(scorer: Scorer | str | Path) -> Scorer:
    """Return a scorer unchanged, or load one by its name. See `load_scorer` for names and errors."""
    return load_scorer(scorer) if isinstance(scorer, str | Path) else scorer


def locate(model: str, *, revision: str | None = None) -> tuple[Path, str | None, str | None]:
    """Find a model: its folder, and its name and revision if they are not read from the folder.

    Raises:
        ModelNotFoundError: no model of that name.
    """
    if model in BUNDLED:
        return Path(str(resources.files("gliclass_rerank") / "bundled" / model)), model, None
    if model.strip() and Path(model).is_dir():
        return Path(model), None, None
    if HUB_ID.fullmatch(model) and not Path(model).exists():
        folder = _download(model, revision)
        return folder, model, folder.name
    raise ModelNotFoundError(
        f"model {model!r}: expected {', '.join(map(repr, BUNDLED))}, an existing folder, a hub id (owner/name), "
        "or where a service is meant its URL"
    )


def _download(model: str, revision: str | None) -> Path:
    # Imported here, because it is needed only for hub ids and takes half a second.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(HUB_FILES)))
    except LocalEntryNotFoundError as error:
        raise ModelNotFoundError(
            f"model {model!r} is not in the local cache and the hub cannot be reached (offline, or HF_HUB_OFFLINE "
            'is set); download it once where there is a network, or use the bundled "mini"'
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelNotFoundError(f"model {model!r}: the hub does not give it: {error}") from error


def _chosen_backend(checkpoint: Checkpoint, backend: Backend, device: str, dtype: Dtype) -> str:
    on_cpu = device in ("auto", "cpu")
    has_graph = checkpoint.onnx_file.is_file()
    fits = dtype in ("auto", checkpoint.options.dtype)
    if backend == "auto":
        return "onnx" if has_graph and on_cpu and fits else "torch"
    if backend == "onnx":
        if not has_graph:
            raise UnsupportedModelError(
                f"{checkpoint.name}: backend 'onnx' needs model.onnx in {checkpoint.folder}; "
                "make it with: gliclass-rerank export"
            )
        if not on_cpu:
            raise OptionError(f"device: the onnx backend runs on 'cpu', got {device!r}")
        if not fits:
            raise OptionError(
                f"dtype: this graph is {checkpoint.options.dtype}, got {dtype!r}; export one, or use torch"
            )
    return backend


def usable_cores() -> int:
    """Cores available to this process, which can be fewer than those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_onnx(checkpoint: Checkpoint, max_batch_tokens: int | None, threads: int, passage_cache: int) -> LocalScorer:
    from gliclass_rerank.scorers.independent.onnx import IndependentOnnxScorer
    from gliclass_rerank.scorers.onnx import OnnxScorer
    from gliclass_rerank.scorers.onnx_kernels import exact_kernel  # both import onnxruntime

    info = _info(checkpoint, "onnx", "cpu", checkpoint.options.dtype)
    if info.dtype == "int8":
        info = replace(info, kernel=exact_kernel())
    tokens = max_batch_tokens or BATCH_TOKENS["onnx"]
    if not checkpoint.independent:
        return OnnxScorer(checkpoint, info, max_batch_tokens=tokens, threads=threads)
    return IndependentOnnxScorer(
        checkpoint, info, max_batch_tokens=tokens, threads=threads, passage_cache=passage_cache
    )


def _load_torch(
    checkpoint: Checkpoint,
    device: str,
    dtype: Dtype,
    max_batch_tokens: int | None,
    threads: int | None,
    adapter: Path | None,
    passage_cache: int,
) -> LocalScorer:
    if any(importlib.util.find_spec(part) is None for part in TORCH_PARTS):
        raise MissingExtraError("torch", f"{checkpoint.name} on the torch backend")
    import torch

    from gliclass_rerank.scorers.torch import TorchScorer, load_model

    if dtype == "int8":
        raise OptionError("dtype: the torch backend computes in 'fp32', 'bf16' or 'fp16', got 'int8'")
    place = torch_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if dtype == "auto":
        wide = place.type == "cpu"
        dtype = "fp32" if wide else "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp16"
    budget = max_batch_tokens or BATCH_TOKENS["cpu" if place.type == "cpu" else "gpu"]
    model = with_adapter(load_model(checkpoint), adapter) if adapter else None
    info = _info(checkpoint, "torch", str(place), dtype)
    if adapter:  # calibration and weight of the base model do not apply to the adapter's scores
        info = replace(info, first_stage_weight=None, similarity={}, calibration=read_calibration(adapter))
    scorer = TorchScorer(checkpoint, info, max_batch_tokens=budget, model=model, passage_cache=passage_cache)
    scorer.warm_up()
    if place.type == "cuda" and max_batch_tokens is None:
        from gliclass_rerank.scorers.packed.memory import CudaMemory, fit_to_memory

        fit_to_memory(scorer, CudaMemory(place))
    return scorer


def torch_device(device: str) -> torch.device:
    """Resolve "auto" (a GPU if there is one) and check that the device can be used.

    Raises:
        OptionError: no such device, or one that does not work.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return place


def _info(checkpoint: Checkpoint, backend: str, device: str, dtype: str) -> ModelInfo:
    return ModelInfo(
        name=checkpoint.name,
        revision=checkpoint.revision,
        architecture=checkpoint.architecture,
        backend=backend,
        device=device,
        dtype=dtype,
        max_length=checkpoint.max_length,
        direction=checkpoint.options.direction,
        first_stage_weight=checkpoint.options.first_stage_weight,
        similarity=checkpoint.options.similarity if checkpoint.independent else {},
        calibration=read_calibration(checkpoint.folder),
        independent_labels=checkpoint.independent,
        embeds=checkpoint.independent,
        prompts=checkpoint.prompts,
    )
