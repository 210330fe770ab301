"""Connection: how often a server is asked, how long it is waited for, and what its failures become. No clock runs."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import InputError, OptionError, ServiceError
from gliclass_rerank.scorers.remote.http_client import CONNECT_SECONDS, MAX_ATTEMPTS, Connection

TIMEOUT = 60.0
Answer = Callable[[httpx.Request], httpx.Response]


class Server:
    """A server on a clock of its own, which runs only while the client waits.

    Attributes:
        now: seconds.
        answers: what each attempt gets, the last one again and again.
        times: when attempts came.
        timeouts: seconds that each attempt was given, by httpx's names.
    """

    def __init__(self, *answers: Answer) -> None:
        self.now = 100.0
        self.answers = list(answers)
        self.times: list[float] = []
        self.timeouts: list[dict[str, float]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times.append(self.now)
        self.timeouts.append(dict(request.extensions["timeout"]))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]

    def connection(self, timeout: float = TIMEOUT, **options: Any) -> Connection:
        return Connection(
            "http://host",
            expected="a service",
            key_variable="NO_SUCH_KEY",
            api_key=None,
            timeout=timeout,
            transport=httpx.MockTransport(self),
            clock=lambda: self.now,
            sleep=self.sleep,
            **options,
        )


def says(status: int, text: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, headers=named, stream=httpx.ByteStream(text.encode()))


def fails(kind: type[httpx.TransportError]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        raise kind("no", request=request)

    return answer


# How often, and how long.


@pytest.mark.parametrize("answer", [says(429), says(503), fails(httpx.ReadError)])
def test_attempts_are_bounded(answer: Answer) -> None:
    server = Server(answer)
    with pytest.raises(ServiceError):
        check(server.connection(1000))
    assert len(server.times) == MAX_ATTEMPTS == 8


@pytest.mark.parametrize("status", [429, 503])
def test_pauses_grow_and_differ_from_client_to_client(status: int) -> None:
    clients = [Server(says(status)) for _ in range(20)]
    for server in clients:
        server.connection(1000).send("GET", "/")
    for attempt, longest in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]):
        pauses = [server.pauses[attempt] for server in clients]
        assert all(longest / 2 - 1e-9 <= pause <= longest + 1e-9 for pause in pauses)
        assert len({round(pause, 9) for pause in pauses}) > 10  # those who failed together do not come back together


def test_a_pause_is_never_shorter_than_the_server_asks_nor_than_the_back_off() -> None:
    server = Server(says(429, retry_after="7"), says(503, retry_after="0"), says(200))
    assert server.connection().send("GET", "/").status_code == 200
    asked, own = server.pauses
    assert asked == pytest.approx(7)
    assert 0.1 <= own <= 0.2


def test_a_date_is_a_time_to_come_again() -> None:
    server = Server(
        lambda _: httpx.Response(
            503, headers={"retry-after": formatdate(time.time() + 4000, usegmt=True)}, stream=httpx.ByteStream(b"")
        ),
        says(200),
    )
    server.connection(10_000).send("GET", "/")
    assert 3000 < server.pauses[0] <= 4000


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after_ms": "2500", "retry_after": "9"}, 2.5),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9),
        ({"retry_after": "1.5"}, 1.5),
    ],
)
def test_a_server_may_ask_for_parts_of_seconds(headers: dict[str, str], seconds: float) -> None:
    server = Server(says(429, **headers), says(200))
    server.connection().send("GET", "/")
    assert server.pauses == pytest.approx([seconds])


def test_the_statuses_that_are_tried_again_can_be_chosen() -> None:
    server = Server(says(500), says(404), says(429))
    assert server.connection(retried=(500,)).send("GET", "/").status_code == 404
    assert server.connection(retried=(500,)).send("GET", "/").status_code == 429
    assert server.connection().send("GET", "/").status_code == 429
    assert len(server.times) == 3 + MAX_ATTEMPTS


@pytest.mark.parametrize("retry_after", ["soon", "-5", "", "Mon, 01 Jan 1990 00:00:00 GMT"])
def test_a_time_that_says_nothing_or_is_over_is_passed_over(retry_after: str) -> None:
    server = Server(says(429, retry_after=retry_after), says(200))
    server.connection().send("GET", "/")
    assert 0.05 <= server.pauses[0] <= 0.1


def test_who_asks_for_more_patience_than_there_is_gets_none() -> None:
    server = Server(says(429, retry_after="61"))
    assert server.connection(60).send("GET", "/").status_code == 429
    assert len(server.times) == 1


def test_each_attempt_has_the_time_that_is_left() -> None:
    server = Server(says(503, retry_after="40"), says(503, retry_after="15"), says(200))
    server.connection(60).send("GET", "/")
    for name in ("read", "write", "pool"):
        assert [given[name] for given in server.timeouts] == pytest.approx([60, 20, 5])
    assert [given["connect"] for given in server.timeouts] == pytest.approx([CONNECT_SECONDS] * 3)


class Drips(httpx.SyncByteStream):
    """A body that comes byte by byte, and how many of them were read."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        self.read = 0

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(1000):
            self._server.now += self._seconds
            self.read += 1
            yield b" "


