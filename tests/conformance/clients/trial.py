"""What every client is put through. Its script says how its users call it, and what they see when it is refused.

Standard library only, since it runs in the environment of each client.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 60.0  # seconds
TOP_N = 3
RESPONSES = "gliclass_rerank_responses_total"
HELD = b'{"query": "a", "documents": ["b"]}'  # what keeps a service busy while its end is not sent


@dataclass(frozen=True)
class Call:
    """What a script is to ask: `top_n` None for all documents, `key` None for a service that wants none.

    Attributes:
        query: a query, or the state of questions.
        questions: in the form of `/v1/systemone`; none for rankings and vectors.
    """

    url: str
    key: str | None
    query: str
    documents: Sequence[str]
    top_n: int | None = None
    questions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """What the client gave back of one document; `spans` are (start, end, score) where they were asked for.

    Of a decision, the score is the probability of one possible answer.
    """

    index: int
    score: float
    text: str | None = None
    spans: Sequence[tuple[int, int, float]] | None = None


Rank = Callable[[Call], list[Hit]]
Body = dict[str, Any]


def hits(scores: Sequence[float]) -> list[Hit]:
    """Scores in their order."""
    return [Hit(i, score) for i, score in enumerate(scores)]


def body_of(call: Call) -> Body:
    """State and questions, in the form of `/v1/systemone`."""
    return {"state": call.query, "questions": dict(call.questions)}


@dataclass(frozen=True)
class Client:
    """A client, as its users know it.

    Attributes:
        packages: distributions whose versions count; none for plain requests.
        setup: what its users write, with URL for the service's.
        also: further ways to ask by name, whose rankings must be the same.
        wrong_key: what it raises for a key that is not known; None if it sends no key.
        empty_query: what it raises for a query without text; None if it cannot send one.
        busy: what it raises when it is told to come again later; None if it comes again by itself.
        kind: "ranking", or "vectors" for cosines of the query and the documents, in the order of the documents, or
            "decisions" for the probabilities of all possible answers, question by question.
        refused: status for a query without text.
        asked: what the client makes of the state and the questions.
    """

    name: str
    packages: Sequence[str]
    setup: str
    rank: Rank
    wrong_key: type[Exception] | None
    empty_query: type[Exception] | None
    busy: type[Exception] | None = None
    also: Mapping[str, Rank] = field(default_factory=dict)
    kind: str = "ranking"
    refused: int = 422
    asked: Callable[[Call], Body] = body_of


@dataclass
class Report:
    """What was found; one line of JSON for the runner."""

    client: str
    versions: dict[str, str]
    setup: str
    calls: list[str] = field(default_factory=list)
    rankings: dict[str, list[Hit]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    kind: str = "ranking"
    asked: Body | None = None


def conduct(*clients: Client) -> None:
    """Try clients; the arguments are a service's URL, its key, and the URL of one that takes one request at a time."""
    url, key, open_url = sys.argv[1:]
    asked = json.load(sys.stdin)
    for client in clients:
        home, shown = (url, key) if client.wrong_key else (open_url, None)
        call = Call(home, shown, query=asked["query"], documents=asked["documents"])
        if client.kind == "decisions":
            call = Call(home, shown, query=asked["state"], documents=(), questions=asked["questions"])
        with redirect_stdout(sys.stderr):  # some clients print
            report = _try(client, call, open_url)
        sys.stdout.write(json.dumps(asdict(report)) + "\n")
        sys.stdout.flush()


def _try(client: Client, call: Call, open_url: str) -> Report:
    report = Report(client.name, {name: version(name) for name in client.packages}, client.setup, kind=client.kind)
    before = _responses(call.url)
    report.rankings["all"] = client.rank(call)
    if client.kind == "decisions":
        report.asked = client.asked(call)
    else:
        report.rankings[f"top {TOP_N}"] = client.rank(replace(call, top_n=TOP_N))
    report.rankings |= {name: rank(call) for name, rank in client.also.items()}
    report.calls = sorted({route for route, status in _responses(call.url) - before if status == 200})
    if client.wrong_key:
        _expect(report, "wrong key", client.wrong_key, 401, client.rank, replace(call, key="another-key"))
    if client.empty_query:
        _expect(report, "empty query", client.empty_query, client.refused, client.rank, replace(call, query=""))
    busy = replace(call, url=open_url)
    with _occupied(open_url):
        if client.busy:
            _expect(report, "busy", client.busy, 429, client.rank, busy, besides={200})  # of what kept it busy
        else:
            report.rankings["busy"] = client.rank(busy)
            report.refusals["busy"] = "tries again"
    return report


def _expect(
    report: Report,
    case: str,
    expected: type[Exception],
    status: int,
    rank: Rank,
    call: Call,
    besides: AbstractSet[int] = frozenset(),
) -> None:
    """Note what a refusal looks like to the client's user, and whether it is what the script and the status say."""
    before = _responses(call.url)
    try:
        rank(call)
    except Exception as error:
        report.refusals[case] = type(error).__name__
        if type(error).__name__ != expected.__name__:  # Pydantic AI raises private classes of the same name
            report.problems.append(f"{case}: expected {expected.__name__}, got {type(error).__name__}: {error}")
    else:
        report.problems.append(f"{case}: expected {expected.__name__}, and nothing was raised")
    seen = {status for _, status in _responses(call.url) - before}
    if seen - besides != {status}:
        report.problems.append(f"{case}: expected status {status}, the service answered {sorted(seen)}")


def _responses(url: str) -> Counter[tuple[str, int]]:
    """How often the service has answered, by route and status, as its metrics tell."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    counted: Counter[tuple[str, int]] = Counter()
    for line in lines:
        if line.startswith(RESPONSES):
            _, route, _, status, count = line.split('"')
            counted[route, int(status)] = int(float(count.removeprefix("}")))
    return counted


@contextmanager
def _occupied(url: str) -> Iterator[None]:
    """Keep a service that answers one request at a time busy until it has refused another one."""
    address = urlsplit(url)
    head = f"POST /rerank HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((address.hostname, address.port), PATIENCE) as held:
        held.sendall(f"{head}Content-Length: {len(HELD)}\r\nConnection: close\r\n\r\n".encode() + HELD[:-1])
        _wait(lambda: _status(url) == 429)
        refused = _refusals(url)

        def release() -> None:
            _wait(lambda: _refusals(url) > refused)
            held.sendall(HELD[-1:])
            while held.recv(4096):
                pass

        thread = threading.Thread(target=release)
        thread.start()
        yield
        thread.join(PATIENCE)
        assert _refusals(url) > refused, "the service was to be busy, and was not"


def _refusals(url: str) -> int:
    return sum(count for (_, status), count in _responses(url).items() if status == 429)


def _status(url: str) -> int:
    request = urllib.request.Request(f"{url}/rerank", HELD, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def _wait(holds: Callable[[], bool]) -> None:
    ends_by = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends_by, "waited in vain"
        time.sleep(0.02)
