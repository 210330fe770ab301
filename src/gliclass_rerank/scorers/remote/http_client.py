"""HTTP client of all remote scorers: address, key, retries, and error messages."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gliclass_rerank.errors import InputError, LabelTooLongError, MissingExtraError, OptionError, ServiceError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.validation import check_number

if TYPE_CHECKING:
    import httpx

MAX_ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between attempts without a Retry-After
CONNECT_SECONDS = 5.0  # limit of connecting, which takes a fraction of a second to a distant server
RETRIED = (429, 503)
BUSY = (408, *RETRIED, 529)
REFUSED_INPUT = (400, 413, 422)
REFUSED_KEY = (401, 403)


class Connection:
    """Connections to one server. Thread-safe, and usable in forked processes.

    A request is sent again when the server is overloaded (429), not ready (503) or does not answer: at most 8 attempts,
    with growing and jittered pauses, never shorter than its ``Retry-After`` or ``Retry-After-Ms``. A server that has
    never answered and accepts no connection is an error at once. httpx uses the proxies of the environment.

    Args:
        url: "http://host:port" or "https://host:port". A path is kept as a prefix.
        expected: the expected server, for messages ("a gliclass-rerank service at this URL").
        key_variable: the environment variable with the default key.
        api_key: sent as a bearer token; empty for none.
        timeout: seconds in which a request must be answered, pauses and retries included, > 0.
        concurrency: requests at a time, if the caller limits them.
        retried: statuses after which a request is sent again.
        transport: httpx transport, by default over the network.
        clock, sleep: functions for the time in seconds and for waiting.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: an invalid URL, a key that cannot be sent, or an impossible timeout.
    """

    def __init__(
        self,
        url: str,
        *,
        expected: str,
        key_variable: str,
        api_key: str | None,
        timeout: float,
        concurrency: int | None = None,
        retried: Container[int] = RETRIED,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = _checked_url(url)
        self._expected, self._key_variable = expected, key_variable
        self._timeout = check_number(timeout, "timeout", low=0.001)
        if importlib.util.find_spec("httpx") is None:
            raise MissingExtraError("http", f"the service {self.url} as a scorer")
        import httpx  # imported here, because it is an optional dependency

        key = os.environ.get(key_variable) if api_key is None else api_key
        headers = {"content-type": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {_checked_key(key, key_variable)}"
        limits = httpx.Limits(max_connections=concurrency or 100, max_keepalive_connections=concurrency or 20)
        make = partial(httpx.Client, base_url=_address(self.url), headers=headers, limits=limits, transport=transport)
        self._client = PerProcess(make)
        self._retried, self._clock, self._sleep = retried, clock, sleep
        self._met = False  # whether the server has answered once

    def send(self, method: str, path: str, body: bytes = b"") -> httpx.Response:
        """Send a request until its status is none that is retried. After the last attempt, return its response.

        Raises:
            ServiceError: no answer in time, or the answer cannot be read.
        """
        import httpx

        deadline = self._clock() + self._timeout
        for attempt in range(1, MAX_ATTEMPTS + 1):
            answer, failure = None, None
            try:
                answer = self._ask(method, path, body, deadline)
                if answer.status_code not in self._retried:
                    return answer
            except httpx.TransportError as error:
                failure = error
                if not self._met and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    break
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ServiceError(f"{self.url} gives an answer that cannot be read ({_said(error)})") from error
            pause = max(_backoff(attempt), _retry_after(answer))
            if attempt == MAX_ATTEMPTS or self._clock() + pause > deadline:
                break
            self._sleep(pause)
        if answer is not None:
            return answer
        raise ServiceError(
            f"{self.url} does not answer ({_said(failure)}; attempt {attempt}, at most {self._timeout:g} s): check "
            "that the service runs and can be reached, wait until it has started, or raise timeout="
        ) from failure

    def _ask(self, method: str, path: str, body: bytes, deadline: float) -> httpx.Response:
        """Send once and read the whole answer before the deadline. httpx's own timeouts apply to single reads."""
        import httpx

        left = max(0.001, deadline - self._clock())
        timeout = httpx.Timeout(left, connect=min(left, CONNECT_SECONDS))
        parts: list[bytes] = []
        with self._client.get().stream(method, path, content=body, timeout=timeout) as answer:
            self._met = True
            # The transport reads this when the body begins.
            answer.request.extensions["timeout"]["read"] = max(0.001, deadline - self._clock())
            for part in answer.iter_raw():
                if self._clock() > deadline:
                    raise httpx.ReadTimeout("the answer comes too slowly", request=answer.request)
                parts.append(part)
        return httpx.Response(answer.status_code, headers=answer.headers, content=b"".join(parts))

    def refusal(self, answer: httpx.Response, where: str = "") -> InputError | ServiceError:
        """The error for an answer other than 200. ``where`` describes the refused input."""
        status, told = answer.status_code, message_of(answer)
        if status in REFUSED_INPUT:
            kind = LabelTooLongError if b'"LabelTooLong"' in answer.content else InputError
            return kind(f"{self.url} refuses this{where}: {told}")
        if status in REFUSED_KEY:
            advice = f"expected an API key that it knows; pass api_key=, or set {self._key_variable}"
        elif status in BUSY:
            advice = "it is overloaded or not ready; try again later, send less at a time, or raise timeout="
        elif 300 <= status < 400:
            advice = f"pass the URL that it redirects to, {answer.headers.get('location', '')!r:.200}"
        elif status == 404:
            advice = f"expected {self._expected}"
        else:
            advice = "see the service's log"
        return ServiceError(f"{self.url} answers {status}, {told}{where}: {advice}", status)

    def close(self) -> None:
        """Close the connections."""
        self._client.get().close()


