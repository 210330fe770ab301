"""DecisionScorer: use a decision server as a scorer. Needs the extra "http"."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain

from gliclass_rerank.errors import InputError, UnsupportedModelError
from gliclass_rerank.scorers.remote.decisions_protocol import (
    WORDING,
    decisions_body,
    log_odds,
    read_nouls,
    read_predicates,
    systemone_body,
)
from gliclass_rerank.scorers.remote.http_client import REFUSED_INPUT
from gliclass_rerank.scorers.remote.named_model import CHECK, Api, NamedModelScorer
from gliclass_rerank.scorers.remote.question import Question, questions_of, whole_texts
from gliclass_rerank.types import Logits, ScoreRequest

MAX_QUESTIONS = 32  # of one call, the smallest limit of known servers
RETRIED = frozenset({408, 429, *range(500, 600)})
EXPECTED = "a decision server that has this model; its URL mostly ends in /v1"


class DecisionScorer(NamedModelScorer):
    """Base of scorers over decision servers: one request per text, with a yes-or-no question per label.

    The logit of a label is the log-odds of the probability of yes, see `decisions_protocol.log_odds`. Equal questions
    of a call of `score` are asked once. A request to the server has at most 32 questions. One that it refuses is
    divided, so that smaller limits and wrong labels are found. A request is sent again after 408, 429 and each 5xx, or
    without an answer, as `HttpScorer` does.

    The server is trusted to judge the questions of a call one by one.

    Arguments and errors are those of `NamedModelScorer`.
    """

    def score(self, requests: Sequence[ScoreRequest]) -> list[Logits]:
        """See `NamedModelScorer.score`."""
        rows = questions_of(requests, self.info.name)
        by_text: dict[str, dict[Question, None]] = {}
        for question in chain.from_iterable(rows):
            by_text.setdefault(question.text, {})[question] = None
        calls = [
            asked[start : start + MAX_QUESTIONS]
            for asked in map(list, by_text.values())
            for start in range(0, len(asked), MAX_QUESTIONS)
        ]
        logits: dict[Question, float] = {}
        for asked, probabilities in zip(calls, self._each(self._ask, calls), strict=True):
            logits.update(zip(asked, map(log_odds, probabilities), strict=True))
        return whole_texts(requests, rows, logits)

    def _check(self) -> None:
        try:
            self._ask([CHECK])
        except InputError as error:
            raise UnsupportedModelError(
                f"{self._connection.url}, model {self.info.name!r}: expected one that answers yes-or-no questions, got "
                f"a refusal: {error}"
            ) from error

    def _ask(self, questions: Sequence[Question]) -> list[float]:
        """Probabilities of yes, of questions about one text."""
        answer = self._connection.send("POST", self._path, self._body(questions))
        if answer.status_code == 200:
            return self._read(answer.content, questions)
        if answer.status_code in REFUSED_INPUT and len(questions) > 1:
            half = len(questions) // 2
            return self._ask(questions[:half]) + self._ask(questions[half:])
        raise self._refusal(answer, questions[0])

    @abstractmethod
    def _body(self, questions: Sequence[Question]) -> bytes:
        """The body of a call with questions about one text."""

    @abstractmethod
    def _read(self, body: bytes, questions: Sequence[Question]) -> list[float]:
        """Probabilities of yes in the response. Raises `ServiceError` for another response."""


class SystemoneScorer(DecisionScorer):
    """A `Scorer` over TypeSafe's API, ``POST /v1/systemone``, as `load_scorer("systemone+http://host/v1")` makes it.

    The key is by default ``TYPESAFE_API_KEY`` of the environment. See `DecisionScorer`.
    """

    api = Api(
        "systemone",
        architecture="decision",
        paths=("/systemone", "/decisions"),
        key_variable="TYPESAFE_API_KEY",
        expected=EXPECTED,
        wording=WORDING,
        retried=RETRIED,
    )

    def _body(self, questions: Sequence[Question]) -> bytes:
        return systemone_body(self.info.name, questions)

    def _read(self, body: bytes, questions: Sequence[Question]) -> list[float]:
        return read_nouls(body, self._connection.url + self._path, questions)


class DecisionsScorer(DecisionScorer):
    """A `Scorer` over OpenAI's API, ``POST /v1/decisions``, as `load_scorer("decisions+http://host/v1")` makes it.

    The key is by default ``OPENAI_API_KEY`` of the environment. See `DecisionScorer`.
    """

    api = Api(
        "decisions",
        architecture="decision",
        paths=("/decisions",),
        key_variable="OPENAI_API_KEY",
        expected=EXPECTED,
        wording=WORDING,
        retried=RETRIED,
    )

    def _body(self, questions: Sequence[Question]) -> bytes:
        return decisions_body(self.info.name, questions)

    def _read(self, body: bytes, questions: Sequence[Question]) -> list[float]:
        return read_predicates(body, self._connection.url + self._path, questions)
