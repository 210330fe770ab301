"""NamedModelScorer: base of scorers over a model that a server knows by its name."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from gliclass_rerank.copies import Origin, Reloadable
from gliclass_rerank.errors import InputError, OptionError, ServiceError, TextTooLongError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.remote.http_client import BUSY, RETRIED, Connection, message_of
from gliclass_rerank.scorers.remote.protocol import parse_response
from gliclass_rerank.scorers.remote.question import Question
from gliclass_rerank.scoring import embed
from gliclass_rerank.types import Example, FloatArray, Logits, ModelInfo, ScoreRequest
from gliclass_rerank.validation import check_text

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Self

Job = TypeVar("Job")
Done = TypeVar("Done")

CONCURRENCY = 16  # calls at a time, which servers batch
JOBS_PER_CHUNK = 4096  # calls submitted to the threads at a time
NO_LIST = (404, 405)  # statuses of servers without a list of models
TOO_LONG = re.compile(
    r"context[ _](length|size|window)|exceed_context|(maximum|max)[ _]model[ _]len|too many (input )?tokens"
    r"|max_tokens_exceeded",
    re.IGNORECASE,
)
CHECK = Question("The cat sleeps on the sofa.", "animals")
"""Asked when a scorer is made, so that an unsuitable model is detected then."""


@dataclass(frozen=True, slots=True)
class Api:
    """An API of servers that have models with names.

    Attributes:
        name: in front of URLs, "openai+http://...", and the backend in `ModelInfo`.
        architecture: of its models in `ModelInfo`.
        paths: of questions. A URL may end in one of them; otherwise the first is added.
        key_variable: environment variable with the default key.
        expected: such a server, for messages.
        wording: of the questions, which affects scores.
        retried: statuses after which a request is sent again.
    """

    name: str
    architecture: str
    paths: tuple[str, ...]
    key_variable: str
    expected: str
    wording: str
    retried: Container[int] = RETRIED


class NamedModelScorer(Reloadable, ABC):
    """A `Scorer` that asks a server's model whether labels hold for texts. Thread-safe, and usable in forked processes.

    A text is read as a whole, whatever its ``long_text``: without the model's tokenizer there are no windows and no
    truncation, and a text too long for the server is an error. A pickle never holds the key, see `HttpScorer`.

    Args:
        url: URL of the API, "http://host:8001/v1". "http://host:8001/v1#name" includes the model's name.
        model: its name on that server. Optional if the server has one model.
        api_key: default: the variable of the API, see `Api`, of the environment, if set.
        timeout: seconds in which a call must be answered, pauses and retries included, > 0.
        concurrency: calls at a time, over all calling threads.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: an invalid URL, no model given for a server with several, or an impossible value.
        ServiceError: no answer, the key is refused, or the server does not have the API.
        UnsupportedModelError: the model is unsuitable.
    """

    api: ClassVar[Api]

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        concurrency: int = CONCURRENCY,
    ) -> None:
        if concurrency < 1:
            raise OptionError(f"concurrency: expected a positive number, got {concurrency}")
        place, _, named = url.partition("#")
        if model is not None and named:
            raise OptionError("model: the URL names one already, after #; leave one of them out")
        given = next((path for path in self.api.paths if place.rstrip("/").endswith(path)), "")
        self._path = given or self.api.paths[0]
        self._connection = Connection(
            place.rstrip("/").removesuffix(given),
            expected=self.api.expected,
            key_variable=self.api.key_variable,
            api_key=api_key,
            timeout=timeout,
            concurrency=concurrency,
            retried=self.api.retried,
        )
        self._pool = PerProcess(
            partial(ThreadPoolExecutor, concurrency, thread_name_prefix=f"gliclass-{self.api.name}")
        )
        try:
            self._info = self._describe(named or model)
            options = {"model": self._info.name, "timeout": timeout, "concurrency": concurrency}
            self.origin = Origin(type(self), place, options)
            self._check()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        """The model's name on the server, with the server's URL as the device. ``max_length`` is 0 if unknown."""
        return self._info

    @abstractmethod
    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """Return the raw logits of each request, float32 of shape (labels,), in the order of its labels.

        Raises:
            TextTooLongError: a text is longer than the limit of the server's model.
            NoVectorsError: a request for a vector.
            InputError: the server refused a question, with its message.
            ServiceError: it did not answer in time, refused the key, or failed.
        """

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Always raises `NoVectorsError`: such a server gives no vectors of texts."""
        return embed(self, texts)

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Always True: each label is a separate question, so no other label affects it."""
        return True

    def close(self) -> None:
        """Close the connections. The scorer cannot be used after that."""
        self._pool.get().shutdown(cancel_futures=True)
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _check(self) -> None:
        """Ask `CHECK`. Raises `UnsupportedModelError` if the model is unsuitable."""

    def _describe(self, model: str | None) -> ModelInfo:
        """Information about the given model, or about the only one of the server."""
        url, api = self._connection.url, self.api
        answer = self._connection.send("GET", "/models")
        if answer.status_code in NO_LIST and model is not None:
            lengths: dict[str, int] = {}
        elif answer.status_code != 200:
            raise self._connection.refusal(answer)
        else:
            lengths = read_models(answer.content, url)
        if model is None and len(lengths) != 1:
            raise OptionError(
                f"model: expected the name of one of the {len(lengths)} that {url} has ({', '.join(lengths):.300}), "
                f"got none; pass model=, or write it behind the URL: {api.name}+{url}#name"
            )
        name = next(iter(lengths)) if model is None else check_text(model, "model")
        return ModelInfo(
            name=name,
            revision=hashlib.sha256(f"{name}\n{api.wording}".encode()).hexdigest()[:12],
            architecture=api.architecture,
            backend=api.name,
            device=url,
            dtype="unknown",
            max_length=lengths.get(name, 0),
            prompts=True,
        )

    def _each(self, ask: Callable[[Job], Done], jobs: Sequence[Job]) -> Iterator[Done]:
        """Results of calls, in order, of which a few are under way at a time."""
        for start in range(0, len(jobs), JOBS_PER_CHUNK):
            yield from self._pool.get().map(ask, jobs[start : start + JOBS_PER_CHUNK])

    def _refusal(self, answer: httpx.Response, question: Question) -> InputError | ServiceError:
        """The error for an answer other than 200 to a question."""
        if answer.status_code not in BUSY and TOO_LONG.search(answer.text):
            return TextTooLongError(
                f"text: expected one that the server's model can read as a whole, with label, prompt and examples, got "
                f"{len(question.text)} characters{question.place}: {message_of(answer)}; divide it, or have the "
                "server read more"
            )
        return self._connection.refusal(answer, question.place)


def read_models(body: bytes, url: str) -> dict[str, int]:
    """Read the response of ``GET /models``: names, and the context length of each in tokens, 0 if unknown.

    Names are in "data" as OpenAI lists them, or in "models" as TypeSafe does.

    Raises:
        ServiceError: it is no list of models.
    """
    return parse_response(lambda: _models(json.loads(body)), f"{url}/models", "a list of models")


def _models(answer: Any) -> dict[str, int]:
    if "data" in answer:
        return {str(one["id"]): _length(one) for one in answer["data"]}
    return {str(one["name"]): _length(one) for one in answer["models"]}


def _length(model: Mapping[str, Any]) -> int:
    """Context length in tokens, from the field of vLLM and SGLang, or from llama.cpp's "meta"."""
    meta = model.get("meta") or {}
    return int(model.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train") or 0)
