"""FactCheckedQueryEngine: a query engine whose answers are checked against their own sources."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import asdict
from typing import Any, Literal, get_args

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import MetadataMode, QueryBundle

from gliclass_rerank import FactChecker, FactReport, InputError, Scorer
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.tasks.fact_check.checker import SUPPORTED, check_verdicts
from gliclass_rerank.tasks.fact_check.claims import Verdict
from gliclass_rerank.validation import check_choice, check_text, is_blank
from gliclass_rerank_llama_index.evidence import check_by, has_text

Mode = Literal["annotate", "filter"]


class FactCheckedQueryEngine(BaseQueryEngine):
    """Wraps a query engine: adds verdicts on the claims of its answers, and removes unsupported claims.

    `FactChecker` judges each sentence of an answer by the text of its source nodes. The verdicts are in the response's
    ``metadata["fact_check"]``, which is JSON-serialisable: "answer" (the engine's original), "supported" (the fraction
    of supported claims, in [0, 1]), "passed" (whether all are), and "claims", each with the fields of a `ClaimVerdict`
    and the "node_id" of the deciding node. Source nodes and other metadata are kept. An answer without sources that
    have text counts as unsupported. An answer without text is left alone. Streamed answers are read to their end first.

    Args:
        engine: the wrapped query engine.
        mode: "filter" removes unsupported claims, "annotate" changes no answer.
        model: "mini", a folder, a hub id or a service's URL, loaded on first use.
        scorer: a loaded model instead.
        threshold: minimum support of a supported claim, in [0, 1].
        refute_threshold: minimum refutation of a refuted claim, in [0, 1].
        only_claims: skip sentences without a claim, such as greetings. They are kept.
        keep: verdicts whose claims are kept. ("supported", "not_enough_info") removes only refuted claims.
        empty_answer: the answer if none of its claims is kept.
        metadata_mode: metadata of the sources that counts as evidence, by default that shown to the language model.
        callback_manager: the engine's by default.

    Raises:
        OptionError: an option with an invalid value.
        InputError: (when used) an answer that is not text. It is a ValueError.
    """

    def __init__(
        self,
        engine: BaseQueryEngine,
        *,
        mode: Mode = "filter",
        model: str = "mini",
        scorer: Scorer | None = None,
        threshold: float = 0.5,
        refute_threshold: float = 0.5,
        only_claims: bool = False,
        keep: Collection[Verdict] = SUPPORTED,
        empty_answer: str = "The sources do not support an answer.",
        metadata_mode: MetadataMode = MetadataMode.LLM,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        check_choice(mode, get_args(Mode), "mode")
        check_verdicts(keep)
        self._engine = engine
        self._mode = mode
        self._keep = frozenset(keep)
        self._empty_answer = check_text(empty_answer, "empty_answer", may_be_empty=True)
        self._metadata_mode = metadata_mode
        self._checker = FactChecker(
            LazyScorer(model, scorer),
            threshold=threshold,
            refute_threshold=refute_threshold,
            only_claims=only_claims,
        )
        super().__init__(callback_manager or engine.callback_manager)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"query_engine": self._engine}

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return self._checked(self._engine.query(query_bundle))

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        response = await self._engine.aquery(query_bundle)
        if isinstance(response, AsyncStreamingResponse):
            response = await response.get_response()
        return await asyncio.to_thread(self._checked, response)

    def _checked(self, response: RESPONSE_TYPE) -> Response:
        if isinstance(response, AsyncStreamingResponse):
            raise InputError("answer: expected one that can be read now, got an asynchronous stream; use aquery")
        if isinstance(response, PydanticResponse):
            raise InputError(f"answer: expected text, got {type(response.response).__name__}; let the engine give text")
        if isinstance(response, StreamingResponse):
            response = response.get_response()
        answer = response.response
        if answer is None or is_blank(answer):
            return self._with_verdicts(response, answer, FactReport(()))
        texts = [found.get_content(self._metadata_mode) for found in response.source_nodes]
        report = check_by(self._checker, answer, texts) if has_text(texts) else None
        left = answer if self._mode == "annotate" else self._left(answer, report)
        return self._with_verdicts(response, left, report)

    def _left(self, answer: str, report: FactReport | None) -> str:
        """Return the answer without the claims that are not kept."""
        if report is None:
            return answer if "not_enough_info" in self._keep else self._empty_answer
        removed = {claim.start for claim in report.claims if claim.verdict not in self._keep}
        if removed and len(removed) == len(report.claims):
            return self._empty_answer  # a greeting alone does not answer the query
        return report.filter(answer, keep=self._keep)

    def _with_verdicts(self, response: Response, left: str | None, report: FactReport | None) -> Response:
        """Return the response with another text and with verdicts, none if there is no evidence."""
        claims: list[dict[str, Any]] = [
            {**asdict(claim), "node_id": response.source_nodes[claim.evidence].node_id}
            for claim in (report.claims if report else ())
        ]
        verdicts = {
            "answer": response.response,
            "supported": report.supported if report else 0.0,
            "passed": report is not None and report.passed,
            "claims": claims,
        }
        return Response(left, response.source_nodes, {**(response.metadata or {}), "fact_check": verdicts})
