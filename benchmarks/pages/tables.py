"""Tables of the newest results of each benchmark, for the READMEs and the documentation.

TABLES lists them by name. A table ends with its sources: the files, their date and machine, pictures, and results of
the same benchmark on other machines. Without results a table is empty.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.lib.results import RESULTS, Report, newest_first, read
from benchmarks.pages import decisions
from benchmarks.pages.markdown import Cell, markdown, ranged, speed, values, with_interval

PASSAGES = 20  # of a request, in the table of sizes
BUSY = 0.5  # share of its capacity that a machine is planned for


def table(name: str, links: str | None = None, folder: Path = RESULTS) -> str:
    """Make a table and its sources.

    Args:
        name: a key of TABLES.
        links: path of the results for links. None names the files without links.
        folder: of the results.
    """
    make, benchmarks = TABLES[name]
    found = [file for benchmark in benchmarks for file in newest_first(benchmark, folder)]
    if not found:
        return ""
    files = [file for file in found if file.parent == found[0].parent]
    elsewhere = [file for file in found if file not in files]
    return f"{make(*map(read, files))}\n\n{sources(files, elsewhere, links)}\n"


def sources(files: list[Path], elsewhere: list[Path], links: str | None) -> str:
    """Name files with their date and machine, and link pictures and results of other machines."""
    report = read(files[0])
    machine = " ".join(filter(None, (report["cpu"], report.get("generation"))))
    told = f"Source: {listed(files, links)}, {report['date']}, {machine}, {report['cores']} cores."
    if links is not None:
        pictures = sorted(files[0].parent.glob(f"{files[0].stem}*.png"))
        told += f" Pictures: {listed(pictures, links)}." if pictures else ""
        told += f" Other machines: {listed(elsewhere, links)}." if elsewhere else ""
    return told


def listed(files: list[Path], links: str | None) -> str:
    names = [file.relative_to(file.parents[1]).as_posix() for file in files]
    return ", ".join(f"`benchmarks/results/{name}`" if links is None else f"[{name}]({links}/{name})" for name in names)


# Speed


def throughput(*runs: Report) -> str:
    """Speed of each contestant, by number of threads."""
    keys = {"passages/s": "passages_per_second", "× upstream": "times_upstream"}
    rows = {
        name: [speed(run["results"][name][key]) for key in keys.values() for run in runs] for name in runs[0]["results"]
    }
    columns = [f"{unit}, {run['threads']} thread{'s'[: run['threads'] > 1]}" for unit in keys for run in runs]
    told = f"{runs[0]['passages']} passages of {runs[0]['mean_tokens']:.0f} tokens on average."
    return f"{markdown(columns, rows)}\n\n{told}"


def rerankers(report: Report) -> str:
    """Speed of each reranker, from its slowest settings of the race to its fastest."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for name, of in report["races"]["mixed"].items():
        found.setdefault(re.sub(r", (batch|budget) \d+$", "", name), []).append(of)
    keys = ("passages_per_second", "times_upstream")
    rows: dict[str, list[Cell]] = {
        shown: [ranged(of[key] for of in found[name]) for key in keys] for name, shown in RERANKERS.items()
    }
    told = f"{report['passages']} passages, {report['tokens']:,} tokens, {report['threads']} threads."
    return f"{markdown(['passages/s', '× upstream'], rows)}\n\n{told}"


def peers(report: Report) -> str:
    keys = ("passages_per_second", "tokens_per_second", "times_upstream")
    told = {
        name: [*(speed(of[key]) for key in keys), f"{of['share_of_peak']:.0%}"]
        for name, of in report["races"]["mixed"].items()
    }
    others = {name: rows for name, rows in report["races"].items() if name != "mixed"}
    by_race = {
        name: [speed(rows[name]["passages_per_second"]) for rows in others.values()]
        for name in next(iter(others.values()), {})
    }
    first = markdown(["passages/s", "tokens/s", "× upstream", "of the peak"], told)
    floors = {
        f"{kind}, {threads} threads": [max(rates.values()) / 1e9]
        for threads, kinds in report["floors"].items()
        for kind, rates in kinds.items()
    }
    second = (
        f"Passages a second at each one's best batch size:\n\n{markdown(list(others), by_race)}\n\n" if others else ""
    )
    peak = markdown(["billions of operations a second"], floors, digits=0)
    return f"{first}\n\n{second}The best rate of a plain matrix product:\n\n{peak}"


def stages(report: Report) -> str:
    whole = report["seconds"]
    rows = {stage: [1000 * taken, 100 * taken / whole] for stage, taken in report["stages"].items()}
    return markdown(["ms", "% of all"], rows | {"all": [1000 * whole, 100.0]}, digits=1)


