"""MkDocs hook that inserts measured figures, settings and other files into the pages.

A page has `<!-- insert: NAME -->` on a line of its own, where NAME is a key of `INSERTS`. Figures are read from the
newest JSON of each benchmark in benchmarks/results, and the inserted text names the file.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gliclass_rerank_service.settings import PREFIX, Settings
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
RELEVANCE = Path(__file__).parent / "relevance.json"
PLACE = re.compile(r"^<!-- insert: ([\w-]+) -->$", re.MULTILINE)

PASSAGES = 20  # of a request, in the table of sizes
BUSY = 0.5  # share of its capacity that a machine is planned for
CONTESTANTS = ("ours, ONNX int8", "ours, ONNX fp32", "ours, torch fp32", "upstream, batch 8", "upstream, batch 32")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the marks of a page; MkDocs calls this before it reads the page."""
    return PLACE.sub(lambda place: INSERTS[place[1]](), markdown)


def newest(name: str) -> tuple[dict[str, Any], str]:
    """Return the newest results of a benchmark and a line that names their source."""
    file = max(RESULTS.glob(f"{name}-[0-9][0-9][0-9][0-9]-*.json"))
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return report, f"`benchmarks/results/{file.name}`: {report['cpu']}, {report['cores']} cores, {report['system']}."


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table whose first column holds names and whose other columns hold numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def throughput() -> str:
    one, _ = newest("throughput-1-thread")
    two, source = newest("throughput")
    rows = [
        [name, *(f"{run['results'][name]['passages_per_second']:.0f}" for run in (one, two))]
        + [f"{run['results'][name]['times_upstream']:.2f}" for run in (one, two)]
        for name in CONTESTANTS
    ]
    head = [
        "",
        "passages/s, 1 thread",
        f"{two['threads']} threads",
        "times upstream, 1 thread",
        f"{two['threads']} threads",
    ]
    model = f"{two['model']['name']}, revision {two['model']['revision']}"
    told = f"{two['passages']} passages of {two['mean_tokens']:.0f} tokens on average, {model}. {source}"
    return f"{table(head, rows)}\n\n{told}"


def peers() -> str:
    """Passages a second of each reranker at its default and its best batch size."""
    report, source = newest("peers")
    rates: dict[str, list[Mapping[str, float]]] = {}
    for name, of in report["races"]["mixed"].items():
        rates.setdefault(re.sub(r", (batch|budget) \d+$", "", name), []).append(of)
    rows = [
        [name, *(ranged(of[key] for of in runs) for key in ("passages_per_second", "times_upstream"))]
        for name, runs in rates.items()
    ]
    told = f"{report['passages']} passages, {report['tokens']:,} tokens, {report['threads']} threads."
    return f"{table(['', 'passages/s', 'times upstream'], rows)}\n\n{told} {source}"


def ranged(values: Iterable[float]) -> str:
    """Format values as a range; one value, or equal ones, without a dash."""
    ordered = sorted(values)
    shown = [f"{value:.0f}" if value >= 20 else f"{value:.2f}" for value in (ordered[0], ordered[-1])]
    return "–".join(dict.fromkeys(shown))


def int8() -> str:
    """Differences in probability between int8 and fp32."""
    report, source = newest("int8")
    columns = list(next(iter(report["differences"].values())))
    rows = [[name, *(f"{value:.4f}" for value in row.values())] for name, row in report["differences"].items()]
    head = ["int8 against", *(column.replace("|", "\\|") for column in columns)]
    return f"{table(head, rows)}\n\n{source}"


def frameworks() -> str:
    """nDCG@10 of FAISS pipelines with and without reranking."""
    report, source = newest("frameworks")
    rows = [[name, *(f"{value:.3f}" for value in row.values())] for name, row in report["means"].items()]
    head = ["nDCG@10", *next(iter(report["means"].values()))]
    told = f"{report['queries of a set']} queries a collection, the first {report['found']} passages of each."
    return f"{table(head, rows)}\n\n{told} {source}"


def sizes() -> str:
    """Cores by load, from the service benchmark."""
    service, source = newest("service")
    rate = statistics.median(service["busy"]["http"]) / service["cores"]
    rows = [
        [asked, f"{asked * PASSAGES:,}", math.ceil(asked * PASSAGES / rate), math.ceil(asked * PASSAGES / rate / BUSY)]
        for asked in (1, 5, 20, 100)
    ]
    head = [f"requests/s of {PASSAGES} passages", "passages/s", "cores, 100% busy", f"cores, {BUSY:.0%} busy"]
    return f"{table(head, rows)}\n\nAt {rate:.0f} passages a second per core. {source}"


def load() -> str:
    report, source = newest("load")
    capacity = report["steps"][0]["answered"]
    rows = [
        [f"{step['offered'] / capacity:.0%}", f"{step['answered']:.1f}"]
        + [f"{step[name] / 1000:.1f}" for name in ("p50", "p90", "p99")]
        for step in report["steps"][1:]
    ]
    head = ["offered, of the capacity", "answered/s", "p50, s", "p90, s", "p99, s"]
    told = f"The capacity is {capacity:.1f} requests a second of mixed traffic, measured with many callers at once. "
    return f"{table(head, rows)}\n\n{told}Each step ran {report['seconds']} seconds. {source}"


