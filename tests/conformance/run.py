"""Call the real service with the real clients and compare their results with the library in this process.

    python tests/conformance/run.py [--write | --table] [ENVIRONMENT ...]

The environments of the clients are created once, below build/conformance. ``--write`` needs all environments. It stores
the results in matrix.json beside this file and in the table of docs/service.md. Without it, the results are compared
with both files. ``--table`` calls no client and makes the table from matrix.json. The exit status is 1 if a client
fails, or if its results differ from the files. Clients that ask for vectors are left out while the model gives none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from asked import asked
from environments import ENVIRONMENTS, python_of
from matrix import Judge, Row, is_in, is_saved, put_into, save, saved_table, table
from services import LOCAL, ROOT, service

import gliclass_rerank
from gliclass_rerank import Reranker, load_scorer

HERE = Path(__file__).parent
MATRIX = HERE / "matrix.json"
PAGE = ROOT / "docs" / "service.md"
BUILD = ROOT / "build" / "conformance"
KEY = "sk-conformance"
PATIENCE = 900.0  # seconds of one script


def main() -> None:
    """Run the clients of the given environments, by default of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="*", metavar="ENVIRONMENT", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--write", action="store_true", help="write matrix.json and the table of docs/service.md")
    parser.add_argument("--table", action="store_true", help="write the table alone, from matrix.json")
    options = parser.parse_args()
    if options.table:
        write_table(saved_table(MATRIX))
        return
    names = options.environments or list(ENVIRONMENTS)
    if unknown := set(names) - set(ENVIRONMENTS):
        parser.error(f"expected some of {', '.join(ENVIRONMENTS)}, got {', '.join(unknown)}")
    if options.write and set(names) != set(ENVIRONMENTS):
        parser.error("--write needs all environments, or the table would lose rows")
    reranker = Reranker("mini")
    left_out = [] if reranker.scorer.info.embeds else [name for name in names if ENVIRONMENTS[name].vectors]
    sys.stdout.writelines(f"left out: {name}; {reranker.scorer.info.name} gives no vectors\n" for name in left_out)
    pythons = {name: python_of(name, BUILD) for name in names if name not in left_out}
    judge, rows = Judge(reranker), []
    for report in reports(pythons):
        rows.append(judge.row(report))
        tell(rows[-1])
    if any(row.problems for row in rows):
        sys.exit(1)
    if options.write:
        write(rows)
    elif len(names) == len(ENVIRONMENTS) and not is_saved(MATRIX, rows):
        sys.exit(f"{MATRIX.name} has other results; run `make conformance`")
    elif not is_in(PAGE, saved_table(MATRIX)):
        sys.exit(f"the table in {PAGE.name} differs from {MATRIX.name}; run this with --table")


def reports(pythons: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Yield the reports of the scripts, one for each client."""
    with ExitStack() as running:
        locked = running.enter_context(service(BUILD / "locked.log", {"api_key": KEY}))
        single = running.enter_context(service(BUILD / "single.log", {"max_concurrent_requests": "1"}))
        for name, python in pythons.items():
            for script in ENVIRONMENTS[name].scripts:
                yield from run_script(python, script, (locked, KEY, single))


def run_script(python: Path, script: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Run a script in its environment; a failure becomes a report with a problem."""
    done = subprocess.run(
        [python, HERE / "clients" / f"{script}.py", *arguments],
        input=json.dumps(asked()),
        env=os.environ | LOCAL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    found: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        failed = {"client": script, "versions": {}, "setup": "", "calls": [], "rankings": {}, "refusals": {}}
        found.append(failed | {"problems": [f"the script failed:\n{done.stderr[-2000:]}"]})
    return found


def tell(row: Row) -> None:
    """Print the result of a client."""
    sys.stdout.write(f"{'fails' if row.problems else 'works'}  {row.client}  {', '.join(row.calls)}\n")
    sys.stdout.writelines(f"    {problem}\n" for problem in row.problems)
    sys.stdout.flush()


def write(rows: Sequence[Row]) -> None:
    """Write the results to matrix.json and to the page."""
    info, date = load_scorer("mini").info, datetime.now(timezone.utc).date().isoformat()
    about = {"date": date, "gliclass_rerank": gliclass_rerank.__version__, "model": f"{info.name} {info.revision}"}
    save(MATRIX, rows, about | {"python": platform.python_version()})
    write_table(table(rows, date))


def write_table(text: str) -> None:
    """Put a table into the page, or print it if the page has no marks."""
    if not put_into(PAGE, text):
        sys.stdout.write(f"{PAGE.name} has no marks for the table:\n\n{text}\n")


if __name__ == "__main__":
    main()
