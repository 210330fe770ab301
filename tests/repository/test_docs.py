"""Every code block of README.md and docs/ runs as a reader would run it, and the site builds completely and offline.

The blocks of a page run in order and in one empty folder: Python in one namespace, ``bash`` by the shell. A block with
a title (```json title="routes.json") is written to a file of that name. A ``text`` block is the output of the block
before it; numbers may differ by `TOLERANCE`, because int8 rounds differently on other processors. A service answers at
http://localhost:8000 for pages that use it. A block that cannot run gives the reason in a comment before it:
``<!-- not run: needs Docker -->``.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")
pytest.importorskip("langchain_core")
pytest.importorskip("fastapi")
pytest.importorskip("peft")

from conftest import needs_mini
from serving import process

from benchmarks.lib.results import newest_first, read
from gliclass_rerank import load_scorer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text("utf-8") for page in sorted(DOCS.rglob("*.md"))}
TESTED_ELSEWHERE = {"migration.md": "integrations/test_migration.py", "tutorial.md": "repository/test_tutorial.py"}
SERVICE = "http://localhost:8000"
TOLERANCE = 0.02
PATIENCE = 240  # seconds, for one block

# Blocks of the README that are not run here: their first words, and the place that runs them.
README_ELSEWHERE = {
    "pip install --quiet . && gliclass-rerank demo": ".ci/run",
    "from gliclass_rerank_llama_index import": "test_examples.py",
    'pip install --quiet ".[llama-index]"': ".ci/newcomer",
    'pip install --quiet ".[service]" cohere': ".ci/newcomer",
    "python -c '": ".ci/newcomer",
    'pip install --quiet torch==2.13.0 && pip install --quiet ".[train,service]"': ".ci/newcomer",
}
README_PYTHON = "from gliclass_rerank import"
PRINTED = re.compile(r"^print\(.*\)  # (.+)$", re.MULTILINE)

FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n\n?)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"\n]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``why`` is the reason not to run it, if there is one."""

    language: str
    title: str | None
    code: str
    why: str | None


def blocks(text: str) -> list[Block]:
    return [Block(found["language"], found["title"], found["code"], found["why"]) for found in BLOCK.finditer(text)]


OURS = [page for page in PAGES if page not in TESTED_ELSEWHERE and blocks(PAGES[page])]


@pytest.mark.parametrize("page", OURS)
def test_each_block_is_run_or_says_why_not(page: str) -> None:
    found = blocks(PAGES[page])
    assert 2 * len(found) == len(FENCE.findall(PAGES[page]))  # none that the tests overlook
    previous = None
    for block in found:
        runs = block.language in ("python", "bash")
        is_output = block.language == "text" and previous is not None
        assert block.why or block.title or runs or is_output, block.code
        previous = block if runs and not block.why else None


def test_pages_that_are_tested_elsewhere_are() -> None:
    for page, file in TESTED_ELSEWHERE.items():
        assert page in PAGES
        assert page in (ROOT / "tests" / file).read_text("utf-8")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with process() as (_, url):
        yield url


@needs_mini
@pytest.mark.long
@pytest.mark.parametrize("page", OURS)
def test_the_blocks_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    url = request.getfixturevalue("service") if SERVICE in PAGES[page] else SERVICE
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(PAGES[page]):
        code = block.code.replace(SERVICE, url)
        if block.why:
            continue
        if block.title:
            Path(block.title).write_text(code, "utf-8")
        elif block.language == "python":
            with redirect_stdout(io.StringIO()) as out:
                exec(compile(code, page, "exec"), names)  # the page is ours
            printed = out.getvalue()
        elif block.language == "bash":
            printed = shell(code)
        elif block.language == "text":
            assert shape(printed) == shape(code)
            assert numbers(printed) == pytest.approx(numbers(code), abs=TOLERANCE)


def shell(code: str) -> str:
    """Run a script with this interpreter's commands first on PATH, stop its children, and return its output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", code],
        env={**os.environ, "PATH": path, "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as script:
        try:
            printed, complaints = script.communicate(timeout=PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
    assert script.returncode == 0, f"{code}\n{complaints}"
    return printed


def shape(text: str) -> list[str]:
    """Return the lines with their numbers replaced and trailing white space removed."""
    return [NUMBER.sub("#", line).rstrip() for line in text.strip().splitlines()]


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


# The README


def test_each_block_of_the_readme_is_run_somewhere() -> None:
    for block in blocks(README):
        begins = block.code.lstrip()
        assert begins.startswith((README_PYTHON, *README_ELSEWHERE)), begins[:80]


@needs_mini
def test_the_readmes_python_prints_its_comments() -> None:
    (code,) = (block.code for block in blocks(README) if block.code.startswith(README_PYTHON))
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})  # the page is ours
    assert out.getvalue().splitlines() == PRINTED.findall(code)
    assert len(PRINTED.findall(code)) == code.count("print(")


# The site


class External(HTMLParser):
    """Collects the external scripts, styles, fonts, pictures and frames that a page loads; links do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        loads = [given.get("src"), given.get("srcset")]
        if tag == "link" and given.get("rel") != "canonical":
            loads.append(given.get("href"))
        self.found += [url for url in loads if url and re.match(r"(https?:)?//", url.strip())]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site with `mkdocs build --strict`, without a network where the system allows that."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    built = tmp_path_factory.mktemp("site")
    alone = ["unshare", "-rn"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    ended = subprocess.run(
        [*alone, sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(built)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    return built


@pytest.mark.slow
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    assert {page.relative_to(site).with_suffix(".md").as_posix() for page in site.rglob("*.html")} >= set(PAGES)
    for page in site.rglob("*.html"):
        html = page.read_text("utf-8")
        parser = External()
        parser.feed(html)
        assert not parser.found, page
        assert "<!-- insert:" not in html, page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8")), style


@pytest.mark.slow
def test_figures_of_the_site_are_those_of_the_benchmarks(site: Path) -> None:
    newest = newest_first("throughput")[0]
    rate = read(newest)["results"]["ours, ONNX int8"]["passages_per_second"]
    page = (site / "performance.html").read_text("utf-8")
    assert newest.relative_to(ROOT).as_posix() in page
    assert f">{rate:.0f}</td>" in page


@needs_mini
def test_the_pictures_are_of_the_model_that_is_bundled() -> None:
    scores = json.loads((DOCS / "make" / "relevance.json").read_text("utf-8"))
    assert scores["revision"] == load_scorer("mini").info.revision, "run: python -m docs.make.pictures --score"
    shown = {name for text in PAGES.values() for name in re.findall(r"\(images/([\w-]+\.png)\)", text)}
    assert {"calibration.png", "thresholds.png", "reliability.png"} <= shown
