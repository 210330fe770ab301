"""What the site takes from elsewhere when it is built, so that no figure is typed by hand and nothing stands twice.

A page says `<!-- insert: NAME -->` on a line of its own; NAME is one of `INSERTS`. Measured figures are those of the
newest JSON of each benchmark in benchmarks/results, and the text around them names the file.
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
CLIENTS = re.compile(r"<!-- clients -->\n(.*?)<!-- /clients -->", re.DOTALL)

PASSAGES = 20  # of a request, in the table of sizes
BUSY = 0.5  # share of its capacity that a machine is planned for
CONTESTANTS = ("ours, ONNX int8", "ours, ONNX fp32", "ours, torch fp32", "upstream, batch 8", "upstream, batch 32")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """What MkDocs calls for each page before it is read."""
    return PLACE.sub(lambda place: INSERTS[place[1]](), markdown)


def newest(name: str) -> tuple[dict[str, Any], str]:
    """The newest results of a benchmark, and a line that says where they are from."""
    file = max(RESULTS.glob(f"{name}-[0-9][0-9][0-9][0-9]-*.json"))
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return report, f"`benchmarks/results/{file.name}`: {report['cpu']}, {report['cores']} cores, {report['system']}."


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; the first column is of names, the others are of numbers."""
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


def sizes() -> str:
    """Cores by load: those of the service's benchmark, at a share of what they can do."""
    service, source = newest("service")
    rate = statistics.median(service["busy"]["http"]) / service["cores"]
    rows = [
        [asked, f"{asked * PASSAGES:,}", math.ceil(asked * PASSAGES / rate), math.ceil(asked * PASSAGES / rate / BUSY)]
        for asked in (1, 5, 20, 100)
    ]
    head = [f"requests/s of {PASSAGES} passages", "passages/s", "cores, always busy", f"cores, {BUSY:.0%} busy"]
    return f"{table(head, rows)}\n\nAt {rate:.0f} passages a second and core. {source}"


def load() -> str:
    report, source = newest("load")
    capacity = report["steps"][0]["answered"]
    rows = [
        [f"{step['offered'] / capacity:.0%}", f"{step['answered']:.1f}"]
        + [f"{step[name] / 1000:.1f}" for name in ("p50", "p90", "p99")]
        for step in report["steps"][1:]
    ]
    head = ["offered, of the capacity", "answered/s", "p50, s", "p90, s", "p99, s"]
    told = f"The capacity is {capacity:.1f} requests a second of mixed traffic, measured with many callers at once; "
    return f"{table(head, rows)}\n\n{told}{report['seconds']} seconds a step. {source}"


def http() -> str:
    report, source = newest("service")
    alone = {name: statistics.median(report["alone"][name]) for name in ("http", "in_process")}
    over = report["overload"]
    refused = over["statuses"].get("429", 0)
    return (
        f"A request of {report['passages of a request']} passages takes {alone['http']:.0f} ms over HTTP and "
        f"{alone['in_process']:.0f} ms in process (medians). {report['callers']} callers at once get "
        f"{report['busy']['ratio']:.2f} of the passages a second that `rank_many` gives. Offered "
        f"{over['offered']:.0f} requests a second for {report['seconds of overload']:.0f} seconds, the service "
        f"answered {over['statuses']['200']}, 99% of them within {over['p99'] / 1000:.0f} s (without overload: "
        f"{report['busy']['p99'] / 1000:.1f} s), and refused {refused:,} with 429. Its memory grew by "
        f"{over['rss_after'] - over['rss_before']:.0f} MB.\n\n{source}"
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
    told = f"Mean over {len(report['sets'])} sets, {queries} queries, each one's first {report['depth']} candidates."
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
    """What a threshold keeps, from the scores behind the pictures."""
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
    """How far promised and observed frequencies are apart, before and after, on questions that were not fitted on."""
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


def clients() -> str:
    found = CLIENTS.search((ROOT / "README.md").read_text("utf-8"))
    if found is None:
        raise ValueError("README.md: expected a table between <!-- clients --> and <!-- /clients -->")
    return found[1]


def file(name: str) -> Callable[[], str]:
    """The whole of a Markdown file of the repository."""
    return lambda: (ROOT / name).read_text("utf-8")


INSERTS: Mapping[str, Callable[[], str]] = {
    "throughput": throughput,
    "sizes": sizes,
    "load": load,
    "http": http,
    "labels": labels,
    "retrieval": retrieval,
    "routing": routing,
    "tutorial": tutorial,
    "label-order": order,
    "thresholds": thresholds,
    "calibration": calibration,
    "settings": settings,
    "clients": clients,
    "changelog": file("CHANGELOG.md"),
    "model-card": file("src/gliclass_rerank/bundled/mini/MODEL_CARD.md"),
}
