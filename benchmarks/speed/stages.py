"""Measure the time of reranking on a CPU by stage: tokenizing, embedding, products, attention, head, Python.

    gliclass-rerank bench stages [--model mini] [--passages 100]
    gliclass-rerank bench stages --quick    # 20 passages, once, nothing written

Uses the passages of `throughput.py` on one thread: first from strings to scores without a profiler, then tokenizing
alone, then each batch in a session with onnxruntime's profiler. The rest of the whole is Python's share: planning
batches, filling arrays, assigning scores. The profiler adds overhead, so its stages are scaled to the time of the same
batches without it. Times are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.lib.machine import describe
from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.report import table
from benchmarks.lib.results import RESULTS, write
from benchmarks.speed.throughput import QUERY, make_passages
from gliclass_rerank import ScoreRequest, load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.models.checkpoint import Checkpoint, read_checkpoint
from gliclass_rerank.models.encoding import InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.batch_plan import plan_batches
from gliclass_rerank.scorers.load import BATCH_TOKENS, locate
from gliclass_rerank.scorers.onnx_kernels import exact_kernel
from gliclass_rerank.scorers.padded.arrays import uni_encoder_inputs

Feed = dict[str, NDArray[np.int64]]
# Stages by operator. Products of activations with weights have one of three operators; in fp32 MatMul or Gemm.
STAGES = {
    "MatMulIntegerToFloat": "products with weights",
    "MatMul": "products with weights",
    "Gemm": "products with weights",
    "MultiHeadAttention": "attention",
    "Softmax": "attention",
    "FusedMatMul": "attention",
    "QuantizeLinear": "rounding to int8",
    "Gelu": "GELU",
    "BiasGelu": "GELU",
    "LayerNormalization": "normalisation",
    "SkipLayerNormalization": "normalisation",
}
LAST = "LayerNormalization"  # the first of these ends the embedding; nodes after the last one are the head


def main() -> None:
    options = parse_options()
    folder, name, _ = locate(options.model)
    checkpoint = read_checkpoint(folder, name=name)
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    requests = [ScoreRequest(passage, (QUERY,)) for passage in make_passages(options.passages, tokenizer)]
    scorer = load_scorer(options.model, backend="onnx", threads=1)
    encoder = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))
    feeds = feeds_of(checkpoint, encoder, requests)
    plain, profiled = session(checkpoint, None), Counter[str]()
    rounds: dict[str, list[float]] = {"all": [], "tokenising": [], "session": []}
    runs: Mapping[str, Callable[[], object]] = {
        "all": lambda: scorer.score(requests),
        "tokenising": lambda: encoder.encode(requests),
        "session": lambda: [plain.run(None, feed) for feed in feeds],
    }
    for _ in range(options.rounds + 1):  # the first one is a warm-up
        for part, run in runs.items():
            rounds[part].append(seconds(run))
        profiled += profile(checkpoint, feeds)
    times = {part: median(taken[1:]) for part, taken in rounds.items()}
    stages = stages_of(times, profiled)
    title = f"{len(requests)} passages, one thread: {times['all']:.2f} s"
    rows: dict[str, list[float | None]] = {
        stage: [1000 * taken, 100 * taken / times["all"]] for stage, taken in stages.items()
    }
    print_table(table(title, ["ms", "% of all"], rows, digits=1))
    if not options.quick:
        report = describe(scorer.info) | {"query": QUERY, "passages": len(requests), "threads": 1}
        report |= {"seconds": times["all"], "stages": stages, "rounds": {k: taken[1:] for k, taken in rounds.items()}}
        draw(stages, title, write(report, "stages", options.out).with_suffix(".png"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="a folder with an ONNX graph")
    parser.add_argument("--passages", type=int, help="100 by default")
    parser.add_argument("--rounds", type=int, help="5 by default")
    parser.add_argument("--quick", action="store_true", help="20 passages, one round, nothing written")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.passages = options.passages or (20 if options.quick else 100)
    return options


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def feeds_of(checkpoint: Checkpoint, encoder: InputEncoder, requests: Sequence[ScoreRequest]) -> list[Feed]:
    """Batches within the scorer's token budget."""
    sequences = [item for request in encoder.encode(requests) for item in request.sequences]
    lengths = [len(item.ids) for item in sequences]
    plan = plan_batches(lengths, [1] * len(lengths), max_tokens=BATCH_TOKENS["onnx"])
    segments = checkpoint.uses_segments
    return [uni_encoder_inputs([sequences[i] for i in batch], 0, segments=segments) for batch in plan]


def session(checkpoint: Checkpoint, profile_prefix: str | None) -> onnxruntime.InferenceSession:
    """A session with the scorer's options, with the profiler if a file prefix is given."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile_prefix:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    graph = checkpoint.graph_file(exact_kernel() if checkpoint.options.dtype == "int8" else "")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def profile(checkpoint: Checkpoint, feeds: Sequence[Feed]) -> Counter[str]:
    """Microseconds of each stage over all batches, from onnxruntime's profiler."""
    with tempfile.TemporaryDirectory() as work:
        run = session(checkpoint, f"{work}/profile")
        for feed in feeds:
            run.run(None, feed)
        events = json.loads(Path(run.end_profiling()).read_text("utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    stages: Counter[str] = Counter()
    count = len(nodes) // len(feeds)  # every run executes all nodes in the same order
    for run_start in range(0, len(nodes), count):
        executed = nodes[run_start : run_start + count]
        norms = [i for i, node in enumerate(executed) if node["args"]["op_name"] == LAST]
        for i, node in enumerate(executed):
            stage = STAGES.get(node["args"]["op_name"], "other operators of the encoder")
            stage = "embedding" if i <= norms[0] else "head" if i > norms[-1] else stage
            stages[stage] += node["dur"]
    return stages


def stages_of(times: Mapping[str, float], profiled: Mapping[str, int]) -> dict[str, float]:
    """Seconds of each stage, which add up to the total, the largest first."""
    scale = times["session"] / sum(profiled.values())
    stages = {stage: scale * taken for stage, taken in profiled.items()} | {"tokenising": times["tokenising"]}
    stages["Python"] = max(0.0, times["all"] - times["session"] - times["tokenising"])
    return dict(sorted(stages.items(), key=lambda item: -item[1]))


def draw(stages: Mapping[str, float], title: str, file: Path) -> None:
    figure = new_figure(8, 0.4 * len(stages) + 1.2)
    axes = figure.subplots()
    axes.barh(list(stages)[::-1], [1000 * taken for taken in stages.values()][::-1])
    axes.set_xlabel("milliseconds")
    save(figure, title, file)


if __name__ == "__main__":
    main()
