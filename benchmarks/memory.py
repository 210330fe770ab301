"""Memory against the number of passages: peak resident size while 1,000 and 10,000 passages of 512 tokens are scored.

    gliclass-rerank bench memory [--counts 1000,10000] [--model mini]

Shows that what scoring needs does not grow with what comes in. Each count runs in a process of its own; the passages
are made before the first measurement, so only the scorer's part is counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import date

import machine
from rich.console import Console
from rich.table import Table

from gliclass_rerank import load_scorer

MEASURE = """
import json, resource, sys
from gliclass_rerank import ScoreRequest, load_scorer
from gliclass_rerank.demo.collection import collect

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

model, count = sys.argv[1], int(sys.argv[2])
scorer = load_scorer(model)
words = " ".join(passage.text for passage in collect()).split()
starts = [i * 97 % (len(words) - 400) for i in range(count)]
requests = [
    ScoreRequest(" ".join(words[i : i + 400]), ("how do I read a file",), long_text="truncate") for i in starts
]
scorer.score(requests[:8])
before = peak()
scorer.score(requests)
print(json.dumps({"before": before, "after": peak()}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1000,10000")
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    runs = []
    table = Table("passages", "before MB", "peak MB", "grown by MB", title="512 tokens a passage")
    for count in map(int, arguments.counts.split(",")):
        command = [sys.executable, "-c", MEASURE, arguments.model, str(count)]
        run = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        runs.append({"passages": count, **run})
        table.add_row(f"{count:,}", *(f"{value:.0f}" for value in (*run.values(), run["after"] - run["before"])))
    Console().print(table)
    machine.RESULTS.mkdir(exist_ok=True)
    out = machine.RESULTS / f"memory-{date.today().isoformat()}.json"
    result = {**machine.describe(load_scorer(arguments.model).info), "tokens": 512, "runs": runs}
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
