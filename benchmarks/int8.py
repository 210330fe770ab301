"""What int8 costs: scores of a model's int8 graph against fp32 torch, on real questions and passages.

    gliclass-rerank bench int8 [--model mini] [--reference CHECKPOINT]

The graph is compared with torch on the same (rounded) weights, which shows what rounding activations does, and, where
the checkpoint that the model was exported from is given, with that, which shows what rounding weights does as well.
Each question of the demo is put to the first passages that BM25 finds for it.
"""

from __future__ import annotations

import argparse
import json
from datetime import date

import machine
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from gliclass_rerank import ScoreRequest, load_scorer
from gliclass_rerank.demo.evaluate import prepare, shown_to_model

PASSAGES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--reference")
    arguments = parser.parse_args()
    task = prepare(PASSAGES)
    requests = [
        ScoreRequest(shown_to_model(task.passages[i]), (question.query,))
        for question, hits in zip(task.judged.questions, task.found, strict=True)
        for i in hits.indices
    ]
    int8 = load_scorer(arguments.model, backend="onnx")
    references = {"torch, same weights": load_scorer(arguments.model, backend="torch")}
    if arguments.reference:
        references["torch, before export"] = load_scorer(arguments.reference, backend="torch")
    logits = np.concatenate(int8.score(requests))
    rows = {name: differences(logits, np.concatenate(other.score(requests))) for name, other in references.items()}
    table = Table("against", *next(iter(rows.values())), title=f"int8, {len(requests)} pairs")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.4f}" for value in row.values()))
    Console().print(table)
    machine.RESULTS.mkdir(exist_ok=True)
    out = machine.RESULTS / f"int8-{date.today().isoformat()}.json"
    result = {**machine.describe(int8.info), "pairs": len(requests), "differences": rows}
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def differences(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> dict[str, float]:
    """How far two sets of logits, shape (pairs,), lie apart, in logits and in probability."""
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
