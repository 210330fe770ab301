"""Call the real service with the real clients, and compare what they get with the library in this process.

    python tests/conformance/run.py [--write | --table] [ENVIRONMENT ...]

The environments of the clients are made below build/conformance once. With ``--write`` and all environments, what was
found goes into matrix.json beside this file and into the README; without, it is compared with both. With ``--table``
no client is called: the README's table is made of matrix.json. Exits 1 if a client does not work, or works otherwise
than those files say.
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

from asked import DOCUMENTS, QUERY
from environments import ENVIRONMENTS, python_of
from matrix import Judge, Row, is_in, is_saved, put_into, save, saved_table, table
from services import LOCAL, ROOT, service

import gliclass_rerank
from gliclass_rerank import Reranker, load_scorer

HERE = Path(__file__).parent
MATRIX = HERE / "matrix.json"
README = ROOT / "README.md"
BUILD = ROOT / "build" / "conformance"
KEY = "sk-conformance"
PATIENCE = 900.0  # seconds of one script


def main() -> None:
    """Try the clients of some environments, by default of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="*", metavar="ENVIRONMENT", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--write", action="store_true", help="matrix.json and the README's table")
    parser.add_argument("--table", action="store_true", help="the README's table alone, of matrix.json")
    options = parser.parse_args()
    if options.table:
        write_table(saved_table(MATRIX))
        return
    names = options.environments or list(ENVIRONMENTS)
    if unknown := set(names) - set(ENVIRONMENTS):
        parser.error(f"expected some of {', '.join(ENVIRONMENTS)}, got {', '.join(unknown)}")
    if options.write and set(names) != set(ENVIRONMENTS):
        parser.error("--write wants all environments, or the table would lose rows")
    pythons = {name: python_of(name, BUILD) for name in names}
    judge, rows = Judge(Reranker("mini")), []
    for report in reports(pythons):
        rows.append(judge.row(report))
        tell(rows[-1])
    if any(row.problems for row in rows):
        sys.exit(1)
    if options.write:
        write(rows)
    elif len(names) == len(ENVIRONMENTS) and not is_saved(MATRIX, rows):
        sys.exit(f"{MATRIX.name} tells something else; run `make conformance`")
    elif not is_in(README, saved_table(MATRIX)):
        sys.exit(f"the table in {README.name} is not that of {MATRIX.name}; run this with --table")


def reports(pythons: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """What the scripts write, a client each."""
    with ExitStack() as running:
        locked = running.enter_context(service(BUILD / "locked.log", {"api_key": KEY}))
        single = running.enter_context(service(BUILD / "single.log", {"max_concurrent_requests": "1"}))
        for name, python in pythons.items():
            for script in ENVIRONMENTS[name].scripts:
                yield from run_script(python, script, (locked, KEY, single))


def run_script(python: Path, script: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Run a script in its environment. One that fails leaves a report that says so."""
    done = subprocess.run(
        [python, HERE / "clients" / f"{script}.py", *arguments],
        input=json.dumps({"query": QUERY, "documents": DOCUMENTS}),
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
    """Say how a client did."""
    sys.stdout.write(f"{'fails' if row.problems else 'works'}  {row.client}  {', '.join(row.calls)}\n")
    sys.stdout.writelines(f"    {problem}\n" for problem in row.problems)
    sys.stdout.flush()


def write(rows: Sequence[Row]) -> None:
    """Keep what was found."""
    info, date = load_scorer("mini").info, datetime.now(timezone.utc).date().isoformat()
    about = {"date": date, "gliclass_rerank": gliclass_rerank.__version__, "model": f"{info.name} {info.revision}"}
    save(MATRIX, rows, about | {"python": platform.python_version()})
    write_table(table(rows, date))


def write_table(text: str) -> None:
    """Put a table into the README, or show it where there is no place for it."""
    if not put_into(README, text):
        sys.stdout.write(f"{README.name} has no marks for the table:\n\n{text}\n")


if __name__ == "__main__":
    main()
