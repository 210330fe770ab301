"""HttpScorer: a running service is just another scorer. Needs the extra "http"."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import accumulate
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gliclass_rerank.errors import InputError, MissingExtraError, OptionError, ServiceError
from gliclass_rerank.scoring.batching import chunked
from gliclass_rerank.scoring.encoding import chunk_sizes
from gliclass_rerank.scoring.wire import ServiceInfo, read_info, read_logits, request_body
from gliclass_rerank.types import Logits, ModelInfo, ScoreRequest, check_number

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "GLICLASS_RERANK_API_KEY"
IN_FLIGHT = 4  # chunks of one call; the next ones travel while the service computes
CHUNK_CHARACTERS = 250_000  # a megabyte of JSON at most, unless one text alone is larger
MAX_ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between attempts, where the service names none
RETRIED = (429, 503)
REFUSED_INPUT = (400, 413, 422)
REFUSED_KEY = (401, 403)


class HttpScorer:
    """A `Scorer` over the HTTP API of a running gliclass-rerank service. Safe to call from many threads.

    A call is divided into chunks that the service takes, of which a few are under way at a time. A chunk is sent again
    when the service is overloaded (429), not ready (503) or does not answer: at most 8 times, with growing and jittered
    pauses, never shorter than its ``Retry-After``. The environment's proxies are used as httpx does.

    Args:
        url: where the service is, "http://host:8000"; a path is kept, as a prefix.
        api_key: the service's key; by default the environment's ``GLICLASS_RERANK_API_KEY``, if it is set.
        timeout: seconds in which a chunk has to be answered, pauses and further attempts included, > 0.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: a URL that names no service, or an impossible timeout.
        ServiceError: nobody answers, the key is refused, or what answers is no such service.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 60.0) -> None:
        self._url = _checked_url(url)
        self._timeout = check_number(timeout, "timeout", low=0.001)
        if importlib.util.find_spec("httpx") is None:
            raise MissingExtraError("http", f"the service {self._url} as a scorer")
        import httpx  # here, because only those who use a service have it

        key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
        headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {_checked_key(key)}"} if key else {}
        )
        self._client = httpx.Client(base_url=self._url, headers=headers)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="gliclass-http")
        try:
            self._service = self._read_info()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        """What the service said of its model when this was made; backend "http", and its URL as the device."""
        return self._service.model

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """Return the raw logits of each request, as the service's own scorer gives them, bit by bit.

        Raises:
            InputError: the service refused a request, with its message.
            ServiceError: it did not answer in time, refused the key, failed, or has another model by now.
        """
        chunks = list(
            chunked(requests, chunk_sizes(requests), max_items=self._service.max_requests, max_size=CHUNK_CHARACTERS)
        )
        if len(chunks) < 2:
            return [row for chunk in chunks for row in self._score(chunk, 0)]
        starts = accumulate(map(len, chunks), initial=0)
        answers = [self._pool.submit(self._score, chunk, start) for chunk, start in zip(chunks, starts, strict=False)]
        try:
            return [row for answer in answers for row in answer.result()]
        finally:  # after an error the others are of no use
            for answer in answers:
                answer.cancel()

    def close(self) -> None:
        """Close the connections; nothing can be scored after that."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def __enter__(self) -> HttpScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_info(self) -> ServiceInfo:
        answer = self._send("GET", "/info", b"")
        if answer.status_code != 200:
            raise self._refusal(answer)
        return read_info(answer.content, self._url)

    def _score(self, chunk: Sequence[ScoreRequest], start: int) -> list[Logits]:
        """Score a chunk that begins at request ``start`` of its call; in halves, if it is too large for the service."""
        answer = self._send("POST", "/logits", request_body(chunk))
        if answer.status_code == 200:
            return read_logits(answer.content, chunk, self.info)
        if answer.status_code == 413 and len(chunk) > 1:
            half = len(chunk) // 2
            return self._score(chunk[:half], start) + self._score(chunk[half:], start + half)
        raise self._refusal(answer, f" (requests {start} to {start + len(chunk) - 1} of the call)")

    def _send(self, method: str, path: str, body: bytes) -> httpx.Response:
        """Send until there is an answer other than "later"; the last such answer counts when patience is over."""
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
            f"{self._url} does not answer ({type(failure).__name__}: {failure}; attempt {attempt}, at most "
            f"{self._timeout:g} s): check that the service runs and can be reached, or raise timeout="
        ) from failure

    def _refusal(self, answer: httpx.Response, where: str = "") -> InputError | ServiceError:
        """The error that an answer other than 200 is."""
        status, told = answer.status_code, _message(answer)
        if status in REFUSED_INPUT:
            return InputError(f"{self._url} refuses this{where}: {told}")
        if status in REFUSED_KEY:
            advice = f"expected an API key that it knows; pass api_key=, or set {KEY_VARIABLE}"
        elif status in RETRIED:
            advice = "it is overloaded or not ready; try again later, send less at a time, or raise timeout="
        elif status == 404:
            advice = "expected a gliclass-rerank service at this URL"
        else:
            advice = "see the service's log"
        return ServiceError(f"{self._url} answers {status}, {told}{where}: {advice}", status)


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


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise OptionError(f"api_key (or {KEY_VARIABLE}): expected printable ASCII without spaces around it")
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


def _message(answer: httpx.Response) -> str:
    """What the service says of an error, in a line."""
    with suppress(ValueError):
        body = json.loads(answer.content)
        if isinstance(body, dict) and isinstance(message := body.get("message"), str):
            return " ".join(message.split())[:1000]
    return answer.reason_phrase or "without a message"
