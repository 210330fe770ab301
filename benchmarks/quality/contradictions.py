"""Check plain contradictions: claims that differ from their evidence in a negation, number, quantifier or role.

    gliclass-rerank bench contradictions [--model mini]

Each of forty pieces of evidence (contradictions.jsonl) has a claim that contradicts it and one that it supports.
Reported are the contradictions that pass as supported, and the supported claims that do not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.lib.report import header, table
from benchmarks.lib.results import RESULTS, write
from gliclass_rerank import FactChecker, Scorer, load_scorer
from gliclass_rerank.cli.output import print_table

FILE = Path(__file__).with_suffix(".jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    scorer = load_scorer(options.model)
    results = by_kind(scorer)
    columns = ["pairs", "contradictions supported", "supported claims missed"]
    rows = {kind: [float(value) for value in found.values()] for kind, found in results.items()}
    print_table(table("Plain contradictions", columns, rows, digits=0))
    write(header({scorer.info.name: scorer}) | {"results": results}, "contradictions", options.out)


def by_kind(scorer: Scorer) -> dict[str, dict[str, int]]:
    """Of each kind and of all: pairs, contradictions that pass as supported, and supported claims that do not."""
    checker = FactChecker(scorer)
    results: dict[str, dict[str, int]] = {}
    for line in FILE.read_text("utf-8").splitlines():
        pair = json.loads(line)
        for kind in (pair["kind"], "all"):
            found = results.setdefault(kind, {"pairs": 0, "supported": 0, "missed": 0})
            found["pairs"] += 1
            found["supported"] += passes(checker, pair["contradiction"], pair["evidence"])
            found["missed"] += not passes(checker, pair["supported"], pair["evidence"])
    return {kind: results[kind] for kind in sorted(results, key=lambda kind: kind == "all")}


def passes(checker: FactChecker, claim: str, evidence: str) -> bool:
    """Whether a claim of one sentence is supported."""
    return checker.check(claim, evidence).passed


if __name__ == "__main__":
    main()
