"""Check and measure the models on a GPU, in one run of under ten minutes on one large card.

    gliclass-rerank bench gpu            # or: python -m benchmarks.gpu.gpu
    gliclass-rerank bench gpu --quick    # toy models, seconds, the default without a GPU

Five models of published shapes with random weights (`models.py`), in bf16, one after another:

- checks (`checks.py`): our logits against upstream's in fp32 on each passage on its own, packed against padded passes,
  and complete scores when memory runs out.
- passages of 128 tokens per second, in calls of thousands, from strings to scores. Also as a share of the card's own
  rate, by the operations that the encoder needs for real tokens only (`floor.py`), with and without tokenizing, and
  against upstream's pipeline at its default batch size and others, alternated.
- latency of reranking 100 such passages, tokenizing included.
- samples per second by number of labels, one text at a time as in the published table of the GLiClass-v3 models
  (an A6000, mean over texts of 64, 256 and 512 tokens), and batched.

The card's own rate is that of a large square product in bf16, measured in the same run. Goals are reported as met or
missed. Results are written after each model, so that an interrupted run keeps them. Needs the extra [bench].
"""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gliclass import GLiClassModel
from rich.console import Console
from tokenizers import Tokenizer

from benchmarks.gpu.checks import (
    Check,
    against_upstream,
    all_passed,
    out_of_memory,
    packed_against_padded,
    upstream_logits,
)
from benchmarks.gpu.models import SHAPES, TOYS, Shape, build, parameters, transformers_tokenizer
from benchmarks.gpu.report import draw, goals, show
from benchmarks.gpu.speed import FULL, TOY, Sizes, by_labels, latency, matrix_rate, throughput
from benchmarks.lib.machine import describe
from benchmarks.lib.results import RESULTS, write
from benchmarks.speed.labels import Cell, cell
from benchmarks.speed.scale import varied
from benchmarks.speed.throughput import QUERY, passages_of
from gliclass_rerank import ScoreRequest, load_scorer
from gliclass_rerank.scorers.load import locate, torch_device
from gliclass_rerank.scorers.torch import TorchScorer

LIMIT = 530  # seconds for all models together
LEAST = 25  # minimum seconds left to start another model
PASSAGE_TOKENS, TOY_TOKENS = 128, 24
DIFFERENT = 100  # distinct passages; larger sets are rotations of these
CHECKED_LABELS = (QUERY, "cooking rice for many people")

Cells = Mapping[tuple[int, int], Cell]


