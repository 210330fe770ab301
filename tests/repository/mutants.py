"""Check that the tests notice what they are for: apply each mutant of mutants.toml alone, and see its tests fail.

    python tests/repository/mutants.py [NAME ...]     # all mutants, or these
    python tests/repository/mutants.py --list         # their names and files

Each mutant is applied in a copy of the files that git knows, so the working tree stays as it is. The named tests first
have to pass without any. Exits with 1 if a mutant survives, is stale, or cannot be judged.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_suffix(".toml")
SECONDS = 300.0  # for the tests of one mutant; one that makes them hang is noticed
FOLDERS = ("src", "integrations", "service")  # imported from the copy, before whatever is installed
PASSED, FAILED = 0, 1  # exit codes of pytest


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong change: in ``file``, ``old`` becomes ``new``. Of ``tests``, pytest's node ids, one has to fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str | None:
        """The source with the change, or None if ``old`` is not in it exactly once."""
        return source.replace(self.old, self.new) if source.count(self.old) == 1 else None


def read_mutants() -> list[Mutant]:
    entries = tomllib.loads(TABLE.read_text("utf-8"))["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the files that git knows, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with TemporaryDirectory(prefix="mutant-") as folder:
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)
        yield Path(folder)


def run_tests(folder: Path, tests: Sequence[str], seconds: float | None = SECONDS) -> tuple[int, str]:
    """Exit code and output of pytest on these tests; `FAILED` if they hang."""
    paths = os.pathsep.join(str(folder / part) for part in FOLDERS)
    # Without .pyc files: they are told apart by size and second, and a mutant may differ in neither.
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return FAILED, f"no end after {seconds:g} s"
    return ended.returncode, ended.stdout + ended.stderr


def judge(mutant: Mutant) -> str:
    """One word about a mutant, and the output of its tests where they could not be run."""
    with copied() as folder:
        file = folder / mutant.file
        source = mutant.applied(file.read_text("utf-8")) if file.is_file() else None
        if source is None:
            return "stale"
        file.write_text(source, "utf-8")
        code, output = run_tests(folder, mutant.tests)
    return {PASSED: "SURVIVED", FAILED: "killed"}.get(code) or f"ERROR: pytest exits with {code}\n{output}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants; all by default")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="mutants judged at a time; 2 by default")
    given = parser.parse_args()
    mutants = read_mutants()
    if unknown := set(given.names) - {mutant.name for mutant in mutants}:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}; --list shows them")
    chosen = [mutant for mutant in mutants if not given.names or mutant.name in given.names]
    if given.list:
        sys.stdout.writelines(f"{mutant.name:40} {mutant.file}\n" for mutant in chosen)
        return 0
    with copied() as folder:
        tests = dict.fromkeys(test for mutant in chosen for test in mutant.tests)
        code, output = run_tests(folder, list(tests), seconds=None)
    if code != PASSED:
        sys.stdout.write(f"{output}\nThese tests have to pass before mutants can be judged.\n")
        return 1
    with ThreadPoolExecutor(given.jobs) as pool:
        bad = 0
        for mutant, verdict in zip(chosen, pool.map(judge, chosen), strict=True):
            sys.stdout.write(f"{mutant.name:40} {verdict}\n")
            sys.stdout.flush()
            bad += verdict != "killed"
    sys.stdout.write(f"{len(chosen) - bad} of {len(chosen)} killed\n")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
