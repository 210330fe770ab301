"""GLiClassFactCheck: a chain step that checks a model's answer against its sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig, RunnableSerializable, run_in_executor
from pydantic import AfterValidator, ConfigDict, Field

from gliclass_rerank import FactChecker, FactReport, InputError
from gliclass_rerank.tasks.fact_check.claims import Verdict
from gliclass_rerank.validation import is_blank
from gliclass_rerank_langchain.model import ModelOptions, each

State = dict[str, Any]


class GLiClassFactCheck(ModelOptions, RunnableSerializable[State, State]):
    """Judges each claim of an answer against the documents it was made from, and passes other keys through.

        chain = RunnablePassthrough.assign(context=retriever) | RunnablePassthrough.assign(answer=llm_chain)
        (chain | GLiClassFactCheck(mode="filter")).invoke({"question": "Who built it?"})

    Takes a dict and returns a new one with two additional keys. "fact_check" is a list with a dict for each claim: the
    fields of `ClaimVerdict`, with code points of the original answer, and the index of the deciding document.
    "supported" is the fraction of supported claims. Without any documents there are no verdicts, "supported" is 0, and
    filtering treats each claim as "not_enough_info". Blank sources support and refute nothing. A blank answer, such as
    that of a message with tool calls, has no claims and is kept. A batch is scored in one call.

    Args:
        answer_key: key of the answer: a string, or a message with string content.
        context_key: key of the sources: a sequence of documents or strings, or a single one.
        mode: "annotate" leaves the answer as it is. "filter" also removes the sentences whose verdict is not kept.
        keep: verdicts whose sentences stay when filtering.
        empty_answer: the answer if filtering leaves nothing.
        threshold, refute_threshold, only_claims: see `FactChecker`.
        model, scorer: see `ModelOptions`.

    Raises:
        InputError: when invoked: a key is missing, or the answer or sources have another type.
    """

    model_config = ConfigDict(extra="forbid")

    answer_key: str = "answer"
    context_key: str = "context"
    mode: Literal["annotate", "filter"] = "annotate"
    keep: Annotated[Sequence[Verdict], AfterValidator(tuple)] = Field(default=("supported",), min_length=1)
    empty_answer: str = "The sources do not support an answer."
    threshold: float = Field(default=0.5, ge=0, le=1)
    refute_threshold: float = Field(default=0.5, ge=0, le=1)
    only_claims: bool = False

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether LangChain may serialise it into a chain's JSON: always, without the scorer."""
        return True

    def invoke(self, input: State, config: RunnableConfig | None = None, **kwargs: Any) -> State:  # noqa: A002
        """Check one answer. There are no further options."""
        return self._call_with_config(self._one, input, config, **kwargs)

    def batch(
        self,
        inputs: list[State],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[State]:
        """Check many answers in one call of the scorer."""
        many = partial(each, self._many, return_exceptions=return_exceptions)
        return self._batch_with_config(many, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[State],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[State]:
        """Check many answers in one call of the scorer, in a thread."""
        many = partial(self.batch, inputs, config, return_exceptions=return_exceptions, **kwargs)
        return await run_in_executor(None, many)

    def _one(self, state: State) -> State:
        return self._many([state])[0]

    def _many(self, states: Sequence[State]) -> list[State]:
        checker = FactChecker(
            self._scorer(),
            threshold=self.threshold,
            refute_threshold=self.refute_threshold,
            only_claims=self.only_claims,
        )
        jobs = [self._job(state) for state in states]
        claiming = [(answer, texts) for answer, texts, _ in jobs if texts and not is_blank(answer)]
        reports = iter(checker.check_many(claiming))
        return [
            self._checked(state, answer, self._report(answer, places, reports))
            for state, (answer, _, places) in zip(states, jobs, strict=True)
        ]

    @staticmethod
    def _report(answer: str, places: Sequence[int], reports: Iterator[FactReport]) -> FactReport | None:
        """Return the next report, None without evidence, or an empty report for a blank answer."""
        if is_blank(answer):
            return FactReport(())
        return next(reports).renumbered(places) if places else None

    def _job(self, state: State) -> tuple[str, list[str], list[int]]:
        """Return the answer, the texts of the non-blank sources, and their indices among all sources."""
        if not isinstance(state, Mapping):
            raise InputError(f"input: expected a dict, got {type(state).__name__}")
        for key, option in ((self.answer_key, "answer_key"), (self.context_key, "context_key")):
            if key not in state:
                known = ", ".join(map(repr, state))
                raise InputError(f"input: expected the key {key!r}, got {known:.80}; set {option}=")
        sources = _evidence(state[self.context_key])
        places = [i for i, text in enumerate(sources) if not is_blank(text)]
        return _answer(state[self.answer_key]), [sources[i] for i in places], places

    def _checked(self, state: State, answer: str, report: FactReport | None) -> State:
        claims = report.claims if report else ()
        added: State = {
            "fact_check": [asdict(claim) for claim in claims],
            "supported": report.supported if report else 0.0,
        }
        if self.mode == "filter" and not is_blank(answer):
            kept = report.filter(answer, keep=self.keep) if report else answer if "not_enough_info" in self.keep else ""
            says_something = any(map(str.isalnum, kept))
            added[self.answer_key] = _replaced(state[self.answer_key], kept if says_something else self.empty_answer)
        return {**state, **added}


def _answer(answer: object) -> str:
    text = answer.content if isinstance(answer, BaseMessage) else answer
    if not isinstance(text, str):
        raise InputError(
            f"answer: expected a string or a message whose content is one, got {type(answer).__name__} of "
            f"{type(text).__name__}; put a StrOutputParser before this step"
        )
    return text


def _replaced(answer: str | BaseMessage, text: str) -> str | BaseMessage:
    return answer.model_copy(update={"content": text}) if isinstance(answer, BaseMessage) else text


def _evidence(context: object) -> list[str]:
    """Return the texts of the sources."""
    if isinstance(context, str | Document):
        return [_source(context, 0)]
    if not isinstance(context, Sequence):
        raise InputError(f"context: expected documents or strings, got {type(context).__name__}")
    return [_source(source, i) for i, source in enumerate(context)]


def _source(source: object, place: int) -> str:
    text = source.page_content if isinstance(source, Document) else source
    if not isinstance(text, str):
        raise InputError(f"context {place}: expected a document or a string, got {type(source).__name__}")
    return text
