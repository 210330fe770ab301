"""Count the calls of our own Python functions for one request, traced over the whole process.

    gliclass-rerank bench call-trace [--passages 3] [--top 15]

One `POST /rerank` goes through the app as a client's would (ASGI, in this process, after a warm-up request), with
`sys.setprofile` on every thread. A call counts if its code is in `gliclass_rerank` or `gliclass_rerank_service`.
Generators and comprehensions count each time they are entered.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

import gliclass_rerank_service
from fastapi.testclient import TestClient
from gliclass_rerank_service import Settings, create_app
from rich.console import Console
from rich.table import Table

import gliclass_rerank
from gliclass_rerank import load_scorer

OURS = tuple(str(Path(str(package.__file__)).parent) for package in (gliclass_rerank, gliclass_rerank_service))
QUERY = "how do I reset my password?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--passages", type=int, default=3, help="passages in the request")
    parser.add_argument("--top", type=int, default=15, help="number of listed functions, most called first")
    options = parser.parse_args()
    calls = trace(options.model, options.passages)
    table = Table("calls", "function", box=None)
    for name, count in calls.most_common(options.top):
        table.add_row(str(count), name)
    Console().print(table)
    print(f"{calls.total()} calls of {len(calls)} functions for {options.passages} passages")


def trace(model: str, passages: int) -> Counter[str]:
    """Calls of our functions in one request, by module and qualified name."""
    body = {"query": QUERY, "documents": [f"Passage {i}: a new password is sent by mail." for i in range(passages)]}
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            name = getattr(code, "co_qualname", code.co_name)
            calls[f"{frame.f_globals.get('__name__', '')}.{name}"] += 1

    threading.setprofile(count)  # before the app starts its threads
    try:
        with TestClient(create_app(load_scorer(model, threads=1), Settings())) as client:
            client.post("/rerank", json=body).raise_for_status()
            calls.clear()
            client.post("/rerank", json=body).raise_for_status()
            return Counter(calls)
    finally:
        threading.setprofile(None)
        sys.setprofile(None)


if __name__ == "__main__":
    main()
