"""OpenAI's format: a list of questions, answers in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr
from pydantic.config import JsonDict

from gliclass_rerank import Choice, InputError, Noul, Score
from gliclass_rerank.tasks.decide.answers import Answer, ChoiceAnswer, NoulAnswer
from gliclass_rerank.tasks.decide.questions import MAX_OPTIONS, MAX_QUESTIONS, Question, described
from gliclass_rerank.tasks.decide.state import Json
from gliclass_rerank_service.dialects.common import Ignored, Reply
from gliclass_rerank_service.dialects.decisions.messages import content_of, state_of
from gliclass_rerank_service.dialects.decisions.systemone import at_most
from gliclass_rerank_service.observability.request_stats import RequestStats

MOST_ITEMS = 131_072
EXAMPLE: JsonDict = {
    "model": "mini",
    "input": "I was charged twice and want my money back today.",
    "questions": [
        {"type": "predicate", "name": "urgent", "instructions": "Does this need an answer today?"},
        {
            "type": "choice",
            "name": "team",
            "instructions": "Which team?",
            "choices": [{"value": "billing", "description": "invoices"}, {"value": "tech"}],
        },
    ],
}
Parts = list[dict[str, Any]]


class Prose(BaseModel):
    """Base of all questions."""

    name: str | None = None
    instructions: str | Parts = Field(description="A text, or parts of type input_text or input_json.")

    def text(self) -> str:
        """The instructions as one text."""
        return content_of(self.instructions, "instructions")


class PredicateQuestion(Prose):
    """Whether something is true."""

    type: Literal["predicate"]

    def question(self) -> Question:
        """The library's question."""
        return Noul(self.text())


class ChoiceOption(BaseModel):
    """A possible answer."""

    value: StrictStr | StrictBool
    description: str | None = None

    @property
    def key(self) -> str:
        """The value as a text: booleans are "true" and "false"."""
        return str(self.value).lower() if isinstance(self.value, bool) else self.value


class ChoiceQuestion(Prose):
    """Which of several values is true."""

    type: Literal["choice"]
    choices: Annotated[list[ChoiceOption], Field(min_length=2), at_most(MAX_OPTIONS)]

    def question(self) -> Question:
        """The library's question."""
        options: dict[str, Json | None] = {option.key: option.description for option in self.choices}
        if len(options) < len(self.choices):
            raise InputError('choices: expected values that differ as texts (true is read as "true"), got one twice')
        return Choice(self.text(), options)


class ScoreLevel(BaseModel):
    """A level of a scale."""

    label: str
    description: str | None = None


class ScoreQuestion(Prose):
    """How far something is true."""

    type: Literal["score"]
    levels: Annotated[list[ScoreLevel], Field(min_length=2), at_most(MAX_OPTIONS)]

    def question(self) -> Question:
        """The library's question."""
        return Score(self.text(), [described(level.label, level.description or "") for level in self.levels])


AnyQuestion = Annotated[PredicateQuestion | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]
Input = str | Annotated[list[dict[str, Any]], Field(fail_fast=True), at_most(MOST_ITEMS)]


class DecisionsBody(BaseModel):
    """OpenAI's request. Unknown fields are ignored."""

    model_config = ConfigDict(
        extra="ignore", protected_namespaces=(), allow_inf_nan=False, json_schema_extra={"examples": [EXAMPLE]}
    )

    model: str = Field(description="Any name, or with `strict_model` the model's own or an alias.")
    input: Input = Field(description="A text, or messages, function calls and their outputs.")
    questions: Annotated[list[AnyQuestion], Field(min_length=1), at_most(MAX_QUESTIONS)]
    prompt_cache_key: Annotated[Any, Ignored("a cache changes no answer")] = None
    prompt_cache_options: Annotated[Any, Ignored("a cache changes no answer")] = None
    safety_identifier: Annotated[Any, Ignored("it names a caller")] = None

    def state(self) -> Json:
        """The input as a state."""
        return state_of(self.input)

    def asked(self) -> dict[str, Question]:
        """The library's questions, by position. Raises `InputError`, which names the position."""
        read: dict[str, Question] = {}
        for i, question in enumerate(self.questions):
            try:
                read[str(i)] = question.question()
            except InputError as error:
                raise InputError(f"questions[{i}]: {error}") from error
        return read


class PredicateReply(Reply):
    """The probability that it is true."""

    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float


class ValueShare(Reply):
    """The probability of a value."""

    value: str | bool
    probability: float


class ChoiceReply(Reply):
    """The most probable value, and the probabilities of all."""

    type: Literal["choice"] = "choice"
    name: str | None
    choice: str | bool
    confidence: float
    probabilities: list[ValueShare]


class LevelShare(Reply):
    """The probability of a level."""

    value: int
    label: str
    probability: float


class ScoreReply(Reply):
    """The expected level, from 0, and the probabilities of all."""

    type: Literal["score"] = "score"
    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelShare]


class InputDetails(Reply):
    """Tokens of a cache, which is not used."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(Reply):
    """Tokens of reasoning, of which there is none."""

    reasoning_tokens: int = 0


class DecisionUsage(Reply):
    """Estimated tokens that were read. None are written."""

    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class DecisionsReply(Reply):
    """OpenAI's response."""

    model: str
    answers: list[PredicateReply | ChoiceReply | ScoreReply]
    usage: DecisionUsage


def openai_reply(model: str, body: DecisionsBody, answers: Sequence[Answer], stats: RequestStats) -> DecisionsReply:
    """Answers in OpenAI's format. ``answers`` are in the order of the questions."""
    told = [_reply(question, answer) for question, answer in zip(body.questions, answers, strict=True)]
    usage = DecisionUsage(input_tokens=stats.tokens, total_tokens=stats.tokens)
    return DecisionsReply(model=model, answers=told, usage=usage)


def _reply(
    question: PredicateQuestion | ChoiceQuestion | ScoreQuestion, answer: Answer
) -> PredicateReply | ChoiceReply | ScoreReply:
    if isinstance(answer, NoulAnswer):
        return PredicateReply(name=question.name, probability=answer.probability)
    if isinstance(answer, ChoiceAnswer):
        assert isinstance(question, ChoiceQuestion)
        values = {option.key: option.value for option in question.choices}
        shares = [ValueShare(value=values[key], probability=share) for key, share in answer.probabilities.items()]
        choice = values[answer.choice]
        return ChoiceReply(name=question.name, choice=choice, confidence=answer.confidence, probabilities=shares)
    assert isinstance(question, ScoreQuestion)
    levels = [
        LevelShare(value=i, label=level.label, probability=share)
        for i, (level, share) in enumerate(zip(question.levels, answer.probabilities, strict=True))
    ]
    return ScoreReply(name=question.name, score=answer.score, confidence=answer.confidence, probabilities=levels)
