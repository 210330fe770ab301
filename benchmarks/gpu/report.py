"""Report of `gpu.py`: goals met, tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.lib.pictures import new_figure, save
from benchmarks.lib.report import table
from gliclass_rerank.cli.output import print_table

Report = Mapping[str, Any]

# Samples per second on one A6000, batch 1, by number of labels, from the model card of gliclass-v3.0.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "edge": {"1": 103.8, "8": 103.5, "32": 96.8, "128": 82.6},
    "modern-base": {"1": 56.0, "8": 55.7, "32": 55.0, "128": 50.3},
    "deberta-large": {"1": 19.1, "8": 29.3, "32": 28.8, "128": 17.6},
}
A6000_RATE = 154.8e12  # dense bf16 operations per second with tensor cores, from NVIDIA's data sheet
SHARES = {"modern-large": 0.5, "modern-base": 0.4, "deberta-base": 0.4}
TIMES_DEFAULT, TIMES_BEST = 8, 3
P50_MS = {"modern-base": 15}
OF_RATES = 0.5  # goal for the gain in samples per second, as a share of the ratio of the cards' rates

Goal = dict[str, Any]


def goals(report: Report) -> dict[str, Goal]:
    """Goals that could be measured: wanted and found values, and whether they are met. Empty for toy runs."""
    found: dict[str, Goal] = {}
    gain = OF_RATES * report["matrix_rate"] / A6000_RATE
    for name, model in {} if report["toy"] else report["models"].items():
        for check, values in model.get("checks", {}).items():
            if values["passed"] is not None:
                found[f"{name}: {check}"] = {"wanted": True, "found": values["passed"], "met": values["passed"]}
        if packed := model.get("checks", {}).get("packed is padded"):
            value, wanted = packed["largest_difference_bf16"], packed["allowed"]
            met = value <= wanted
            found[f"{name}: packed is padded in bf16 too"] = {"wanted": wanted, "found": value, "met": met}
        if speed := model.get("throughput"):
            found[f"{name}: × upstream's default"] = at_least(TIMES_DEFAULT, speed["times_upstream_default"])
            found[f"{name}: × upstream's best"] = at_least(TIMES_BEST, speed["times_upstream_best"])
            if name in SHARES:
                found[f"{name}: share of the card's rate"] = at_least(SHARES[name], speed["share_of_peak"])
        if name in P50_MS and (taken := model.get("latency")):
            wanted = P50_MS[name]
            found[f"{name}: p50 in ms"] = {"wanted": wanted, "found": taken["p50_ms"], "met": taken["p50_ms"] < wanted}
        ours = model.get("samples_per_second", {}).get("one at a time", {})
        for count, theirs in PUBLISHED.get(name, {}).items():
            if count in ours:
                found[f"{name}: × an A6000, {count} labels"] = at_least(gain, ours[count] / theirs)
    return found


def at_least(wanted: float, value: float) -> Goal:
    return {"wanted": wanted, "found": value, "met": value >= wanted}


def show(report: Report, console: Console) -> None:
    models = {name: model for name, model in report["models"].items() if "throughput" in model}
    speeds = {}
    for name, model in models.items():
        speed, taken, check = model["throughput"], model["latency"], model["checks"]["upstream in fp32"]
        speeds[name] = [
            speed["passages_per_second"]["ours"], 100 * speed["share_of_peak"],
            100 * speed["share_of_peak_on_device"], speed["times_upstream_default"], speed["times_upstream_best"],
            taken["p50_ms"], check["largest_difference"],
        ]  # fmt: skip
    columns = ["passages/s", "% of rate", "on device", "× default", "× best", "p50 ms", "max |Δ|"]
    rate = f"{report['device']['name']}: {report['matrix_rate'] / 1e12:,.3g} TFLOP/s in bf16"
    print_table(table(f"{rate}, {len(models)} models", columns, speeds, digits=2), console)
    counts = list(next(iter(models.values()))["samples_per_second"]["batched"]) if models else []
    rows: dict[str, list[float | None]] = {}
    for name, model in models.items():
        for kind, row in model["samples_per_second"].items():
            rows[f"{name}, {kind}"] = [row[count] for count in counts]
        if name in PUBLISHED:
            rows[f"{name}, published, A6000"] = [PUBLISHED[name].get(count) for count in counts]
    print_table(table("Samples a second, by labels", counts, rows, digits=1), console)
    for name, goal in report.get("goals", {}).items():
        console.print(
            f"{'met   ' if goal['met'] else 'MISSED'} {name}: {goal['found']:.3g}, wanted {goal['wanted']:.3g}"
        )


def draw(report: Report, file: Path) -> None:
    """Draw shares of the card's rate, speed-up over upstream, and samples per second by labels, with published ones."""
    models = {name: model for name, model in report["models"].items() if "throughput" in model}
    if not models:
        return
    figure = new_figure(14, 4.5)
    shares, times, labels = figure.subplots(1, 3)
    bars(shares, models, {"share_of_peak": "from strings", "share_of_peak_on_device": "tokenised before"})
    shares.set_ylabel("share of the card's bf16 matrix rate")
    bars(times, models, {"times_upstream_default": "its default batch", "times_upstream_best": "its best batch"})
    times.set_ylabel("× upstream's passages a second")
    for i, (name, model) in enumerate(models.items()):
        row = model["samples_per_second"]["one at a time"]
        labels.plot([int(count) for count in row], list(row.values()), color=f"C{i}", marker="o", label=name)
        theirs = PUBLISHED.get(name, {})
        labels.plot([int(count) for count in theirs], list(theirs.values()), color=f"C{i}", marker="x", linestyle="--")
    labels.set(xscale="log", yscale="log", xlabel="labels", ylabel="samples a second, batch 1 (dashed: A6000)")
    for axes in (shares, times, labels):
        axes.legend(frameon=False, fontsize="small")
    toy = "toy models, figures without meaning; " if report["toy"] else ""
    save(figure, f"{toy}{report['device']['name']}", file)


def bars(axes: Any, models: Report, shown: Mapping[str, str]) -> None:
    """Draw one bar per model for each of these keys of its throughput."""
    for i, (key, label) in enumerate(shown.items()):
        places = [place + 0.4 * i - 0.2 for place in range(len(models))]
        axes.bar(places, [model["throughput"][key] for model in models.values()], 0.38, label=label)
    axes.set_xticks(range(len(models)), list(models), rotation=30, ha="right")
