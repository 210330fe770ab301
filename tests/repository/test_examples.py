"""The worked examples run as a reader runs them, offline, and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs_mini

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMISED = {
    "rerank.py": "with the first stage's scores:",
    "route.py": "fitted on 12 questions",
    "check.py": "supported: ",
    "classify.py": "exactly one: technology",
    "langgraph_router.py": "checked by 2 of what was found",
}
# With parts of others, which warn, over a collection: most of a minute each.
PIPELINES = {
    "llama_index_rag.py": "'house' fits the query",
    "langchain_rag.py": "-> 30 days a year.",
}
SHARED = {"collection.py"}  # imported by these


@needs_mini
@pytest.mark.parametrize("name", sorted(PROMISED))
def test_example_runs(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert PROMISED[name] in ended.stdout


@needs_mini
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_pipeline_runs(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, check=False, timeout=280
    )
    assert ended.returncode == 0, ended.stderr
    assert PIPELINES[name] in ended.stdout
    assert "not_enough_info" in ended.stdout  # the sentence that was made up


@needs_mini
def test_the_readmes_python_runs() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "Berlin, the German capital" in ended.stdout.splitlines()[0]


def test_every_example_is_run() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == {*PROMISED, *PIPELINES, *SHARED}
