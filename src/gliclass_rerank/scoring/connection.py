"""What all scorers over HTTP share: an address, a key, patience with a busy server, and its refusals in words."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import time
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gliclass_rerank.errors import InputError, MissingExtraError, OptionError, ServiceError
from gliclass_rerank.types import check_number

if TYPE_CHECKING:
    import httpx

MAX_ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between attempts, where the server names none
RETRIED = (429, 503)
REFUSED_INPUT = (400, 413, 422)
REFUSED_KEY = (401, 403)


class Connection:
    """Connections to one server. Safe to use from many threads.

    A question is sent again when the server is overloaded (429), not ready (503) or does not answer: at most 8 times,
    with growing and jittered pauses, never shorter than its ``Retry-After``. The environment's proxies are used as
    httpx does.

    Args:
        url: "http://host:port" or "https://host:port"; a path is kept, as a prefix.
        expected: what has to answer there, for messages ("a gliclass-rerank service at this URL").
        key_variable: the environment's variable that holds the key by default.
        api_key: sent as a bearer token; empty for none.
        timeout: seconds in which a question has to be answered, pauses and further attempts included, > 0.
        in_flight: how many questions are under way at a time, if the caller bounds them.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: a URL that names no server, a key that cannot be sent, or an impossible timeout.
    """

    def __init__(
        self,
        url: str,
        *,
        expected: str,
        key_variable: str,
        api_key: str | None,
        timeout: float,
        in_flight: int | None = None,
    ) -> None:
        self.url = _checked_url(url)
        self._expected, self._key_variable = expected, key_variable
        self._timeout = check_number(timeout, "timeout", low=0.001)
        if importlib.util.find_spec("httpx") is None:
            raise MissingExtraError("http", f"the service {self.url} as a scorer")
        import httpx  # here, because only those who use a server have it

        key = os.environ.get(key_variable) if api_key is None else api_key
        headers = {"content-type": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {_checked_key(key, key_variable)}"
        limits = httpx.Limits(max_connections=in_flight or 100, max_keepalive_connections=in_flight or 20)
        self._client = httpx.Client(base_url=self.url, headers=headers, limits=limits)

    def send(self, method: str, path: str, body: bytes = b"") -> httpx.Response:
        """Send until there is an answer other than "later"; the last such answer counts when patience is over.

        Raises:
            ServiceError: nobody answers in time.
        """
        import httpx

        deadline = time.monotonic() + self._timeout
        for attempt in range(1, MAX_ATTEMPTS + 1):
            answer, failure = None, None
            try:
                left = max(0.001, deadline - time.monotonic())
                answer = self._client.request(method, path, content=body, timeout=left)
                if answer.status_code not in RETRIED:
                    return answer
            except httpx.TransportError as error:
                failure = error
            pause = max(_backoff(attempt), _retry_after(answer))
            if attempt == MAX_ATTEMPTS or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        if answer is not None:
            return answer
        raise ServiceError(
            f"{self.url} does not answer ({type(failure).__name__}: {failure}; attempt {attempt}, at most "
            f"{self._timeout:g} s): check that the service runs and can be reached, or raise timeout="
        ) from failure

    def refusal(self, answer: httpx.Response, where: str = "") -> InputError | ServiceError:
        """The error that an answer other than 200 is; ``where`` says what was refused."""
        status, told = answer.status_code, message_of(answer)
        if status in REFUSED_INPUT:
            return InputError(f"{self.url} refuses this{where}: {told}")
        if status in REFUSED_KEY:
            advice = f"expected an API key that it knows; pass api_key=, or set {self._key_variable}"
        elif status in RETRIED:
            advice = "it is overloaded or not ready; try again later, send less at a time, or raise timeout="
        elif status == 404:
            advice = f"expected {self._expected}"
        else:
            advice = "see the service's log"
        return ServiceError(f"{self.url} answers {status}, {told}{where}: {advice}", status)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def message_of(answer: httpx.Response) -> str:
    """What a server says of an error, in a line: ours in "message", OpenAI's in "error", FastAPI's in "detail"."""
    with suppress(ValueError):
        body = json.loads(answer.content)
        for key in ("message", "error", "detail"):
            said = body.get(key) if isinstance(body, dict) else None
            said = said.get("message") if isinstance(said, dict) else said
            if isinstance(said, str):
                return " ".join(said.split())[:1000]
    return answer.reason_phrase or "without a message"


def _checked_url(url: str) -> str:
    """The URL without a trailing slash, if it names a server and says nothing else."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is no number
        valid = parts.scheme.lower() in ("http", "https") and parts.hostname and not parts.query + parts.fragment
    except ValueError:
        valid = False
    if not valid or "@" in parts.netloc or any(c.isspace() for c in url):
        raise OptionError(  # not shown: there may be a password in it
            "url: expected http://host:port or https://host:port, perhaps with a path, and no user, password, query or "
            "fragment; a key goes to api_key="
        )
    return url.rstrip("/")


def _checked_key(key: str, variable: str) -> str:
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise OptionError(f"api_key (or {variable}): expected printable ASCII without spaces around it")
    return key


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt, at random, so that clients who failed together do not come back together."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
    return random.uniform(longest / 2, longest)


def _retry_after(answer: httpx.Response | None) -> float:
    """Seconds that the service asks to wait, by a number or a date; 0 if it does not."""
    value = "" if answer is None else answer.headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    with suppress(ValueError, TypeError):
        date = parsedate_to_datetime(value)
        return (date.replace(tzinfo=date.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    return 0.0
