"""MkDocs hook that inserts tables, settings and other files into the pages.

A page has `<!-- insert: NAME -->` on a line of its own. NAME is a table of benchmarks/pages/tables.py or a key of
`INSERTS`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from gliclass_rerank_service.settings import PREFIX, Settings
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # MkDocs imports this file from its own folder

from benchmarks.pages.markdown import Cell, markdown  # noqa: E402
from benchmarks.pages.tables import TABLES, table  # noqa: E402

RELEVANCE = Path(__file__).parent / "relevance.json"
PLACE = re.compile(r"^<!-- insert: ([\w-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the marks of a page. MkDocs calls this before it reads the page."""
    return filled(markdown)


def filled(text: str) -> str:
    """Replace the marks in a text."""
    return PLACE.sub(lambda place: table(place[1]).rstrip() if place[1] in TABLES else INSERTS[place[1]](), text)


def thresholds() -> str:
    """Precision and recall by threshold, from the scores behind the pictures."""
    report = json.loads(RELEVANCE.read_text("utf-8"))
    shares = report["shares"]
    answers = sum(share["answers"] for share in shares)
    rows: dict[str, list[Cell]] = {}
    for bound in (0.05, 0.1, 0.2, 0.3, 0.5):
        kept = [share for share in shares if share["lower"] >= bound - 1e-9]
        right, every = (sum(share[key] for share in kept) for key in ("answers", "others"))
        a_question = f"{(right + every) / report['questions']:.1f}"
        rows[f"{bound:g}"] = [a_question, right / (right + every), right / answers]
    columns = [f"kept of {report['passages of a question']} a question", "precision", "recall"]
    return markdown(columns, rows, digits=2, corner="threshold")


def calibration() -> str:
    """Calibration error before and after a fit, on questions outside the fit."""
    report = json.loads(RELEVANCE.read_text("utf-8"))
    return markdown(
        ["expected calibration error"], {name: [half["ece"]] for name, half in report["other half"].items()}
    )


def settings() -> str:
    """Settings of the service by environment variable."""
    rows: dict[str, list[Cell]] = {}
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, (), "") else f"`{field.default}`"
        rows[f"`{PREFIX}{name.upper()}`"] = [default, field.description]
    return markdown(["default", ""], rows, corner="variable", align="---")


def file(name: str) -> Callable[[], str]:
    """Return a reader of a whole Markdown file of the repository."""
    return lambda: (ROOT / name).read_text("utf-8")


INSERTS: Mapping[str, Callable[[], str]] = {
    "thresholds": thresholds,
    "calibration": calibration,
    "settings": settings,
    "changelog": file("CHANGELOG.md"),
    "model-card": file("src/gliclass_rerank/bundled/mini/MODEL_CARD.md"),
}