def labels(report: Report) -> str:
    medians = report["seconds a text"]
    rows = {cell: [1000 * row[cell] for row in medians.values()] for cell in next(iter(medians.values()))}
    return markdown(list(medians), rows, digits=0, corner="ms")


def label_counts(report: Report) -> str:
    """Milliseconds of one text by number of labels."""
    counts = (1, 8, 32, 128)
    rows = {
        name: [1000 * of[f"{count} labels, 256 tokens"] for count in counts]
        for name, of in report["seconds a text"].items()
    }
    told = f"One text of 256 tokens, {report['threads']} threads."
    return f"{markdown([*map(str, counts)], rows, digits=0, corner='ms, by labels')}\n\n{told}"


def scale(report: Report) -> str:
    columns = ["seconds", "passages/s", "peak MiB", "beyond the strings"]
    keys = ("seconds", "passages_per_second", "peak", "peak_beyond_strings")
    parts = []
    for axis, results in report["axes"].items():
        rows: dict[str, list[Cell]] = {f"{row['point'][axis]:,}": [speed(row[key]) for key in keys] for row in results}
        parts.append(markdown(columns, rows, corner=axis))
    return "\n\n".join(parts)


# Quality


def int8(report: Report) -> str:
    """Differences in probability and logit between int8 and fp32."""
    return markdown(*values(report["differences"]), digits=4, corner="int8 against")


def first_stage_weight(report: Report) -> str:
    shown = {"weight 0": 0.0, f"weight {report['best']:g}, best": report["best"]}
    shown |= {f"weight {report['chosen']:g}, chosen": report["chosen"]}
    rows = {"BM25": report["bm25"]} | {name: report["weights"][str(weight)] for name, weight in shown.items()}
    return markdown(*values(rows))


def retrieval(report: Report) -> str:
    means = {name: rows["mean"] for name, rows in report["results"].items()}
    return f"{turned(report, 'ndcg@10')}\n\nMeans over the sets:\n\n{markdown(*values(means))}"


def quality(report: Report) -> str:
    """Mean nDCG@10 of each contestant of the retrieval benchmark."""
    ends = {name: rows["mean"] for name, rows in report.get("intervals", {}).items()}
    rows: dict[str, list[Cell]] = {
        CONTESTANTS.get(name, name): [with_interval(sets["mean"]["ndcg@10"], ends.get(name))]
        for name, sets in report["results"].items()
    }
    queries = sum(one["queries"] for one in report["sets"].values())
    told = f"Mean over {len(report['sets'])} collections, {queries} queries, up to {report['depth']} candidates each."
    return f"{markdown(['nDCG@10'], rows)}\n\n{told}"


def turned(report: Report, key: str) -> str:
    """Table of one metric with sets as rows and contestants as columns, without sets that have no number."""
    by_contestant: Mapping[str, Mapping[str, Mapping[str, Any]]] = report["results"]
    rows = {name: [of[name][key] for of in by_contestant.values()] for name in next(iter(by_contestant.values()))}
    return markdown(list(by_contestant), {name: row for name, row in rows.items() if any(v is not None for v in row)})


def frameworks(report: Report) -> str:
    """Mean nDCG@10 of FAISS pipelines with and without reranking."""
    told = f"{report['queries of a set']} queries a collection, the first {report['found']} passages of each."
    return f"{markdown(*values(report['means']), corner='nDCG@10')}\n\n{told}"


def label_order(report: Report) -> str:
    rows: dict[str, list[Cell]] = {
        name: [f"{of['labels']:.0f}", of["mean change"], of["largest change"], f"{of['likeliest label changes']:.0%}"]
        for name, of in report["orders"].items()
    }
    return markdown(["labels", "mean change", "largest change", "likeliest label changes"], rows)


def tutorial(report: Report) -> str:
    before, after = report["before"], report["after"]
    rows = {name: [before[name], after[name]] for name in ("accuracy", "macro F1", "weighted F1")}
    for old, new in zip(before["classes"], after["classes"], strict=True):
        rows[f"F1 of {old['label']}"] = [old["f1"], new["f1"]]
    return markdown(["before", "after"], rows)


# Service


def load(report: Report) -> str:
    """Latency by offered load, as a share of the capacity."""
    capacity = report["steps"][0]["answered"]
    rows: dict[str, list[Cell]] = {}
    for step in report["steps"]:
        statuses = ", ".join(f"{status}: {count}" for status, count in step["statuses"].items())
        offered = "always busy" if step["offered"] is None else f"{step['offered'] / capacity:.0%}"
        times = [f"{step[key] / 1000:.2f}" for key in ("p50", "p90", "p99")]
        rows[offered] = [f"{step['answered']:.1f}", *times, statuses]
    told = (
        f"The capacity is {capacity:.1f} requests a second of mixed traffic, answered to callers that are always busy. "
        f"Each step ran {report['seconds']} seconds."
    )
    columns = ["answered/s", "p50, s", "p90, s", "p99, s", "answers by status"]
    return f"{markdown(columns, rows, corner='offered, of the capacity')}\n\n{told}"


