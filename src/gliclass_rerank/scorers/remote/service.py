"""HttpScorer: a running service is just another scorer. Needs the extra "http"."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import accumulate
from types import TracebackType

from gliclass_rerank.copies import Origin, Reloadable
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.models.encoding import chunk_sizes
from gliclass_rerank.scorers.batch_plan import chunked
from gliclass_rerank.scorers.remote.http_client import Connection
from gliclass_rerank.scorers.remote.protocol import (
    ServiceInfo,
    labels_body,
    read_info,
    read_logits,
    read_share_pass,
    request_body,
)
from gliclass_rerank.types import Example, Logits, ModelInfo, ScoreRequest

KEY_VARIABLE = "GLICLASS_RERANK_API_KEY"
IN_FLIGHT = 4  # chunks of one call; the next ones travel while the service computes
CHUNK_CHARACTERS = 250_000  # a megabyte of JSON at most, unless one text alone is larger


class HttpScorer(Reloadable):
    """A `Scorer` over the HTTP API of a running gliclass-rerank service. Safe to call from many threads and in
    forked processes.

    A call is divided into chunks that the service takes, of which a few are under way at a time. A chunk is sent again
    when the service is overloaded (429), not ready (503) or does not answer: at most 8 times, with growing and jittered
    pauses, never shorter than its ``Retry-After``. The environment's proxies are used as httpx does.

    A pickle holds the URL and the timeout and never the key: unpickling connects again, with the key that the
    environment has there.

    Args:
        url: where the service is, "http://host:8000"; a path is kept, as a prefix.
        api_key: the service's key; by default the environment's ``GLICLASS_RERANK_API_KEY``, if it is set.
        timeout: seconds in which a chunk has to be answered, pauses and further attempts included, > 0.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: a URL that names no service, or an impossible timeout.
        ServiceError: nobody answers (raised at once where no connection can be made), the key is refused, or what
            answers is no such service.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 60.0) -> None:
        self._connection = Connection(
            url,
            expected="a gliclass-rerank service at this URL",
            key_variable=KEY_VARIABLE,
            api_key=api_key,
            timeout=timeout,
        )
        self.origin = Origin(HttpScorer, url, {"timeout": timeout})
        self._pool = PerProcess(partial(ThreadPoolExecutor, IN_FLIGHT, thread_name_prefix="gliclass-http"))
        self._share_pass = lru_cache(maxsize=64)(self._ask_share_pass)  # a router asks about the same labels every time
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
        pool = self._pool.get()
        answers = [pool.submit(self._score, chunk, start) for chunk, start in zip(chunks, starts, strict=False)]
        try:
            return [row for answer in answers for row in answer.result()]
        finally:  # after an error the others are of no use
            for answer in answers:
                answer.cancel()

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Whether the service's model reads these labels in one pass; see `gliclass_rerank.scoring.labels_share_pass`.

        Raises:
            InputError, ServiceError: as `score`.
        """
        return self._share_pass(tuple(labels), tuple(examples))

    def close(self) -> None:
        """Close the connections; nothing can be scored after that."""
        self._pool.get().shutdown(cancel_futures=True)
        self._connection.close()

    def __enter__(self) -> HttpScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_info(self) -> ServiceInfo:
        answer = self._connection.send("GET", "/info")
        if answer.status_code != 200:
            raise self._connection.refusal(answer)
        return read_info(answer.content, self._connection.url)

    def _ask_share_pass(self, labels: tuple[str, ...], examples: tuple[Example, ...]) -> bool:
        answer = self._connection.send("POST", "/labels", labels_body(labels, examples))
        if answer.status_code != 200:
            raise self._connection.refusal(answer)
        return read_share_pass(answer.content, f"{self._connection.url}/labels")

    def _score(self, chunk: Sequence[ScoreRequest], start: int) -> list[Logits]:
        """Score a chunk that begins at request ``start`` of its call; in halves, if it is too large for the service."""
        answer = self._connection.send("POST", "/logits", request_body(chunk))
        if answer.status_code == 200:
            return read_logits(answer.content, chunk, self.info)
        if answer.status_code == 413 and len(chunk) > 1:
            half = len(chunk) // 2
            return self._score(chunk[:half], start) + self._score(chunk[half:], start + half)
        raise self._connection.refusal(answer, f" (requests {start} to {start + len(chunk) - 1} of the call)")
