"""GLiClassFactCheckFilter: keeps the retrieved nodes that support or refute a claim."""

from __future__ import annotations

from typing import Literal

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import NodeWithScore

from gliclass_rerank import FactChecker, FactReport, InputError
from gliclass_rerank.tasks.fact_check.claims import Verdict
from gliclass_rerank.validation import check_text
from gliclass_rerank_llama_index.postprocessor import ScoringPostprocessor


class GLiClassFactCheckFilter(ScoringPostprocessor):
    """Keeps the nodes that support, or refute, the query, which is a claim.

    `FactChecker` judges the claim by each node alone. A claim of several sentences is refuted if one of them is, and
    supported if all are. A kept node's score is the probability of the verdict, in [0, 1]: the largest refutation or
    the smallest support of the sentences. Its metadata "fact_check" is "supported" or "refuted", and is excluded from
    the text for LLMs and embedding models. Nodes are returned best first. Equal nodes keep their order, and the given
    nodes are not changed. Nodes without text, such as pictures, are left out. Events are those of a reranker.

    Raises (when used):
        InputError: no query, or one without a claim. It is a ValueError.
        ModelError: the model cannot be loaded.
    """

    keep: Literal["support", "refute", "either"] = Field(default="support", description="Which nodes to keep.")
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Support from which on a claim is supported, in [0, 1]."
    )
    refute_threshold: float = Field(
        default=0.5, ge=0, le=1, description="Refutation from which on a claim is refuted, in [0, 1]."
    )

    @classmethod
    def class_name(cls) -> str:
        return "GLiClassFactCheckFilter"

    def _rescored(self, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        checker = FactChecker(self._scorer, threshold=self.threshold, refute_threshold=self.refute_threshold)
        texts = [check_text(text, f"node {i}") for i, text in enumerate(self._texts(nodes))]
        reports = checker.check_many([(query, text) for text in texts])
        wanted = {"support": ("supported",), "refute": ("refuted",), "either": ("supported", "refuted")}[self.keep]
        kept = []
        for found, report in zip(nodes, reports, strict=True):
            verdict, probability = _of_all_claims(report, query)
            if verdict in wanted:
                kept.append((probability, self._with_score(found, probability, {"fact_check": verdict})))
        return [found for _, found in sorted(kept, key=lambda pair: -pair[0])]


def _of_all_claims(report: FactReport, query: str) -> tuple[Verdict, float]:
    """Return the verdict on all sentences together, and its probability (0 for not enough information)."""
    if not report.claims:
        raise InputError(f"query: expected a claim to look for in the nodes, got {query!r:.60}")
    if refuted := [claim.refute for claim in report.claims if claim.verdict == "refuted"]:
        return "refuted", max(refuted)
    if report.passed:
        return "supported", min(claim.support for claim in report.claims)
    return "not_enough_info", 0.0
