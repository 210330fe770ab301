"""OpenAIScorer: use a generative model on any OpenAI-compatible server as a scorer. Needs the extra "http"."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from gliclass_rerank.errors import InputError, ServiceError, UnsupportedModelError
from gliclass_rerank.scorers.remote.named_model import CHECK, Api, NamedModelScorer
from gliclass_rerank.scorers.remote.openai_protocol import (
    ASKED,
    RULES,
    Limit,
    Listed,
    answers,
    logit_of,
    question_body,
    read_listed,
)
from gliclass_rerank.scorers.remote.question import Question, questions_of, whole_texts
from gliclass_rerank.types import Logits, ScoreRequest

WANTED = "log-probabilities of the likeliest tokens"


class OpenAIScorer(NamedModelScorer):
    """A `Scorer` over the chat completions of vLLM, llama.cpp, SGLang, OpenAI and others.

    One request is sent for each text and label, with the question whether the label holds. The answer is one token. The
    logit is the log-probability of "yes" less that of "no" in that position, in [-100, 100]. Labels are judged one by
    one: no logit depends on other labels or texts. Equal questions of a call are sent once. As with `HttpScorer`, a
    question is sent again when the server is overloaded (429), not ready (503) or does not answer.

    The key is by default ``OPENAI_API_KEY`` of the environment. Log-probabilities that are refused or missing, and a
    model that does not answer with yes or no, are an `UnsupportedModelError`. Arguments and other errors are those of
    `NamedModelScorer`.
    """

    api = Api(
        "openai",
        architecture="generative",
        paths=("/chat/completions",),
        key_variable="OPENAI_API_KEY",
        expected="an OpenAI-compatible server that has this model; its URL mostly ends in /v1",
        wording=f"{RULES}\n{ASKED}",
    )
    _limit: Limit = "max_tokens"

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """See `NamedModelScorer.score`."""
        rows = questions_of(requests, self.info.name)
        distinct = list(dict.fromkeys(chain.from_iterable(rows)))
        logits = dict(zip(distinct, self._each(self._logit, distinct), strict=True))
        return whole_texts(requests, rows, logits)

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
            raise ServiceError(f"{self._connection.url}: expected {WANTED} with an answer, got none{question.place}")
        return logit_of(listed)

    def _ask(self, question: Question) -> Listed:
        answer = self._connection.send("POST", self._path, question_body(question, self._info.name, self._limit))
        if answer.status_code == 200:
            return read_listed(answer.content, self._connection.url)
        raise self._refusal(answer, question)
