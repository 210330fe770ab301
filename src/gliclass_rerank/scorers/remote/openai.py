"""OpenAIScorer: use a generative model on any OpenAI-compatible server as a scorer. Needs the extra "http"."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType

import numpy as np

from gliclass_rerank.copies import Origin, Reloadable
from gliclass_rerank.errors import InputError, OptionError, ServiceError, TextTooLongError, UnsupportedModelError
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.remote.http_client import RETRIED, Connection, message_of
from gliclass_rerank.scorers.remote.openai_protocol import (
    TOO_LONG,
    Limit,
    Listed,
    Question,
    answers,
    asked_by,
    logit_of,
    question_body,
    read_listed,
    read_models,
)
from gliclass_rerank.types import Example, Logits, ModelInfo, ScoreRequest
from gliclass_rerank.validation import check_text

KEY_VARIABLE = "OPENAI_API_KEY"
CONCURRENCY = 16  # questions at a time, which servers batch
REQUESTS_PER_CHUNK = 4096  # questions submitted to the threads at a time
WANTED = "log-probabilities of the likeliest tokens"
CHECK = Question("The cat sleeps on the sofa.", "animals")


class OpenAIScorer(Reloadable):
    """A `Scorer` over the chat completions of vLLM, llama.cpp, SGLang, OpenAI and others.

    One request is sent for each text and label, with the question whether the label holds. The answer is one token. The
    logit is the log-probability of "yes" less that of "no" in that position, in [-100, 100]. Labels are judged one by
    one: no logit depends on other labels or texts. Equal questions of a call are sent once. As with `HttpScorer`, a
    question is sent again when the server is overloaded (429), not ready (503) or does not answer. Thread-safe, and
    usable in forked processes. A pickle never holds the key, see `HttpScorer`.

    A text is read as a whole, whatever its ``long_text``: without the model's tokenizer there are no windows and no
    truncation, and a text too long for the server is an error.

    Args:
        url: URL of the API, "http://host:8001/v1". "http://host:8001/v1#name" includes the model's name.
        model: its name on that server. Optional if the server has one model.
        api_key: default: ``OPENAI_API_KEY`` of the environment, if set.
        timeout: seconds in which a question must be answered, pauses and retries included, > 0.
        concurrency: questions sent at a time, over all calling threads.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: an invalid URL, no model given for a server with several, or an impossible value.
        ServiceError: no answer, the key is refused, or the server is not OpenAI-compatible.
        UnsupportedModelError: log-probabilities are refused or missing, or the model does not answer with yes or no.
    """

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
        self._connection = Connection(
            place,
            expected="an OpenAI-compatible server that has this model; its URL mostly ends in /v1",
            key_variable=KEY_VARIABLE,
            api_key=api_key,
            timeout=timeout,
            concurrency=concurrency,
        )
        self._limit: Limit = "max_tokens"
        self._pool = PerProcess(partial(ThreadPoolExecutor, concurrency, thread_name_prefix="gliclass-openai"))
        try:
            self._info = self._describe(named or model)
            options = {"model": self._info.name, "timeout": timeout, "concurrency": concurrency}
            self.origin = Origin(OpenAIScorer, place, options)
            self._check()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        """The model's name on the server, with the server's URL as the device. ``max_length`` is 0 if unknown."""
        return self._info

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """Return the raw logits of each request, float32 of shape (labels,), in the order of its labels.

        Raises:
            TextTooLongError: a text is longer than the limit of the server's model.
            InputError: the server refused a question, with its message.
            ServiceError: it did not answer in time, refused the key, or failed.
        """
        rows = [
            [Question(request.text, label, request.prompt, request.examples) for label in request.labels]
            for request in requests
        ]
        distinct = list(dict.fromkeys(question for row in rows for question in row))
        logits: dict[Question, float] = {}
        for start in range(0, len(distinct), REQUESTS_PER_CHUNK):
            asked = distinct[start : start + REQUESTS_PER_CHUNK]
            logits.update(zip(asked, self._pool.get().map(self._logit, asked), strict=True))
        return [
            Logits.over_windows(np.array([[logits[one] for one in row]], np.float32), [(0, len(request.text))])
            for request, row in zip(requests, rows, strict=True)
        ]

    def labels_share_pass(self, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
        """Always True: each label is a separate question, so no other label affects it."""
        return True

    def close(self) -> None:
        """Close the connections. The scorer cannot be used after that."""
        self._pool.get().shutdown(cancel_futures=True)
        self._connection.close()

    def __enter__(self) -> OpenAIScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _describe(self, model: str | None) -> ModelInfo:
        """Information about the given model, or about the only one of the server."""
        url = self._connection.url
        answer = self._connection.send("GET", "/models")
        if answer.status_code == 404 and model is not None:  # some servers have no list of models
            lengths: dict[str, int] = {}
        elif answer.status_code != 200:
            raise self._connection.refusal(answer)
        else:
            lengths = read_models(answer.content, url)
        if model is None and len(lengths) != 1:
            raise OptionError(
                f"model: expected the name of one of the {len(lengths)} that {url} has ({', '.join(lengths):.300}), "
                "got none; pass model=, or write it behind the URL: openai+http://host:8001/v1#name"
            )
        name = next(iter(lengths)) if model is None else check_text(model, "model")
        return ModelInfo(
            name=name,
            revision=asked_by(name),
            architecture="generative",
            backend="openai",
            device=url,
            dtype="unknown",
            max_length=lengths.get(name, 0),
            prompts=True,
        )

    def _check(self) -> None:
        """Send one question, so that an unsuitable model is detected when it is loaded."""
        where = f"{self._connection.url}, model {self._info.name!r}"
        try:
            listed = self._first_answer()
        except InputError as error:
            raise UnsupportedModelError(
                f"{where}: expected one that gives log-probabilities of a chat's answer, got a refusal: {error}"
            ) from error
        if not listed:
            raise UnsupportedModelError(
                f"{where}: expected {WANTED} with the answer, got none; take a server and a model that give them"
            )
        if not answers(listed):
            likeliest = max(listed, key=lambda one: one[1])[0]
            raise UnsupportedModelError(
                f"{where}: expected an answer with Yes or No, got one that begins with {likeliest!r:.40}; take a chat "
                "model, and if it reasons first, have the server turn that off"
            )

    def _first_answer(self) -> Listed:
        """Send the first question, and again with the other name of the answer's limit if the server requires that.

        Newer models of OpenAI accept only ``max_completion_tokens``, other servers only ``max_tokens``.
        """
        try:
            return self._ask(CHECK)
        except InputError as error:
            if "max_completion_tokens" not in str(error):
                raise
            self._limit = "max_completion_tokens"
            return self._ask(CHECK)

    def _logit(self, question: Question) -> float:
        listed = self._ask(question)
        if not listed:
            raise ServiceError(f"{self._connection.url}: expected {WANTED} with an answer, got none{_about(question)}")
        return logit_of(listed)

    def _ask(self, question: Question) -> Listed:
        answer = self._connection.send(
            "POST", "/chat/completions", question_body(question, self._info.name, self._limit)
        )
        if answer.status_code == 200:
            return read_listed(answer.content, self._connection.url)
        if answer.status_code not in RETRIED and TOO_LONG.search(answer.text):
            raise TextTooLongError(
                f"text: expected one that the server's model can read as a whole, with label, prompt and examples, got "
                f"{len(question.text)} characters{_about(question)}: {message_of(answer)}; divide it, or have the "
                "server read more"
            )
        raise self._connection.refusal(answer, _about(question))


def _about(question: Question) -> str:
    return f" (label {question.label!r:.60}, text {question.text!r:.60})"
