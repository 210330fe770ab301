"""TypeSafe's format: questions by name, answers by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from gliclass_rerank import Choice, InputError, Noul, Score
from gliclass_rerank.tasks.decide.answers import Answer
from gliclass_rerank.tasks.decide.questions import MAX_OPTIONS, MAX_QUESTIONS, Question
from gliclass_rerank_service.dialects.common import Ignored, Refused, Reply, Turns
from gliclass_rerank_service.observability.request_stats import RequestStats

EXAMPLE: JsonDict = {
    "model": "jev-latest",
    "state": "I was charged twice and want my money back today.",
    "questions": {
        "urgent": {"type": "noul", "instructions": "Does this need an answer today?"},
        "team": {"type": "choice", "instructions": "Which team?", "criteria": {"billing": "invoices", "tech": None}},
        "anger": {"type": "score", "instructions": "How angry is the writer?", "criteria": ["calm", "furious"]},
    },
}


def _is_text(value: object) -> object:
    if not isinstance(value, str | dict | list):
        raise ValueError(f"expected a text, an object or an array, got {type(value).__name__}")
    return value


def at_most(count: int) -> BeforeValidator:
    """Validator of the number of elements, before they are looked at."""

    def check(value: object) -> object:
        if isinstance(value, dict | list) and len(value) > count:
            raise ValueError(f"expected at most {count}, got {len(value)}")
        return value

    return BeforeValidator(check)


SCHEMA = {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array", "items": {}}]}
AnyText = Annotated[Any, AfterValidator(_is_text), WithJsonSchema(SCHEMA)]
"""A text, or an object or array that the model reads as JSON."""
Name = Annotated[str, Field(min_length=1)]
Images = Annotated[None, Refused("this model reads no images")]


class NoulCriteria(BaseModel):
    """When the answer is yes, and when it is no. Other keys are refused."""

    model_config = ConfigDict(extra="forbid")

    true: AnyText | None = None
    false: AnyText | None = None


class NoulQuestion(BaseModel):
    """A question whose answer is yes or no."""

    type: Literal["noul"]
    instructions: AnyText | None = None
    criteria: NoulCriteria | None = None

    def question(self) -> Question:
        """The library's question."""
        sides = self.criteria or NoulCriteria()
        return Noul(self.instructions, sides.true, sides.false)


class ChoiceQuestion(BaseModel):
    """A question whose answer is one of the options in `criteria`."""

    type: Literal["choice"]
    instructions: AnyText | None = None
    criteria: Annotated[dict[Name, AnyText | None], Field(min_length=1), at_most(MAX_OPTIONS)]

    def question(self) -> Question:
        """The library's question."""
        return Choice(self.instructions, self.criteria)


class ScoreQuestion(BaseModel):
    """A question whose answer is a level of `criteria`, from low to high."""

    type: Literal["score"]
    instructions: AnyText | None = None
    criteria: Annotated[list[AnyText], Field(min_length=1), at_most(MAX_OPTIONS)]

    def question(self) -> Question:
        """The library's question."""
        return Score(self.instructions, self.criteria)


class BoxQuestion(BaseModel):
    """A question about a place in an image. It is always refused: the model reads texts only."""

    type: Literal["box"]

    def question(self) -> Question:
        """Refuse."""
        raise InputError("type: expected 'noul', 'choice' or 'score', got 'box'; this model reads no images")


AnyQuestion = Annotated[NoulQuestion | ChoiceQuestion | ScoreQuestion | BoxQuestion, Field(discriminator="type")]


class SystemoneBody(BaseModel):
    """TypeSafe's request. Unknown fields are ignored."""

    model_config = ConfigDict(
        extra="ignore", protected_namespaces=(), allow_inf_nan=False, json_schema_extra={"examples": [EXAMPLE]}
    )

    model: str = Field(description='Any name, or with `strict_model` the model\'s own or an alias: "jev-latest".')
    state: AnyText = Field(description="A text, or an object or array that the model reads as JSON.")
    questions: Annotated[dict[Name, AnyQuestion], Field(min_length=1), at_most(MAX_QUESTIONS)]
    assets: Images = None
    images: Images = None
    files: Images = None
    instructions: Annotated[None, Refused("each question has its own")] = None
    decision_template: Annotated[None, Refused("the model has no templates")] = None
    seed: Annotated[Any, Ignored("answers are deterministic")] = None
    priority: Turns = None
    request_id: Annotated[Any, Ignored("the header x-request-id gives the answer its id")] = None
    keep_alive: Annotated[Any, Ignored("the model stays loaded")] = None

    def asked(self) -> dict[str, Question]:
        """The library's questions by name. Raises `InputError`, which names the question."""
        read: dict[str, Question] = {}
        for name, question in self.questions.items():
            try:
                read[name] = question.question()
            except InputError as error:
                raise InputError(f"question {name!r:.60}: {error}") from error
        return read


class NoulReply(Reply):
    """The probability of yes."""

    type: Literal["noul"]
    noul: float


class ChoiceReply(Reply):
    """The most probable option, and the probabilities of all."""

    type: Literal["choice"]
    choice: str
    probabilities: dict[str, float]
    confidence: float


class ScoreReply(Reply):
    """The expected level, from 0, and the levels and their probabilities by number."""

    type: Literal["score"]
    score: float
    legend: dict[str, Any]
    probabilities: dict[str, float]
    confidence: float


class TokenUsage(Reply):
    """Estimated tokens that were read. None are written."""

    input_tokens: int
    output_tokens: int


class SystemoneReply(Reply):
    """TypeSafe's response."""

    model: str
    answers: dict[str, NoulReply | ChoiceReply | ScoreReply]
    usage: TokenUsage


def systemone_reply(model: str, answers: dict[str, Answer], stats: RequestStats) -> SystemoneReply:
    """Answers in TypeSafe's format."""
    told = {name: answer.as_dict() for name, answer in answers.items()}
    usage = TokenUsage(input_tokens=stats.tokens, output_tokens=0)
    return SystemoneReply.model_validate({"model": model, "answers": told, "usage": usage})
