"""Put the tables of results into benchmarks/README.md and README.md.

    python -m benchmarks.pages.readme            # fails if a file differs from the results, and names it
    python -m benchmarks.pages.readme --write    # updates the tables

A table stands between two comments with its name in TABLES, `<!-- labels -->` and `<!-- /labels -->`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from benchmarks.lib.results import RESULTS
from benchmarks.pages.tables import TABLES, table

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "benchmarks/README.md", ROOT / "README.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into the files")
    options = parser.parse_args()
    old = {file: file.read_text("utf-8") for file in FILES}
    new = {file: filled(text, links_of(file)) for file, text in old.items()}
    for file in (file for file in FILES if new[file] != old[file]):
        print(f"{file.relative_to(ROOT)}: {'written' if options.write else 'differs from its results'}")
        if options.write:
            file.write_text(new[file], "utf-8")
    if not options.write and new != old:
        raise SystemExit("run: python -m benchmarks.pages.readme --write")


def links_of(file: Path) -> str:
    """Relative path of the results for links in ``file``."""
    return RESULTS.relative_to(file.parent).as_posix()


def filled(text: str, links: str, folder: Path = RESULTS) -> str:
    """Replace each table of TABLES between its two comments in a text."""
    for name in TABLES:
        old = re.search(f"<!-- {name} -->\n.*?<!-- /{name} -->", text, re.DOTALL)
        if old:
            new = f"<!-- {name} -->\n{table(name, links, folder)}<!-- /{name} -->"
            text = text[: old.start()] + new + text[old.end() :]
    return text


if __name__ == "__main__":
    main()
