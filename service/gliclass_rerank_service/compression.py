"""Compressed bodies: clients of TypeSafe send large ones as zstd, others as gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import zstandard
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gliclass_rerank_service.errors import error_response
from gliclass_rerank_service.observability.request_stats import stats_of

MAX_WINDOW = 8 * 2**20
"""Bytes of memory of a zstd stream, the limit of RFC 8878 for HTTP."""


def _from_zstd(content: bytes, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    with decompressor.stream_reader(io.BytesIO(content), read_across_frames=True) as reader:
        return bytes(reader.read(limit))


def _from_gzip(content: bytes, limit: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        return file.read(limit)


READERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "zstd": _from_zstd,
    "gzip": _from_gzip,
    "x-gzip": _from_gzip,
}
"""Functions that decompress no more than so many bytes, by ``Content-Encoding``."""


class Decompressed:
    """Decompresses bodies. Other encodings get 415, a body larger than ``max_bytes`` once decompressed 413."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        encoding = Headers(scope=scope).get("content-encoding", "").strip().lower() if scope["type"] == "http" else ""
        if encoding in ("", "identity"):
            return self._app(scope, receive, send)
        if encoding not in READERS:
            message = f"Content-Encoding: expected one of {', '.join(READERS)}, got {encoding!r:.60}; send it as it is"
            stats_of(scope).failure = "Validation"
            response = error_response(415, message, stats_of(scope).id, error_type="Validation")
            return response(scope, receive, send)
        # Changed in place: the router notes its route in the same scope, which the outer layers read.
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"content-encoding"]
        return self._app(scope, self._decompressing(receive, READERS[encoding]), send)

    def _decompressing(self, receive: Receive, read: Callable[[bytes, int], bytes]) -> Receive:
        """``receive`` with the whole body in its first message."""
        complete = False

        async def receiving() -> Message:
            nonlocal complete
            if complete:
                return await receive()
            parts: list[bytes] = []
            while not complete:
                message: dict[str, Any] = dict(await receive())
                if message["type"] != "http.request":
                    return message
                parts.append(message.get("body", b""))
                complete = not message.get("more_body", False)
            return {"type": "http.request", "body": self._read(b"".join(parts), read), "more_body": False}

        return receiving

    def _read(self, content: bytes, read: Callable[[bytes, int], bytes]) -> bytes:
        try:
            body = read(content, self._max_bytes + 1)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise HTTPException(400, f"the body cannot be decompressed: {error}") from None
        if len(body) > self._max_bytes:
            raise HTTPException(
                413, f"expected a body of at most {self._max_bytes} bytes decompressed, got more; divide the request"
            )
        return body
