"""Measure the coherence of decisions with jevbench, through the service.

    gliclass-rerank bench coherence [--model mini --model FOLDER]
    gliclass-rerank bench coherence --groups BAT.isolation --no-write    # a part of the suite

The suite jevbench-mini asks questions again in other words, with other options, or beside other questions. It has no
true answers: a score is the share of tests whose probabilities agree within 0.05. REP is representation, BAT the
independence of other questions, MEA probability measure, LOG logic and CHO the set of options. jevbench runs in an
environment of its own, in build/coherence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib.report import header, load_models, table
from benchmarks.lib.results import RESULTS, write
from benchmarks.service.local_service import local_service
from benchmarks.speed.peer_processes import environment
from gliclass_rerank import ModelInfo
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.load import usable_cores

REQUIREMENTS = ("jevbench==0.1.0",)
PATIENCE = 180  # seconds of a request, as long as jevbench waits
HOME = Path(__file__).parents[2] / "build" / "coherence"


def main() -> None:
    options = parse_options()
    python = environment(HOME, REQUIREMENTS)
    scorers = load_models(options.model, options.threads)
    named = zip(scorers, options.model, strict=True)
    selected = ["--suite", options.suite, *(["--groups", options.groups] if options.groups else []), "--no-cache"]
    reports = {name: judged(python, model, scorers[name].info, selected, options.threads) for name, model in named}
    results = {name: scores_of(found) for name, found in reports.items()}
    columns = list(next(iter(results.values())))
    print_table(table("Coherence, % of tests", columns, {name: percent(row) for name, row in results.items()}, 1))
    if options.no_write:
        return
    report = header(scorers) | {"threads": options.threads, "jevbench": list(REQUIREMENTS)}
    report["suites"] = {name: suite_of(found) for name, found in reports.items()}
    report["intervals"] = {name: found["scores"]["ci"].get("overall") for name, found in reports.items()}
    report["groups"] = {name: found["scores"]["groups"] for name, found in reports.items()}
    write(report | {"results": results}, "coherence", options.out)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be repeated; mini by default")
    parser.add_argument("--suite", default="jevbench-mini", help="jevbench-mini by default")
    parser.add_argument("--groups", help="comma-separated groups of tests; all by default")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the service; all cores by default")
    parser.add_argument("--no-write", action="store_true", help="write no files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    options.model = options.model or ["mini"]
    return options


def judged(python: Path, model: str, info: ModelInfo, options: Sequence[str], threads: int) -> dict[str, Any]:
    """Jevbench's report on a model behind the service. Exits with its output if it cannot judge."""
    serving = ["--threads", str(threads), "--timeout-seconds", str(PATIENCE)]
    with tempfile.TemporaryDirectory() as folder, local_service(model, serving) as service:
        file = Path(folder) / "report.json"
        asked = ["--url", f"{service.url}/v1/systemone", "--model", info.name, "--revision", info.revision]
        command: list[str | Path] = [python, "-m", "jevbench", "eval", *asked, *options, "--out", file]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"jevbench failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return found


def scores_of(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Shares of tests that hold, in [0, 1]: of each dimension, and their mean. A part of the suite may have no mean."""
    scores = found["scores"]
    return {"overall": scores["overall"], **scores["pillars"]}


def percent(row: Mapping[str, float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in row.values()]


def suite_of(found: Mapping[str, Any]) -> dict[str, object]:
    """What was asked."""
    suite, scores = found["result"]["suite"], found["scores"]
    return {
        "name": suite["name"], "version": suite["version"], "cases": scores["n_cases"], "tests": scores["n_outcomes"]
    }  # fmt: skip


if __name__ == "__main__":
    main()