def message_of(answer: httpx.Response) -> str:
    """A server's error message in one line: field "message" in this service, "error" in OpenAI, "detail" in FastAPI."""
    with suppress(ValueError):
        body = json.loads(answer.content)
        for key in ("message", "error", "detail"):
            said = _message(body.get(key)) if isinstance(body, dict) else None
            if said is not None:
                return " ".join(said.split())[:1000]
    return answer.reason_phrase or "without a message"


def _message(said: Any) -> str | None:
    """The message in a field of an error: a text, an object with one, or FastAPI's array of wrong fields."""
    if isinstance(said, list) and said and all(isinstance(one, Mapping) and "msg" in one for one in said):
        return "; ".join(f"{'.'.join(map(str, one.get('loc', ())))}: {one['msg']}" for one in said)
    said = said.get("message") if isinstance(said, Mapping) else said
    return said if isinstance(said, str) else None


def _checked_url(url: str) -> str:
    """The URL without a trailing slash, if it has a scheme, a host and at most a port and a path."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises if it is no number
        valid = parts.scheme.lower() in ("http", "https") and parts.hostname and not parts.query + parts.fragment
    except ValueError:
        valid = False
    if not valid or "@" in parts.netloc or any(c.isspace() for c in url):
        raise OptionError(  # without the URL, which may contain a password
            "url: expected http://host:port or https://host:port, perhaps with a path, and no user, password, query or "
            "fragment; a key goes to api_key="
        )
    return url.rstrip("/")


def _address(url: str) -> httpx.URL:
    """The URL as parsed by httpx, which is stricter about host names."""
    import httpx

    try:
        address = httpx.URL(url)
        address.host  # noqa: B018  # raises if it is no valid name
    except (httpx.InvalidURL, ValueError) as error:
        raise OptionError(
            f"url: expected http://host:port or https://host:port, got one that is no URL: {error}"
        ) from None
    return address


def _said(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}"


def _checked_key(key: str, variable: str) -> str:
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise OptionError(f"api_key (or {variable}): expected printable ASCII without spaces around it")
    return key


def _backoff(attempt: int) -> float:
    """Random seconds before the next attempt, so that clients that failed together do not return together."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
    return random.uniform(longest / 2, longest)


def _retry_after(answer: httpx.Response | None) -> float:
    """Seconds that a server asks to wait: Retry-After-Ms, else Retry-After as a number or a date; 0 without them."""
    headers: Mapping[str, str] = {} if answer is None else answer.headers
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(ValueError):
            if (seconds := float(headers.get(name, "")) * unit) >= 0:
                return seconds
    with suppress(ValueError, TypeError):
        date = parsedate_to_datetime(headers.get("retry-after", ""))
        return (date.replace(tzinfo=date.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    return 0.0
