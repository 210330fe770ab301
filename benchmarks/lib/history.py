"""The main figures of a report in one line of HISTORY.md, which outlives the report's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]
Figures = Mapping[str, float]

OURS = "ours, ONNX int8"
HEAD = """\
# Older figures

Main figures of results that newer ones have replaced. "model" is the revision of the model. Older JSON files are in the
history of the repository: `git log --diff-filter=DR --name-status -- benchmarks/results`.

| date | benchmark | machine | model | figures |
| --- | --- | --- | --- | --- |
"""


def add(report: Report, name: str, machine: str, file: Path) -> None:
    """Append the line of a report to a file, which is created if there is none."""
    text = file.read_text("utf-8") if file.is_file() else HEAD
    file.write_text(f"{text}{line(report, name, machine)}\n", "utf-8")


def line(report: Report, name: str, machine: str) -> str:
    told, figures = main_figures(name, report)
    shown = "; ".join(f"{of} {value:,.0f}" if value >= 100 else f"{of} {value:.3g}" for of, value in figures.items())
    return f"| {report['date']} | {name} | {machine} | {revision(report['model'])} | {told}{shown} |"


def revision(model: Mapping[str, Any] | None) -> str:
    """Revision in a report's description of its model, or of the first of its models."""
    if model and "revision" not in model:
        model = next(iter(model.values()))
    return model["revision"][:12] if model else ""


def main_figures(name: str, report: Report) -> tuple[str, Figures]:
    """Unit and figures of a report. A longer name is a variant of a benchmark, such as throughput-1-thread."""
    found = max((of for of in FIGURES if f"{name}-".startswith(f"{of}-")), default="", key=len)
    told, figures = FIGURES.get(found, ("", lambda _: {}))
    return told, figures(report)


def means(measure: str) -> Callable[[Report], Figures]:
    """Mean of a measure over the sets, by contestant."""
    return lambda report: {name: sets["mean"][measure] for name, sets in report["results"].items()}


def each(part: str, measure: str) -> Callable[[Report], Figures]:
    """One figure of each row of a part."""
    return lambda report: {name: row[measure] for name, row in report[part].items()}


def contradictions(report: Report) -> Figures:
    return {kind: found["supported"] for kind, found in report["results"].items()}


def throughput(report: Report) -> Figures:
    ours = report["results"][OURS]
    return {"passages/s": ours["passages_per_second"], "× upstream": ours["times_upstream"]}


def peers(report: Report) -> Figures:
    ours = report["races"]["mixed"][OURS]
    shown = {"passages/s": "passages_per_second", "× upstream": "times_upstream", "share of the peak": "share_of_peak"}
    return {name: ours[key] for name, key in shown.items()}


def labels(report: Report) -> Figures:
    ours = next(iter(report["seconds a text"].values()))
    counts = (1, 128)
    return {f"{count} labels": 1000 * ours[f"{count} labels, 256 tokens"] for count in counts}


def scale(report: Report) -> Figures:
    most = report["axes"]["passages"][-1]
    return {"passages": most["point"]["passages"], "passages/s": most["passages_per_second"], "peak MiB": most["peak"]}


def int8(report: Report) -> Figures:
    against = next(iter(report["differences"].values()))
    return {name: against[f"{name} |dp|"] for name in ("max", "mean")}


def routing(report: Report) -> Figures:
    last = list(report["results"])[-1]
    return {name: row["accuracy"] for name, row in report["results"][last].items() if "," not in name}


def load(report: Report) -> Figures:
    capacity, least = report["steps"][:2]
    return {"answered/s": capacity["answered"], f"p50 ms at {least['offered']:.3g}/s": least["p50"]}


def service(report: Report) -> Figures:
    alone, busy, overload = report["alone"], report["busy"], report["overload"]
    return {"ms added": alone["added"], "share of rank_many": busy["ratio"], "p99 ms in overload": overload["p99"]}


def mini_held(report: Report) -> Figures:
    int8 = report["results"]["int8"]
    ranking, fact, labels = int8["ranking"], int8["fact"], int8["labels"]
    return {
        "nDCG@10": ranking["ndcg"],
        "balanced accuracy": fact["balanced_accuracy"],
        "likeliest label": labels["top1"],
    }


def route_examples(report: Report) -> Figures:
    (name,) = report["model"]
    return {of: row[name] if name in row else row["router, nearest"] for of, row in report["accuracy"].items()}


def gpu(report: Report) -> Figures:
    models = {name: model["throughput"] for name, model in report["models"].items() if "throughput" in model}
    return {name: speed["times_upstream_best"] for name, speed in models.items()}


FIGURES: Mapping[str, tuple[str, Callable[[Report], Figures]]] = {
    "throughput": ("", throughput),
    "peers": ("", peers),
    "stages": ("", lambda report: {"seconds": report["seconds"]}),
    "labels": ("ms with ", labels),
    "scale": ("", scale),
    "int8": ("difference in probability: ", int8),
    "contradictions": ("contradictions supported: ", contradictions),
    "first-stage-weight": ("weight: ", lambda report: {name: report[name] for name in ("best", "chosen")}),
    "retrieval": ("mean nDCG@10: ", means("ndcg@10")),
    "fact-check": ("mean balanced accuracy: ", means("balanced_accuracy")),
    "routing": ("accuracy of the last contestant: ", routing),
    "zero-shot": ("mean macro F1: ", means("macro_f1")),
    "route-examples": ("accuracy with examples: ", route_examples),
    "frameworks": ("mean nDCG@10: ", each("means", "mean")),
    "label-order": ("share of likeliest labels that change: ", each("orders", "likeliest label changes")),
    "decisions": ("mean accuracy: ", means("accuracy")),
    "coherence": ("share of tests that hold: ", each("results", "overall")),
    "decision-cost": ("times one question: ", each("results", "16 of 1")),
    "load": ("", load),
    "service": ("", service),
    "mini-held": ("", mini_held),
    "gpu": ("× upstream's best: ", gpu),
    "tutorial": ("accuracy: ", lambda report: {name: report[name]["accuracy"] for name in ("before", "after")}),
}
