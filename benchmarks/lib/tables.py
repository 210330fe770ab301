"""Generate the tables of benchmarks/README.md and README.md from the newest results of each benchmark.

    python -m benchmarks.lib.tables            # fails if a file differs from the results, and names it
    python -m benchmarks.lib.tables --write    # updates the tables

A table stands between two comments with its name, `<!-- labels -->` and `<!-- /labels -->`. TABLES lists the tables of
benchmarks/README.md, one per benchmark. SUMMARIES lists the short ones of README.md. A table without results is empty.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib.machine import RESULTS
from benchmarks.speed.labels import ratios

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "benchmarks/README.md", ROOT / "README.md")

Report = Mapping[str, Any]
Cell = float | str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into the files")
    options = parser.parse_args()
    old = {file: file.read_text("utf-8") for file in FILES}
    new = {file: filled(text, RESULTS, links_of(file)) for file, text in old.items()}
    for file in (file for file in FILES if new[file] != old[file]):
        print(f"{file.relative_to(ROOT)}: {'written' if options.write else 'differs from its results'}")
        if options.write:
            file.write_text(new[file], "utf-8")
    if not options.write and new != old:
        raise SystemExit("run: python -m benchmarks.lib.tables --write")


def links_of(file: Path) -> str:
    """Relative path of the results folder for links in ``file``."""
    return RESULTS.relative_to(file.parent).as_posix()


def filled(text: str, results: Path, links: str) -> str:
    """Replace each table of TABLES and SUMMARIES between its two comments in a text."""
    for name in (*TABLES, *SUMMARIES):
        old = re.search(f"<!-- {name} -->\n.*?<!-- /{name} -->", text, re.DOTALL)
        if old:
            new = f"<!-- {name} -->\n{table_of(name, results, links)}<!-- /{name} -->"
            text = text[: old.start()] + new + text[old.end() :]
    return text


def table_of(name: str, results: Path, links: str) -> str:
    """A table with links to its results and figure, empty without results."""
    benchmark, make = SUMMARIES[name] if name in SUMMARIES else (name, TABLES[name])
    file = newest(benchmark, results)
    if file is None:
        return ""
    report: Report = json.loads(file.read_text("utf-8"))
    if name in SUMMARIES:
        machine = f"{report['cpu']}, {report['cores']} cores"
        return f"{make(report)}\n\nSource: [{file.name}]({links}/{file.name}), {machine}.\n"
    pictures = sorted(results.glob(f"{file.stem}*.png"))
    shown = " ".join(f"[picture]({links}/{picture.name})" for picture in pictures)
    source = f"[{file.name}]({links}/{file.name}), commit {report['commit']}, {report['cpu']}, {report['cores']} cores"
    return f"{make(report)}\n\n{source}{'; ' if shown else ''}{shown}\n"


def newest(name: str, results: Path) -> Path | None:
    """The newest results of a benchmark: NAME-DATE.json with the latest date."""
    files = [file for file in results.glob(f"{name}-*.json") if re.fullmatch(f"{name}-[\\d-]+", file.stem)]
    return max(files, default=None, key=lambda file: file.stem)


def markdown(columns: Sequence[str], rows: Mapping[str, Sequence[Cell]], digits: int = 3) -> str:
    """Format a Markdown table. None is left blank, text stays as it is."""
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    lines += [[name, *(shown(value, digits) for value in row)] for name, row in rows.items()]
    return "\n".join("|" + "|".join(f" {cell} ".replace("|", "\\|") for cell in line) + "|" for line in lines)


def shown(value: Cell, digits: int) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.{digits}f}"


def turned(by_contestant: Mapping[str, Mapping[str, Mapping[str, Any]]], key: str, digits: int = 3) -> str:
    """Table of one metric with sets as rows and contestants as columns."""
    sets = list(next(iter(by_contestant.values())))
    rows = {name: [of[name][key] for of in by_contestant.values()] for name in sets}
    return markdown(list(by_contestant), {name: row for name, row in rows.items() if any_number(row)}, digits)


def any_number(row: Sequence[object]) -> bool:
    return any(value is not None for value in row)


def throughput(report: Report) -> str:
    columns = ["passages/s", "tokens/s", "× upstream"]
    keys = ("passages_per_second", "tokens_per_second", "times_upstream")
    rows = {name: [format_speed(of[key]) for key in keys] for name, of in report["results"].items()}
    return markdown(columns, rows)


def format_speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"


def peers(report: Report) -> str:
    keys = ("passages_per_second", "tokens_per_second", "times_upstream")
    told = {
        name: [*(format_speed(of[key]) for key in keys), f"{of['share_of_peak']:.0%}"]
        for name, of in report["races"]["mixed"].items()
    }
    others = {name: rows for name, rows in report["races"].items() if name != "mixed"}
    by_race = {
        name: [format_speed(rows[name]["passages_per_second"]) for rows in others.values()]
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


def label_costs(report: Report) -> str:
    medians = report["seconds a text"]
    cells = next(iter(medians.values()))
    columns = list(medians)
    milliseconds = {cell: [1000 * row[cell] for row in medians.values()] for cell in cells}
    times = markdown(columns, ratios(medians), digits=1)
    return f"{markdown(columns, milliseconds, digits=0)}\n\nTimes the cost of the fewest:\n\n{times}"


def scale(report: Report) -> str:
    columns = ["seconds", "passages/s", "peak MiB", "beyond the strings"]
    keys = ("seconds", "passages_per_second", "peak", "peak_beyond_strings")
    parts = []
    for axis, results in report["axes"].items():
        rows: dict[str, list[Cell]] = {
            f"{axis}: {row['point'][axis]:,}": [format_speed(row[key]) for key in keys] for row in results
        }
        parts.append(markdown(columns, rows))
    return "\n\n".join(parts)


def stages(report: Report) -> str:
    whole = report["seconds"]
    rows = {stage: [1000 * taken, 100 * taken / whole] for stage, taken in report["stages"].items()}
    return markdown(["ms", "% of all"], rows | {"all": [1000 * whole, 100.0]}, digits=1)


def int8(report: Report) -> str:
    columns = list(next(iter(report["differences"].values())))
    return markdown(columns, {name: list(row.values()) for name, row in report["differences"].items()}, digits=4)


def first_stage_weight(report: Report) -> str:
    shown = {"weight 0": 0.0, f"weight {report['best']:g}, best": report["best"]}
    shown |= {f"weight {report['chosen']:g}, chosen": report["chosen"]}
    rows = {"BM25": report["bm25"]} | {name: report["weights"][str(weight)] for name, weight in shown.items()}
    return markdown(list(report["bm25"]), {name: list(row.values()) for name, row in rows.items()})


def retrieval(report: Report) -> str:
    means = {name: rows["mean"] for name, rows in report["results"].items()}
    columns = list(next(iter(means.values())))
    return turned(report["results"], "ndcg@10") + "\n\nMeans over the sets:\n\n" + markdown(columns, values(means))


def load(report: Report) -> str:
    columns = ["answered a second", "p50 ms", "p90 ms", "p99 ms", "answers by status"]
    rows: dict[str, list[Cell]] = {}
    for step in report["steps"]:
        statuses = ", ".join(f"{status}: {count}" for status, count in step["statuses"].items())
        offered = "always busy" if step["offered"] is None else f"{step['offered']:.1f} a second"
        rows[offered] = [step["answered"], *(f"{step[key]:,.0f}" for key in ("p50", "p90", "p99")), statuses]
    return markdown(columns, rows, digits=1)


def service(report: Report) -> str:
    busy, overload = report["busy"], report["overload"]
    rows: dict[str, list[Cell]] = {
        "ms that HTTP adds to a call": [report["alone"]["added"]],
        f"passages a second of {report['callers']} callers, of those in process": [busy["ratio"]],
        "p99 of accepted requests in overload, times that of the callers": [overload["times_busy"]],
        "memory gained in overload, MB": [overload["rss_after"] - overload["rss_before"]],
    }
    return markdown(["median"], rows, digits=2)


def values(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Cell]]:
    return {name: list(row.values()) for name, row in rows.items()}


def frameworks(report: Report) -> str:
    return markdown(list(next(iter(report["means"].values()))), values(report["means"]))


def route_examples(report: Report) -> str:
    return markdown(list(next(iter(report["accuracy"].values()))), values(report["accuracy"]))


def label_order(report: Report) -> str:
    rows = {name: {**row, "labels": f"{row['labels']:.0f}"} for name, row in report["orders"].items()}
    return markdown(list(next(iter(rows.values()))), values(rows))


def quality(report: Report) -> str:
    """Mean nDCG@10 of each contestant of the retrieval benchmark, in one row."""
    means = {name: rows["mean"]["ndcg@10"] for name, rows in report["results"].items()}
    queries = sum(one["queries"] for one in report["sets"].values())
    columns = [CONTESTANTS.get(name, name) for name in means]
    return markdown(columns, {f"nDCG@10, {queries} queries": list(means.values())})


def speed(report: Report) -> str:
    """Passages a second of each reranker, from its slowest settings of the race to its fastest, in one row."""
    rates: dict[str, list[float]] = {}
    for name, of in report["races"]["mixed"].items():
        rates.setdefault(re.sub(r", (batch|budget) \d+$", "", name), []).append(of["passages_per_second"])
    cells = ["–".join(dict.fromkeys(f"{rate:.0f}" for rate in (min(rates[name]), max(rates[name])))) for name in RACERS]
    return markdown(list(RACERS.values()), {"passages/s": cells})


# Contestants and racers of the README, by their names in the results.
CONTESTANTS = {
    "all-MiniLM-L6-v2": "all-MiniLM-L6-v2 vectors",
    "hybrid": "both, rank fusion",
    "mini": "`mini` alone",
    "mini + BM25": "**`mini` with BM25's scores**",
}
RACERS = {
    "ours, ONNX int8": "**gliclass-rerank** int8",
    "sentence-transformers, openvino": "sentence-transformers OpenVINO",
    "sentence-transformers, onnx int8": "sentence-transformers ONNX int8",
    "FlashRank, int8": "FlashRank int8",
    "fastembed, int8": "fastembed int8",
    "sentence-transformers, torch": "sentence-transformers torch",
    "upstream": "GLiClass pipeline",
}

TABLES: dict[str, Callable[[Report], str]] = {
    "throughput": throughput,
    "peers": peers,
    "stages": stages,
    "labels": label_costs,
    "scale": scale,
    "int8": int8,
    "first-stage-weight": first_stage_weight,
    "retrieval": retrieval,
    "fact-check": lambda report: turned(report["results"], "balanced_accuracy"),
    "routing": lambda report: turned(report["results"], "accuracy"),
    "zero-shot": lambda report: turned(report["results"], "macro_f1"),
    "route-examples": route_examples,
    "frameworks": frameworks,
    "label-order": label_order,
    "load": load,
    "service": service,
}
SUMMARIES: dict[str, tuple[str, Callable[[Report], str]]] = {
    "quality": ("retrieval", quality),
    "speed": ("peers", speed),
}


if __name__ == "__main__":
    main()
