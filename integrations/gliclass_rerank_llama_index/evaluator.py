"""GLiClassFaithfulnessEvaluator: is each sentence of an answer supported by its contexts?"""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Sequence
from typing import Any

from llama_index.core.evaluation.base import BaseEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType

from gliclass_rerank import ClaimVerdict, FactChecker, FactReport, InputError, Scorer
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.validation import is_blank
from gliclass_rerank_llama_index.evidence import check_by, has_text

EXCERPT = 120  # characters of a context in the feedback


class GLiClassFaithfulnessEvaluator(BaseEvaluator):
    """Judges each sentence of a response by the contexts with `FactChecker`, without a language model.

    The score is the fraction of supported claims, in [0, 1]. The response passes if all claims are supported. The
    feedback lists each claim with its verdict and the deciding context. It can be used with `RetryQueryEngine`, which
    looks up ``Settings.llm`` before it retries.

    Args:
        model: "mini", a folder, a hub id or a service's URL, loaded on first use.
        scorer: a loaded model instead.
        threshold: minimum support of a supported claim, in [0, 1].
        refute_threshold: minimum refutation of a refuted claim, in [0, 1].
        only_claims: skip sentences without a claim, such as greetings.

    Raises:
        OptionError: a threshold outside [0, 1].
    """

    def __init__(
        self,
        *,
        model: str = "mini",
        scorer: Scorer | None = None,
        threshold: float = 0.5,
        refute_threshold: float = 0.5,
        only_claims: bool = False,
    ) -> None:
        self._checker = FactChecker(
            LazyScorer(model, scorer),
            threshold=threshold,
            refute_threshold=refute_threshold,
            only_claims=only_claims,
        )

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Do nothing: there are no prompts."""

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Judge a response. The query and further arguments of other evaluators are ignored.

        A blank response, and contexts without any text, fail with score 0 and are marked as ``invalid_result``.

        Raises:
            InputError: no response or contexts were given, or they hold characters that no tokenizer reads. It is a
                ValueError.
        """
        del kwargs
        if response is None or contexts is None:
            raise InputError(
                "response, contexts: expected both, got none of one; pass them, or a Response to evaluate_response"
            )
        if is_blank(response) or not has_text(contexts):
            missing = "response has" if is_blank(response) else "contexts have"
            reason = f"The {missing} no text, so nothing can be checked."
            return EvaluationResult(
                query=query,
                response=response,
                contexts=contexts,
                passing=False,
                score=0.0,
                feedback=reason,
                invalid_result=True,
                invalid_reason=reason,
            )
        report = await asyncio.to_thread(check_by, self._checker, response, contexts)
        return EvaluationResult(
            query=query,
            response=response,
            contexts=contexts,
            passing=report.passed,
            score=report.supported,
            feedback=_feedback(report, contexts),
        )


def _feedback(report: FactReport, contexts: Sequence[str]) -> str:
    if not report.claims:
        return "The response claims nothing."
    supported = sum(claim.verdict == "supported" for claim in report.claims)
    head = f"{supported} of {len(report.claims)} claims supported by the contexts:"
    return "\n".join([head, *(_line(claim, contexts[claim.evidence]) for claim in report.claims)])


def _line(claim: ClaimVerdict, context: str) -> str:
    verdict = claim.verdict.replace("_", " ")
    passage = context if claim.window is None else context[slice(*claim.window)]
    excerpt = textwrap.shorten(passage, EXCERPT, placeholder="...")
    return (
        f'- {verdict} (support {claim.support:.2f}, refutation {claim.refute:.2f}): "{claim.text}"'
        f' [context {claim.evidence}: "{excerpt}"]'
    )
