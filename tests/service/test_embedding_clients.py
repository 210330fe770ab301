"""OpenAI's client and LlamaIndex's of TEI, put through what `make conformance` puts them through."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from asked import DOCUMENTS, QUERY
from checkpoints import build_independent
from environments import ENVIRONMENTS, python_of
from gliclass_rerank_service import Settings, create_app
from matrix import Judge, table
from pydantic import SecretStr
from services import LOCAL
from serving import ROOT, running

from gliclass_rerank import Reranker, load_scorer

KEY = "sk-conformance"


@pytest.fixture(scope="module")
def their_python() -> Path:
    try:
        return python_of("embeddings", ROOT / "build" / "conformance")
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        pytest.skip("cannot install the clients")


@pytest.mark.clients
@pytest.mark.long
@pytest.mark.timeout(900)  # the environment is made here
def test_clients_of_embeddings_get_the_librarys_vectors(their_python: Path, tmp_path: Path) -> None:
    scorer = load_scorer(build_independent(tmp_path))
    with ExitStack() as stack:
        locked, single = (
            stack.enter_context(running(create_app(scorer, settings)))
            for settings in (Settings(api_keys=(SecretStr(KEY),)), Settings(max_concurrent_requests=1))
        )
        (script,) = ENVIRONMENTS["embeddings"].scripts
        done = subprocess.run(
            [their_python, ROOT / "tests" / "conformance" / "clients" / f"{script}.py", locked, KEY, single],
            input=json.dumps({"query": QUERY, "documents": DOCUMENTS}),
            env=os.environ | LOCAL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    judge = Judge(Reranker(scorer))
    rows = [judge.row(json.loads(line)) for line in done.stdout.splitlines()]
    assert [(row.problems, row.calls) for row in rows] == [([], ["/v1/embeddings"]), ([], ["/embed"])]
    assert [row.refusals["busy"] for row in rows] == ["tries again", "KeyError"]
    assert rows[0].rankings == ["all", "top 3", "float", "busy"]
    assert "received the library's vectors" in table(rows, "2026-11-30")
