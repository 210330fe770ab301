"""GLiClassRerank: orders retrieved nodes by how well they answer the query."""

from __future__ import annotations

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import NodeWithScore

from gliclass_rerank import Reranker
from gliclass_rerank_llama_index.postprocessor import ScoringPostprocessor


class GLiClassRerank(ScoringPostprocessor):
    """Orders nodes by how well they answer the query, best first. A node's score is then its relevance, in [0, 1].

    Scores and order are those of `Reranker`. Equal nodes keep their order. Nodes without text, such as pictures, are
    left out. If none is left, the result is empty and no model is loaded. The given nodes are not changed. Every call
    emits `ReRankStartEvent`, `ReRankEndEvent` and the callback event RERANKING.

    Raises (when used):
        InputError: no query, or one without text. It is a ValueError.
        ModelError: the model cannot be loaded, or, a `NoPromptsError`, it was not trained with prompts and there is an
            instruction.
    """

    top_n: int | None = Field(default=None, ge=1, description="How many nodes to return at most; None for all.")
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="Leave out nodes that score below it, in [0, 1]."
    )
    use_first_stage_scores: bool = Field(
        default=False,
        description="Fuse the scores that the nodes came with, if all have one: they are the `first_stage_scores` of "
        "`Reranker.rank`, with the model's own weight.",
    )
    instruction: str | None = Field(
        default=None, description="What makes a node relevant, in words. Only for models trained with prompts."
    )

    @classmethod
    def class_name(cls) -> str:
        return "GLiClassRerank"

    def _at_most(self, nodes: int) -> int:
        return nodes if self.top_n is None else self.top_n

    def _rescored(self, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        scores = [found.score for found in nodes if found.score is not None]
        first_stage = scores if self.use_first_stage_scores and len(scores) == len(nodes) else None
        ranking = Reranker(self._scorer).rank(
            query,
            self._texts(nodes),
            top_n=self.top_n,
            threshold=self.threshold,
            first_stage_scores=first_stage,
            instruction=self.instruction,
        )
        return [self._with_score(nodes[ranked.index], ranked.score) for ranked in ranking]
