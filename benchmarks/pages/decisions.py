"""Tables of decisions: quality, coherence, cost of questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.pages.markdown import Cell, markdown, with_interval

Report = Mapping[str, Any]
MEASURES = {"accuracy": "accuracy", "brier": "Brier score", "ece": "calibration error"}
DIMENSIONS = {
    "overall": "all",
    "REP": "other words or order",
    "BAT": "other questions beside it",
    "MEA": "sums of probabilities",
    "LOG": "implications",
    "CHO": "other options",
}


def decisions(report: Report) -> str:
    """Accuracy by set, and the means of all measures."""
    results, ends = report["results"], report["intervals"]
    rows: dict[str, list[Cell]] = {
        f"{name}, {one['type']} of {one['options']}": [
            with_interval(results[of][name]["accuracy"], ends[of][name]["accuracy"]) for of in results
        ]
        for name, one in report["sets"].items()
    }
    means: dict[str, list[Cell]] = {
        name: [with_interval(rows_of["mean"][key], ends[name]["mean"][key]) for key in MEASURES]
        for name, rows_of in results.items()
    }
    told = f"{sum(one['questions'] for one in report['sets'].values()):,} questions. Intervals are of 95%."
    first = markdown(list(results), rows, corner="accuracy")
    return f"{first}\n\n{markdown(list(MEASURES.values()), means, corner='means over the sets')}\n\n{told}"


def coherence(report: Report) -> str:
    """Shares of the tests of jevbench that hold."""
    rows: dict[str, list[Cell]] = {
        name: [None if row[key] is None else f"{row[key]:.0%}" for key in DIMENSIONS]
        for name, row in report["results"].items()
    }
    suite = next(iter(report["suites"].values()))
    told = f"{suite['tests']:,} tests of {suite['cases']} cases, {report['jevbench'][0]}, {suite['name']}."
    return f"{markdown(list(DIMENSIONS.values()), rows, corner='tests that hold')}\n\n{told}"


def cost(report: Report) -> str:
    """Milliseconds of one decision by number of questions, and how many times one question many cost."""
    counts = [key for key in next(iter(report["results"].values())) if key.endswith("ms")]
    rows: dict[str, list[Cell]] = {
        name: [
            *(f"{row[key]:.0f}" for key in counts),
            f"{row['16 of 1']:.1f} ({row['least']:.1f} to {row['most']:.1f})",
        ]
        for name, row in report["results"].items()
    }
    told = (
        f"Processor time on one thread. A state of {report['tokens of the state']} tokens, {report['options']} options."
    )
    return f"{markdown([*counts, '16 of 1'], rows)}\n\n{told}"
