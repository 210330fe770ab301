"""Memory stays within a fixed budget, whatever comes in."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import pytest
from conftest import Exported
from fakes import OverlapScorer

from gliclass_rerank import Reranker

GROWTH = """
import json, resource, sys
from gliclass_rerank import ScoreRequest, load_scorer

folder, backend, few, many = sys.argv[1:]
scorer = load_scorer(folder, backend=backend, threads=2)
requests = [ScoreRequest("science and politics " * 40, ("law",))] * int(many)  # one string: what grows is ours

def peak(count):
    assert len(scorer.score(requests[:count])) == count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

print(json.dumps([peak(int(few)), peak(int(many))]))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("backend", "few", "many"),
    [("onnx", 1_000, 10_000), ("torch", 500, 3_000)],
)
def test_many_passages_take_no_more_memory_than_some(exported: Exported, backend: str, few: int, many: int) -> None:
    """Passages of about 120 tokens; for mini and 512 tokens see benchmarks/speed/scale.py."""
    command = [sys.executable, "-c", GROWTH, str(exported("bert-average-text")), backend, str(few), str(many)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout)
    assert large - small < 64  # MB


def test_a_ranking_keeps_little_more_than_its_results() -> None:
    """Of 100,000 passages their results alone are 25 MB; requests and arrays for each would be five times that."""
    reranker, passages = Reranker(OverlapScorer(window=9)), ["a passage"] * 20_000

    def peak(count: int) -> int:
        tracemalloc.start()
        assert len(reranker.rank("a query", passages[:count])) == count
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert (peak(20_000) - peak(10_000)) / 10_000 < 450  # bytes a passage