def main() -> None:
    options = parse_options()
    device = torch_device("auto")
    toy = options.quick or device.type != "cuda"
    log = Console(stderr=True)
    if toy:
        log.print(
            "a toy run: models of a few thousand parameters, to see that all of it works; its figures mean nothing"
        )
    shapes, sizes = (TOYS, TOY) if toy else (SHAPES, FULL)
    shapes = {name: shape for name, shape in shapes.items() if options.only in (None, name)}
    tokenizer = Tokenizer.from_file(str(locate("mini")[0] / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    peak = matrix_rate(device, sizes.square, 0.05 if toy else 3)
    report = describe() | {"toy": toy, "device": card(device), "matrix_rate": peak, "limit": options.limit}
    cells = {
        (count, length): cell(count, length, sizes.texts, tokenizer)
        for count in sizes.labels
        for length in sizes.lengths
    }
    texts = list(varied(passages_of([TOY_TOKENS if toy else PASSAGE_TOKENS] * DIFFERENT, tokenizer), sizes.passages))
    models = run(report, shapes, sizes, texts, cells, device, options, log)
    show(report, Console())
    if left_out := [name for name in shapes if name not in models]:
        raise SystemExit(f"no time was left for all models, left out: {', '.join(left_out)}")
    if failed := [name for name, found in models.items() if "error" in found or not all_passed(found["checks"])]:
        raise SystemExit(f"failed: {', '.join(failed)}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help=f"one model: {', '.join([*SHAPES, *TOYS])}")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds; {LIMIT} by default")
    parser.add_argument("--quick", action="store_true", help="toy models, no files unless --out")
    parser.add_argument("--out", type=Path, help="folder of the results")
    return parser.parse_args()


def card(device: torch.device) -> dict[str, object]:
    """Description of the device, only its type for a CPU."""
    if device.type != "cuda":
        return {"name": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


def run(
    report: dict[str, Any], shapes: Mapping[str, Shape], sizes: Sizes, texts: list[str], cells: Cells,
    device: torch.device, options: argparse.Namespace, log: Console,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Measure the models while time is left. Write the report after each model."""
    models: dict[str, dict[str, Any]] = {}
    report |= {"models": models, "left_out": []}
    end = time.perf_counter() + options.limit
    for i, (name, shape) in enumerate(shapes.items()):
        left = end - time.perf_counter()
        if left < LEAST:
            report["left_out"].append(name)
            continue
        models[name] = {}
        try:
            with tempfile.TemporaryDirectory() as work:
                folder = Path(work) / name.replace(" ", "-")
                measure(models[name], shape, folder, sizes, texts, cells, device, report["matrix_rate"],
                        left / (len(shapes) - i), log)  # fmt: skip
        except Exception as error:  # one failing model must not lose the results of the others
            traceback.print_exc()
            models[name]["error"] = f"{type(error).__name__}: {error}"
        if device.type == "cuda":
            torch.cuda.empty_cache()
        report["goals"] = goals(report)
        if options.out or not report["toy"]:
            file = write(report, "gpu", options.out or RESULTS)
            draw(report, file.with_suffix(".png"))
    return models


def measure(
    found: dict[str, Any], shape: Shape, folder: Path, sizes: Sizes, texts: list[str], cells: Cells,
    device: torch.device, peak: float, seconds: float, log: Console,
) -> None:  # fmt: skip
    """Run all checks and measurements of one model in about ``seconds``, and store the results in ``found``."""
    name, start = folder.name, time.perf_counter()
    log.log(f"{name}: made, saved and loaded")
    upstream = build(shape, folder, device)
    loading = time.perf_counter()
    scorer = load_scorer(folder, device=device.type, dtype="bf16")
    assert isinstance(scorer, TorchScorer)
    found |= {
        "parameters": parameters(upstream),
        "published_millions": shape.parameters,
        "packed": scorer.packed,
        "batch_tokens": scorer.max_batch_tokens,
        "load_seconds": time.perf_counter() - loading,
    }
    log.log(f"{name}: {found['parameters'] / 1e6:.1f}M parameters; checks")
    found["checks"] = checks(upstream, scorer, folder, texts, sizes)
    log.log(f"{name}: labels and latency")
    spare = max(0.0, seconds - (time.perf_counter() - start))
    found["latency"] = latency(scorer, QUERY, texts[: sizes.reranked], min(0.1 * sizes.seconds, 0.05 * spare))
    found["samples_per_second"] = by_labels(scorer, cells, sizes.texts, min(0.7 * sizes.seconds, 0.25 * spare))
    log.log(f"{name}: passages a second beside upstream")
    narrow, found["upstream_dtype"] = narrowed(upstream, folder)
    requests = [ScoreRequest(text, (QUERY,)) for text in texts]
    spare = max(0.0, seconds - (time.perf_counter() - start))
    found["throughput"] = throughput(scorer, narrow, folder, requests, sizes, peak, min(sizes.seconds, 0.3 * spare))
    found["seconds"] = time.perf_counter() - start


def checks(
    upstream: GLiClassModel, scorer: TorchScorer, folder: Path, texts: list[str], sizes: Sizes
) -> dict[str, Check]:
    requests = [ScoreRequest(text, CHECKED_LABELS) for text in texts[: sizes.checked]]
    reference = upstream_logits(upstream, folder, requests)
    many = [ScoreRequest(text, CHECKED_LABELS) for text in texts]
    return {
        "upstream in fp32": against_upstream(scorer.score(requests), reference),
        "packed is padded": packed_against_padded(upstream, folder, scorer, requests),
        "out of memory": out_of_memory(scorer, many),
    }


def narrowed(upstream: GLiClassModel, folder: Path) -> tuple[GLiClassModel, str]:
    """Cast upstream's model to the first type that its own code runs in: bf16, fp16 or fp32."""
    inputs = transformers_tokenizer(folder)("<<LABEL>>a<<SEP>>some text", return_tensors="pt").to(upstream.device)
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        try:
            with torch.inference_mode():
                upstream.to(dtype)(**inputs, max_num_classes=1)
        except RuntimeError:  # mismatched types within its modules
            continue
        return upstream, name
    return upstream.float(), "fp32"


if __name__ == "__main__":
    main()
