"""Real clients of decisions: jevcompat finds nothing wrong, and all others get the library's probabilities."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from asked import asked
from conftest import Scorers
from environments import python_of
from gliclass_rerank_service import Settings, create_app
from matrix import Judge, table
from pydantic import SecretStr
from services import LOCAL
from serving import ROOT, running

from gliclass_rerank import Reranker, Scorer

KEY = "sk-conformance"
MUST, ALL = 32, 46  # of 48 requirements; jevcompat tests two only where the service refuses other models
AGAIN, LIMITED = "tries again", "RateLimitError"


@pytest.fixture(scope="module")
def their_python() -> Path:
    try:
        return python_of("decisions", ROOT / "build" / "conformance")
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        pytest.skip("cannot install the clients")


@pytest.fixture(scope="module")
def scorer(scorers: Scorers) -> Scorer:
    return scorers("bert-simple")


@pytest.fixture(scope="module")
def urls(scorer: Scorer) -> Iterator[tuple[str, str]]:
    """A service with a key, and one that takes one request at a time."""
    with ExitStack() as stack:
        each = (Settings(api_keys=(SecretStr(KEY),)), Settings(max_concurrent_requests=1))
        locked, single = (stack.enter_context(running(create_app(scorer, settings))) for settings in each)
        yield locked, single


@pytest.mark.clients
@pytest.mark.long
@pytest.mark.timeout(1800)  # the environment is made here
@pytest.mark.parametrize(
    ("script", "calls", "busy"),
    [
        ("decisions_systemone", "/v1/systemone", [AGAIN, "ModelRateLimitError", AGAIN, LIMITED]),
        ("decisions_openai", "/v1/decisions", [AGAIN, AGAIN, AGAIN, LIMITED]),
    ],
)
def test_clients_of_decisions_get_the_librarys_probabilities(
    their_python: Path, scorer: Scorer, urls: tuple[str, str], script: str, calls: str, busy: list[str]
) -> None:
    locked, single = urls
    done = subprocess.run(
        [their_python, ROOT / "tests" / "conformance" / "clients" / f"{script}.py", locked, KEY, single],
        input=json.dumps(asked()),
        env=os.environ | LOCAL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    judge = Judge(Reranker(scorer))
    rows = [judge.row(json.loads(line)) for line in done.stdout.splitlines()]
    assert {row.client: row.problems for row in rows if row.problems} == {}
    assert all(calls in row.calls and row.kind == "decisions" for row in rows)
    assert [row.refusals["busy"] for row in rows] == busy
    assert all(row.refusals["wrong key"].endswith("AuthenticationError") for row in rows)
    assert "received the library's probabilities" in table(rows, "2026-11-30")


@pytest.mark.clients
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_jevcompat_finds_nothing_wrong(their_python: Path, urls: tuple[str, str]) -> None:
    command: list[str | Path] = [their_python.with_name("jevcompat"), "test", urls[0], "--key", KEY]
    done = subprocess.run(command, env=os.environ | LOCAL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"MUST {MUST}/{MUST}, SHOULD {ALL - MUST}/{ALL - MUST}" in done.stdout
