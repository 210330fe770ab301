"""Measure the error of int8: scores of a model's int8 graph against fp32 torch, on real questions and passages.

    gliclass-rerank bench int8 [--model mini] [--reference CHECKPOINT]

The graph is compared with torch on the same (rounded) weights, which gives the effect of rounding activations. With
the checkpoint before export as --reference, it is also compared with that, which adds the effect of rounding weights.
Each question of the demo is paired with the first passages that BM25 finds for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.machine import describe
from benchmarks.lib.report import table
from benchmarks.lib.results import RESULTS, write
from gliclass_rerank import ScoreRequest, load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.demo.evaluate import prepare, shown_to_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--reference", help="the checkpoint that the model was exported from")
    parser.add_argument("--passages", type=int, default=4, help="passages per question; 4 by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    task = prepare(options.passages)
    requests = [
        ScoreRequest(shown_to_model(task.passages[i]), (question.query,))
        for question, hits in zip(task.judged.questions, task.found, strict=True)
        for i in hits.indices
    ]
    int8 = load_scorer(options.model, backend="onnx")
    references = {"torch, same weights": load_scorer(options.model, backend="torch")}
    if options.reference:
        references["torch, before export"] = load_scorer(options.reference, backend="torch")
    logits = np.concatenate(int8.score(requests))
    rows = {name: differences(logits, np.concatenate(other.score(requests))) for name, other in references.items()}
    columns = list(next(iter(rows.values())))
    shown: dict[str, list[float | None]] = {name: list(row.values()) for name, row in rows.items()}
    print_table(table(f"int8 against fp32, {len(requests)} pairs", columns, shown, digits=4))
    write(describe(int8.info) | {"pairs": len(requests), "differences": rows}, "int8", options.out)


def differences(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> dict[str, float]:
    """Differences between two sets of logits, shape (pairs,), in logits and in probability."""
    logits = np.abs(ours - reference)
    probabilities = np.abs(1 / (1 + np.exp(-ours)) - 1 / (1 + np.exp(-reference)))
    return {
        "max |dp|": float(probabilities.max()),
        "p95 |dp|": float(np.percentile(probabilities, 95)),
        "mean |dp|": float(probabilities.mean()),
        "max |dlogit|": float(logits.max()),
        "mean |dlogit|": float(logits.mean()),
    }


if __name__ == "__main__":
    main()