def service(report: Report) -> str:
    """The service beside calls in process: one caller, many callers, overload."""
    alone, busy, over = report["alone"], report["busy"], report["overload"]
    many, overload = f"{report['callers']} callers", f"{over['offered']:.0f} requests a second"
    rows: dict[str, list[Cell]] = {
        "one caller, ms over HTTP (median)": [statistics.median(alone["http"])],
        "one caller, ms in process (median)": [statistics.median(alone["in_process"])],
        f"{many}, passages a second of those of `rank_many`": [busy["ratio"]],
        f"{many}, p99 in s": [busy["p99"] / 1000],
        f"{overload}, answered": [f"{over['statuses']['200']:,}"],
        f"{overload}, refused with 429": [f"{over['statuses'].get('429', 0):,}"],
        f"{overload}, p99 of answers in s": [over["p99"] / 1000],
        f"{overload}, memory gained in MB": [over["rss_after"] - over["rss_before"]],
    }
    told = (
        f"Requests of {report['passages of a request']} passages. The overload is ten times the capacity, "
        f"for {report['seconds of overload']:.0f} seconds."
    )
    return f"{markdown([''], rows, digits=2)}\n\n{told}"


def sizes(report: Report) -> str:
    """Cores by load, from the passages a second of the busy service."""
    rate = statistics.median(report["busy"]["http"]) / report["cores"]
    rows: dict[str, list[Cell]] = {}
    for asked in (1, 5, 20, 100):
        passages = asked * PASSAGES
        rows[str(asked)] = [passages, math.ceil(passages / rate), math.ceil(passages / rate / BUSY)]
    columns = ["passages/s", "cores, 100% busy", f"cores, {BUSY:.0%} busy"]
    shown = markdown(columns, rows, digits=0, corner=f"requests/s of {PASSAGES} passages")
    return f"{shown}\n\nAt {rate:.0f} passages a second per core."


# Names of the results in the short tables.
CONTESTANTS = {
    "all-MiniLM-L6-v2": "all-MiniLM-L6-v2 vectors",
    "hybrid": "both, rank fusion",
    "mini": "`mini` alone",
    "mini, vectors": "`mini`'s vectors",
    "mini + BM25": "**`mini` with BM25's scores**",
}
RERANKERS = {
    "ours, ONNX int8": "**gliclass-rerank** int8",
    "sentence-transformers, openvino": "sentence-transformers OpenVINO",
    "sentence-transformers, onnx int8": "sentence-transformers ONNX int8",
    "FlashRank, int8": "FlashRank int8",
    "fastembed, int8": "fastembed int8",
    "sentence-transformers, torch": "sentence-transformers torch",
    "upstream": "GLiClass pipeline",
}

# Makers, and the benchmarks whose results they take.
TABLES: Mapping[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "throughput": (throughput, ("throughput", "throughput-1-thread")),
    "rerankers": (rerankers, ("peers",)),
    "peers": (peers, ("peers",)),
    "stages": (stages, ("stages",)),
    "labels": (labels, ("labels",)),
    "label-counts": (label_counts, ("labels",)),
    "scale": (scale, ("scale",)),
    "int8": (int8, ("int8",)),
    "first-stage-weight": (first_stage_weight, ("first-stage-weight",)),
    "retrieval": (retrieval, ("retrieval",)),
    "quality": (quality, ("retrieval",)),
    "fact-check": (lambda report: turned(report, "balanced_accuracy"), ("fact-check",)),
    "routing": (lambda report: turned(report, "accuracy"), ("routing",)),
    "zero-shot": (lambda report: turned(report, "macro_f1"), ("zero-shot",)),
    "route-examples": (lambda report: markdown(*values(report["accuracy"])), ("route-examples",)),
    "frameworks": (frameworks, ("frameworks",)),
    "label-order": (label_order, ("label-order",)),
    "tutorial": (tutorial, ("tutorial",)),
    "decisions": (decisions.decisions, ("decisions",)),
    "coherence": (decisions.coherence, ("coherence",)),
    "decision-cost": (decisions.cost, ("decision-cost",)),
    "load": (load, ("load",)),
    "service": (service, ("service",)),
    "sizes": (sizes, ("service",)),
}
