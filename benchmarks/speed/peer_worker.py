"""One peer in its own process and environment, driven by `peers.py` over lines of JSON.

    BUILD/peers/env/bin/python benchmarks/speed/peer_worker.py

Reads {"load": {...}} once, then any number of {"score": {...}}, and answers each with one line on stdout. Output of
libraries goes to stderr. All peers are the same cross-encoder: the given backbone with one random label, since speed
does not depend on weights. FlashRank accepts only models of its list, so the int8 graph is placed in its cache folder
under the name of one of them. fastembed reads any folder (`specific_model_path`). Neither downloads anything then.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

MAX_LENGTH = 512
FLASHRANK_NAME = "ms-marco-MiniLM-L-12-v2"  # a name from FlashRank's list; the folder under this name is ours
PACKAGES = (
    "sentence-transformers",
    "transformers",
    "torch",
    "optimum-onnx",
    "onnxruntime",
    "optimum-intel",
    "openvino",
    "FlashRank",
    "fastembed",
)

Score = Callable[[str, Sequence[str], "int | None"], Sequence[float]]
"""Function from a query, passages and a batch size (None: the peer's default) to scores."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    score: Score | None = None
    for line in sys.stdin:
        ask = json.loads(line)
        if "load" in ask:
            given = ask["load"]
            score = PEERS[given["peer"]](Path(given["home"]), Path(given["backbone"]), given["threads"])
            check_that_nothing_is_cut(score)
            answer: dict[str, object] = {"versions": versions()}
        else:
            assert score is not None, "load comes first"
            given = ask["score"]
            start = time.perf_counter()
            scores = score(given["query"], given["passages"], given["batch"])
            answer = {"seconds": time.perf_counter() - start, "scores": [float(value) for value in scores]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def check_that_nothing_is_cut(score: Score) -> None:
    """Check that a peer reads whole passages, since truncation would make it faster.

    Raises:
        ValueError: text after 400 words does not change the score.
    """
    start = "word " * 400
    first, second = score("a question", [start + "apple " * 50, start + "seven " * 50], None)
    if first == second:
        raise ValueError(f"it cuts passages below {MAX_LENGTH} tokens: {first} for two that differ at their ends")


def versions() -> dict[str, str]:
    """Versions of the installed packages among PACKAGES."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def by_torch(home: Path, backbone: Path, threads: int) -> Score:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    return predicting(CrossEncoder(str(base(home, backbone)), device="cpu", max_length=MAX_LENGTH))


def by_onnx(home: Path, backbone: Path, threads: int) -> Score:
    return predicting(onnx_model(graph(home, backbone), threads))


def by_onnx_int8(home: Path, backbone: Path, threads: int) -> Score:
    return predicting(onnx_model(int8_graph(home, backbone), threads))


def by_openvino(home: Path, backbone: Path, threads: int) -> Score:
    from sentence_transformers import CrossEncoder

    folder = base(home, backbone)
    exported = (folder / "openvino/openvino_model.xml").is_file()
    settings = {"ov_config": {"INFERENCE_NUM_THREADS": threads}}
    model = CrossEncoder(
        str(folder),
        backend="openvino",
        device="cpu",
        max_length=MAX_LENGTH,
        model_kwargs=settings | ({} if exported else {"export": True}),
    )
    if not exported:
        model.save_pretrained(str(folder))
    return predicting(model)


def by_flashrank(home: Path, backbone: Path, threads: int) -> Score:
    """FlashRank with int8, as in its own models. It reads all passages as one batch, so a size splits the call."""
    import onnxruntime
    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    source = int8_graph(home, backbone)
    folder = home / "flashrank" / FLASHRANK_NAME
    copied(folder, base(home, backbone), source, model_file_map[FLASHRANK_NAME])
    ranker = Ranker(model_name=FLASHRANK_NAME, cache_dir=str(home / "flashrank"), max_length=MAX_LENGTH)
    if threads != os.cpu_count():  # it has no option for threads, and uses all cores
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        ranker.session = onnxruntime.InferenceSession(str(folder / model_file_map[FLASHRANK_NAME]), options)

    def score(query: str, passages: Sequence[str], batch: int | None) -> Sequence[float]:
        scores = [0.0] * len(passages)
        size = batch or len(passages)
        for start in range(0, len(passages), size):
            told = [{"id": start + i, "text": text} for i, text in enumerate(passages[start : start + size])]
            for hit in ranker.rerank(RerankRequest(query=query, passages=told)):
                scores[hit["id"]] = hit["score"]
        return scores

    return score


def by_fastembed(home: Path, backbone: Path, threads: int) -> Score:
    return fastembed_over(graph(home, backbone), home, backbone, threads)


def by_fastembed_int8(home: Path, backbone: Path, threads: int) -> Score:
    return fastembed_over(int8_graph(home, backbone), home, backbone, threads)


def fastembed_over(source: Path, home: Path, backbone: Path, threads: int) -> Score:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    name = f"local/{source.stem}"
    folder = home / "fastembed" / source.stem
    copied(folder, base(home, backbone), source, "model.onnx")
    # The backbone's own setting is that of a sentence encoder, and fastembed would truncate to it.
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8")) | {"max_length": MAX_LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    TextCrossEncoder.add_custom_model(name, sources=ModelSource(hf=name), model_file="model.onnx")
    model = TextCrossEncoder(name, threads=threads, specific_model_path=str(folder), cuda=False)

    def score(query: str, passages: Sequence[str], batch: int | None) -> Sequence[float]:
        return list(model.rerank(query, passages, **({"batch_size": batch} if batch else {})))

    return score


PEERS: dict[str, Callable[[Path, Path, int], Score]] = {
    "torch": by_torch,
    "onnx": by_onnx,
    "onnx-int8": by_onnx_int8,
    "openvino": by_openvino,
    "flashrank": by_flashrank,
    "fastembed": by_fastembed,
    "fastembed-int8": by_fastembed_int8,
}


def predicting(model: Any) -> Score:
    """Create a function that scores with a sentence-transformers CrossEncoder of any backend."""

    def score(query: str, passages: Sequence[str], batch: int | None) -> Sequence[float]:
        pairs = [(query, passage) for passage in passages]
        size = {"batch_size": batch} if batch else {}
        scores: Sequence[float] = model.predict(pairs, show_progress_bar=False, **size)
        return scores

    return score


def base(home: Path, backbone: Path) -> Path:
    """Return the folder of the cross-encoder for torch. Create it if missing."""
    folder = home / "cross-encoder"
    if not (folder / "model.safetensors").is_file():
        import torch
        from sentence_transformers import CrossEncoder

        torch.manual_seed(0)
        CrossEncoder(str(backbone), num_labels=1, max_length=MAX_LENGTH, device="cpu").save_pretrained(str(folder))
    return folder


def onnx_model(file: Path, threads: int) -> Any:
    """Load a CrossEncoder with sentence-transformers' onnx backend."""
    import onnxruntime
    from sentence_transformers import CrossEncoder

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    settings = {"provider": "CPUExecutionProvider", "file_name": f"onnx/{file.name}", "session_options": options}
    folder = str(file.parents[1])
    return CrossEncoder(folder, backend="onnx", device="cpu", max_length=MAX_LENGTH, model_kwargs=settings)


def graph(home: Path, backbone: Path) -> Path:
    """Return the cross-encoder's graph as exported by sentence-transformers. Create it if missing."""
    folder = base(home, backbone)
    file = folder / "onnx/model.onnx"
    if not file.is_file():
        from sentence_transformers import CrossEncoder

        settings = {"export": True, "provider": "CPUExecutionProvider"}
        model = CrossEncoder(str(folder), backend="onnx", device="cpu", model_kwargs=settings)
        model.save_pretrained(str(folder))
    return file


def int8_graph(home: Path, backbone: Path) -> Path:
    """Return the graph quantised dynamically by sentence-transformers for this processor. Create it if missing."""
    source = graph(home, backbone)
    kind = instructions()
    file = source.with_name(f"model_qint8_{kind}.onnx")
    if not file.is_file():
        from sentence_transformers.backend import export_dynamic_quantized_onnx_model

        model = onnx_model(source, threads=1)
        export_dynamic_quantized_onnx_model(model, kind, str(source.parents[1]))
    return file


def instructions() -> str:
    """Name of the quantisation recipe for this processor."""
    flags = Path("/proc/cpuinfo")
    told = flags.read_text("utf-8") if flags.is_file() else ""
    return "avx512_vnni" if "avx512_vnni" in told else "avx2" if "avx2" in told else "arm64"


def copied(folder: Path, base_folder: Path, graph_file: Path, name: str) -> None:
    """Fill a folder with a graph, its configuration and its tokenizer. Existing files are overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in base_folder.iterdir():
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, folder / file.name)
    shutil.copy(graph_file, folder / name)


if __name__ == "__main__":
    main()
