"""Plot of a training run: loss and dev score by step."""

from __future__ import annotations

import json
from pathlib import Path

SMOOTHED = 50  # steps in the moving average of the loss


def draw_losses(metrics: Path, file: Path) -> None:
    """Draw the losses (left axis) and dev scores (right axis) of a ``metrics.jsonl``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    scores = [(row["step"], row["dev"]["score"]) for row in rows if "dev" in row]
    width = max(1, min(SMOOTHED, len(losses) // 10))
    smooth = [
        (losses[i][0], sum(loss for _, loss in losses[i + 1 - width : i + 1]) / width)
        for i in range(width - 1, len(losses))
    ]
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.plot(*zip(*smooth, strict=True), color="tab:blue", label=f"loss, mean of {width} steps")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if scores:
        other = axes.twinx()
        other.plot(*zip(*scores, strict=True), color="tab:orange", marker="o", label="dev score")
        other.set_ylabel("dev score")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)
