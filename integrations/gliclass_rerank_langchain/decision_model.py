"""GLiClassDecisionModel: LangChain's interface of typed questions about a text, messages or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.decisions import BaseDecisionModel, Box, ClassifierResponse
from langchain_core.decisions import Question as AskedQuestion
from langchain_core.messages import BaseMessage, convert_to_openai_messages
from pydantic import ConfigDict

from gliclass_rerank import Decider, InputError
from gliclass_rerank.tasks.decide.questions import Question, read_questions
from gliclass_rerank.tasks.decide.state import MEDIA
from gliclass_rerank_langchain.model import ModelOptions

SOURCES = {"base64", "url", "data", "file_id", "source_type", "image_url", "input_audio", "file", "source", "media"}
"""Keys of a block of LangChain, OpenAI or Anthropic that hold a medium or refer to one."""


class GLiClassDecisionModel(ModelOptions, BaseDecisionModel):
    """Answers typed questions about a state with calibrated probabilities, by `Decider`.

    A state is a text, an object, an array, or messages at any depth. Each message is read as its role and its text. The
    model does not see the names of the questions. Batches, callbacks and tracing are LangChain's. Needs langchain-core
    1.8 or newer.

    Args:
        model, scorer: see `ModelOptions`.

    Raises (when invoked):
        InputError: no questions, a `Box` question, an image or another medium in the state or a question, or a value
            that `Decider` refuses.
    """

    model_config = ConfigDict(extra="forbid")

    @property
    def _provider(self) -> str:
        return "gliclass"

    def _classify(self, state: object, questions: dict[str, AskedQuestion]) -> ClassifierResponse:
        asked = [state] if isinstance(state, BaseMessage) else state
        answers = Decider(self._scorer()).decide(_plain(asked), _read(questions))
        told = {name: answer.as_dict() for name, answer in answers.items()}
        return ClassifierResponse.model_validate({"model": self.model, "answers": told})


def _read(questions: Mapping[str, AskedQuestion]) -> dict[str, Question]:
    """LangChain's questions as ours."""
    for name, question in questions.items():
        if isinstance(question, Box):
            raise InputError(f"question {name!r:.60}: expected Noul, Choice or Score, got Box, which needs images")
    return read_questions({name: _plain(question.model_dump()) for name, question in questions.items()})


def _plain(value: object) -> Any:
    """A value with its messages as objects of role and content.

    Raises:
        InputError: a block with an image, audio, a video or a file.
    """
    if isinstance(value, BaseMessage):
        value = convert_to_openai_messages(value)
    if isinstance(value, Mapping):
        _refuse_media(value)
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_plain(inner) for inner in value]
    return value


def _refuse_media(block: Mapping[str, object]) -> None:
    kind = block.get("type")
    if isinstance(kind, str) and kind.removeprefix("input_").startswith(MEDIA) and block.keys() & SOURCES:
        raise InputError(f"expected text, got a block of type {kind!r:.60}; the model reads texts only")