def test_an_answer_that_drips_is_not_waited_for_beyond_the_timeout() -> None:
    server = Server(says(200))
    body = Drips(server, 0.25)
    server.answers = [lambda _: httpx.Response(200, stream=body)]
    with pytest.raises(ServiceError, match=r"does not answer \(ReadTimeout: the answer comes too slowly; attempt 1"):
        server.connection(5).send("GET", "/")
    assert body.read == 21  # the first one after the deadline
    assert server.connection(1000).send("GET", "/").content == b" " * 1000


# A server that nobody has met.


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout])
def test_nobody_at_the_url_is_told_at_once(kind: type[httpx.TransportError]) -> None:
    server = Server(fails(kind), says(200))
    connection = server.connection()
    with pytest.raises(ServiceError, match=rf"http://host does not answer \({kind.__name__}: no; attempt 1"):
        connection.send("GET", "/")
    assert len(server.times) == 1
    connection.send("GET", "/")  # it runs by now, and if it restarts it is waited for
    server.answers = [fails(kind), fails(kind), says(200)]
    assert connection.send("GET", "/").status_code == 200


def test_one_that_is_loading_its_model_is_waited_for() -> None:
    server = Server(says(503), says(503), says(200))
    assert server.connection().send("GET", "/").status_code == 200


# Failures.


@pytest.mark.parametrize("kind", [httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout, httpx.ProxyError])
def test_what_goes_wrong_on_the_way_is_tried_again(kind: type[httpx.TransportError]) -> None:
    server = Server(fails(kind), says(200))
    assert server.connection().send("GET", "/").status_code == 200
    with pytest.raises(ServiceError, match=kind.__name__):
        Server(fails(kind)).connection().send("GET", "/")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [b"not that at all", gzip.compress(b"x" * 99)[:-30] + b"\0" * 30])
def test_an_answer_that_cannot_be_unpacked_is_a_service_error(encoding: str, body: bytes) -> None:
    server = Server(
        lambda _: httpx.Response(200, headers={"content-encoding": encoding}, stream=httpx.ByteStream(body))
    )
    with pytest.raises(ServiceError, match="http://host gives an answer that cannot be read"):
        server.connection().send("GET", "/")
    assert len(server.times) == 1


@pytest.mark.parametrize("body", [b"", b"{}", "ç🍞".encode() * 9])
def test_an_answer_that_can_is_unpacked(body: bytes) -> None:
    packed = httpx.ByteStream(gzip.compress(body))
    server = Server(lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=packed))
    answer = server.connection().send("GET", "/")
    assert (answer.content, answer.text) == (body, body.decode())


@pytest.mark.parametrize("kind", [httpx.TooManyRedirects, httpx.DecodingError, httpx.RequestError, httpx.InvalidURL])
def test_all_errors_of_httpx_are_service_errors(kind: Any) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise kind("whatever")

    with pytest.raises(ServiceError, match="whatever"):
        Server(answer).connection().send("GET", "/")


def test_a_redirect_says_where_to() -> None:
    connection = Server(says(307, location="https://host/elsewhere")).connection()
    error = connection.refusal(connection.send("GET", "/"))
    assert isinstance(error, ServiceError)
    assert error.status == 307
    assert "pass the URL that it redirects to, 'https://host/elsewhere'" in str(error)
    assert isinstance(connection.refusal(httpx.Response(413)), InputError)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"message": "a"}', "a"),
        ('{"error": {"message": "b", "code": 1}}', "b"),
        ('{"error": "c"}', "c"),
        ('{"detail": "d"}', "d"),
        ('{"detail": {"error_type": "max_tokens_exceeded", "message": "e"}}', "e"),
        ('{"detail": [{"loc": ["body", "state"], "msg": "f"}, {"loc": [], "msg": "g"}]}', "body.state: f; : g"),
        ('{"detail": []}', "Unprocessable Entity"),
        ("not JSON", "Unprocessable Entity"),
    ],
)
def test_the_message_of_a_refusal_is_found(body: str, message: str) -> None:
    connection = Server(says(422, body)).connection()
    assert str(connection.refusal(connection.send("GET", "/"))) == f"http://host refuses this: {message}"


@given(
    st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["xn--", "☃.☃", "[::1]", "[", "a:99999", "\x7f"])
)
def test_a_url_is_one_or_an_option_error(host: str) -> None:
    transport = httpx.MockTransport(says(200))
    try:
        connection = Connection(
            f"http://{host}", expected="", key_variable="NO_SUCH_KEY", api_key=None, timeout=1, transport=transport
        )
    except OptionError:
        return
    assert connection.send("GET", "/").status_code == 200


def check(connection: Connection) -> None:
    """Raise what a scorer raises after a question."""
    answer = connection.send("GET", "/")
    if answer.status_code != 200:
        raise connection.refusal(answer)