def http() -> str:
    report, source = newest("service")
    alone = {name: statistics.median(report["alone"][name]) for name in ("http", "in_process")}
    over = report["overload"]
    refused = over["statuses"].get("429", 0)
    return (
        f"A request of {report['passages of a request']} passages takes {alone['http']:.0f} ms over HTTP and "
        f"{alone['in_process']:.0f} ms in process (medians). With {report['callers']} concurrent callers the service "
        f"reaches {report['busy']['ratio']:.2f} of the passages a second of `rank_many`, and 99% of the requests "
        f"are answered within {report['busy']['p99'] / 1000:.1f} s.\n\nUnder overload, {over['offered']:.0f} "
        f"requests a second for {report['seconds of overload']:.0f} seconds, the service answered "
        f"{over['statuses']['200']} requests, 99% of them within {over['p99'] / 1000:.0f} s. It refused {refused:,} "
        f"with 429. Its memory grew by {over['rss_after'] - over['rss_before']:.0f} MB.\n\n{source}"
    )


def labels() -> str:
    report, source = newest("labels")
    seconds: Mapping[str, Mapping[str, float]] = report["seconds a text"]
    counts = (1, 8, 32, 128)
    rows = [
        [name, *(f"{1000 * of[f'{count} labels, 256 tokens']:,.0f}" for count in counts)]
        for name, of in seconds.items()
    ]
    return f"{table(['ms, by labels', *map(str, counts)], rows)}\n\nOne text of 256 tokens, two threads. {source}"


def retrieval() -> str:
    report, source = newest("retrieval")
    means = {name: _mean_ndcg(sets) for name, sets in report["results"].items()}
    rows = [[name, f"{mean:.3f}"] for name, mean in means.items()]
    queries = sum(one["queries"] for one in report["sets"].values())
    told = f"Mean over {len(report['sets'])} collections, {queries} queries, up to {report['depth']} candidates each."
    return f"{table(['', 'nDCG@10'], rows)}\n\n{told} {source}"


def _mean_ndcg(sets: Mapping[str, Mapping[str, float]]) -> float:
    return statistics.fmean(measures["ndcg@10"] for name, measures in sets.items() if name != "mean")


def tutorial() -> str:
    report, source = newest("tutorial")
    before, after = report["before"], report["after"]
    classes = zip(before["classes"], after["classes"], strict=True)
    rows = [[name, f"{before[name]:.3f}", f"{after[name]:.3f}"] for name in ("accuracy", "macro F1", "weighted F1")]
    rows += [[f"F1 of {old['label']}", f"{old['f1']:.3f}", f"{new['f1']:.3f}"] for old, new in classes]
    return f"{table(['', 'before', 'after'], rows)}\n\n{source}"


def routing() -> str:
    report, source = newest("routing")
    known = {name: name.replace("_", " ") for name in report["tasks"]}
    rows = [
        [shown, *(f"{report['results'][model][name]['accuracy']:.2f}" for model in report["results"])]
        for name, shown in known.items()
    ]
    return f"{table(['accuracy', *report['results']], rows)}\n\nRoutes by their names alone. {source}"


def order() -> str:
    report, source = newest("label-order")
    columns = ("labels", "mean change", "largest change", "likeliest label changes")
    rows = [
        [name, f"{of['labels']:.0f}", f"{of['mean change']:.3f}", f"{of['largest change']:.2f}"]
        + [f"{of['likeliest label changes']:.0%}"]
        for name, of in report["orders"].items()
    ]
    return f"{table(['', *columns], rows)}\n\nThe same labels in another order, in one pass. {source}"


def thresholds() -> str:
    """Precision and recall by threshold, from the scores behind the pictures."""
    report = json.loads(RELEVANCE.read_text("utf-8"))
    shares = report["shares"]
    answers = sum(share["answers"] for share in shares)
    rows = []
    for bound in (0.05, 0.1, 0.2, 0.3, 0.5):
        kept = [share for share in shares if share["lower"] >= bound - 1e-9]
        right, every = (sum(share[key] for share in kept) for key in ("answers", "others"))
        a_question = (right + every) / report["questions"]
        rows.append([bound, f"{a_question:.1f}", f"{right / (right + every):.2f}", f"{right / answers:.2f}"])
    head = ["threshold", f"kept of {report['passages of a question']} a question", "precision", "recall"]
    return table(head, rows)


def calibration() -> str:
    """Calibration error before and after a fit, on questions outside the fit."""
    report = json.loads(RELEVANCE.read_text("utf-8"))
    rows = [[name, f"{half['ece']:.3f}"] for name, half in report["other half"].items()]
    return table(["", "expected calibration error"], rows)


def settings() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, (), "") else f"`{field.default}`"
        rows.append([f"`{PREFIX}{name.upper()}`", default, field.description or ""])
    lines = [["variable", "default", ""], ["---"] * 3, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def file(name: str) -> Callable[[], str]:
    """Return a reader of a whole Markdown file of the repository."""
    return lambda: (ROOT / name).read_text("utf-8")


INSERTS: Mapping[str, Callable[[], str]] = {
    "throughput": throughput,
    "peers": peers,
    "int8": int8,
    "sizes": sizes,
    "load": load,
    "http": http,
    "labels": labels,
    "retrieval": retrieval,
    "routing": routing,
    "frameworks": frameworks,
    "tutorial": tutorial,
    "label-order": order,
    "thresholds": thresholds,
    "calibration": calibration,
    "settings": settings,
    "changelog": file("CHANGELOG.md"),
    "model-card": file("src/gliclass_rerank/bundled/mini/MODEL_CARD.md"),
}
