"""HttpScorer: a scorer over a running service. Needs the extra "http"."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import accumulate
from types import TracebackType

from gliclass_rerank.copies import Origin, Reloadable
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.batch_plan import request_chunks
from gliclass_rerank.scorers.remote.http_client import Connection
from gliclass_rerank.scorers.remote.protocol import (
    ServiceInfo,
    labels_body,
    read_info,
    read_logits,
    read_share_pass,
    request_body,
)
from gliclass_rerank.scoring import embed
from gliclass_rerank.types import Example, FloatArray, Logits, ModelInfo, ScoreRequest

KEY_VARIABLE = "GLICLASS_RERANK_API_KEY"
CONCURRENCY = 4  # chunks sent at a time, so that the next ones are sent while the service computes
CHUNK_CHARACTERS = 250_000  # a megabyte of JSON at most, unless one text alone is larger


class HttpScorer(Reloadable):
    """A `Scorer` over the HTTP API of a running gliclass-rerank service. Thread-safe, and usable in forked processes.

    A call is divided into chunks within the service's limits, of which a few are sent concurrently. A chunk is sent
    again when the service is overloaded (429), not ready (503) or does not answer: at most 8 attempts, with growing and
    jittered pauses, never shorter than its ``Retry-After``. httpx uses the proxies of the environment.

    A pickle holds the URL and the timeout and never the key. Unpickling connects again, with the key of the
    environment.

    Args:
        url: URL of the service, "http://host:8000". A path is kept as a prefix.
        api_key: the service's key. Default: ``GLICLASS_RERANK_API_KEY`` of the environment, if set.
        timeout: seconds in which a chunk must be answered, pauses and retries included, > 0.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: an invalid URL, or an impossible timeout.
        ServiceError: no answer (raised at once if no connection can be made), the key is refused, or the server is no
            such service.
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
        self._pool = PerProcess(partial(ThreadPoolExecutor, CONCURRENCY, thread_name_prefix="gliclass-http"))
        self._share_pass = lru_cache(maxsize=64)(self._ask_share_pass)  # a router repeats the same labels
        try:
            self._service = self._read_info()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        """The service's model information at the time of connection, with backend "http" and its URL as the device."""
        return self._service.model

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """Return the raw logits of each request, bit-identical to those of the service's own scorer.

        Raises:
            InputError: the service refused a request, with its message.
            ServiceError: it did not answer in time, refused the key, failed, or has changed its model.
        """
        limit = self._service.max_requests
        chunks = list(request_chunks(requests, max_requests=limit, max_characters=CHUNK_CHARACTERS))
        if len(chunks) < 2:
            return [row for chunk in chunks for row in self._score(chunk, 0)]
        starts = accumulate(map(len, chunks), initial=0)
        pool = self._pool.get()
        answers = [pool.submit(self._score, chunk, start) for chunk, start in zip(chunks, starts, strict=False)]
        try:
            return [row for answer in answers for row in answer.result()]
        finally:  # after an error the other chunks are useless
            for answer in answers:
                answer.cancel()

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return vectors of texts, bit-identical to those of the service's own scorer. See `scoring.embed`.

        Raises:
            NoVectorsError: the service's model has none.
            InputError, ServiceError: as `score`.
        """
        return embed(self, texts)

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Whether the service's model reads these labels in one pass. See `gliclass_rerank.scoring.labels_share_pass`.

        Raises:
            InputError, ServiceError: as `score`.
        """
        return self._share_pass(tuple(labels), tuple(examples))

    def close(self) -> None:
        """Close the connections. The scorer cannot be used after that."""
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
        """Score a chunk that begins at request ``start`` of its call, in halves if it is too large for the service."""
        answer = self._connection.send("POST", "/logits", request_body(chunk))
        if answer.status_code == 200:
            return read_logits(answer.content, chunk, self.info)
        if answer.status_code == 413 and len(chunk) > 1:
            half = len(chunk) // 2
            return self._score(chunk[:half], start) + self._score(chunk[half:], start + half)
        raise self._connection.refusal(answer, f" (requests {start} to {start + len(chunk) - 1} of the call)")
