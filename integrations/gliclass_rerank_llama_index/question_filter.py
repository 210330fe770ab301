"""GLiClassQuestionFilter: keeps the retrieved nodes by the answer to a question about query and node."""

from __future__ import annotations

from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.schema import NodeWithScore

from gliclass_rerank import Decider, Noul, NoulAnswer, Score, ScoreAnswer
from gliclass_rerank.tasks.decide.answers import Answer
from gliclass_rerank.tasks.decide.questions import Question
from gliclass_rerank_llama_index.postprocessor import ScoringPostprocessor


class GLiClassQuestionFilter(ScoringPostprocessor):
    """Keeps the nodes for which a question about the query and the node is answered well enough.

    `Decider` reads ``{"query": ..., "passage": ...}`` for each node. Without ``levels`` the question is a `Noul`, and a
    node's score is the probability of yes. With ``levels``, from the worst to the best, it is a `Score`, and a node's
    score is the expected level divided by the highest. Both are in [0, 1]. Nodes below ``threshold`` are left out, and
    the others are returned best first. Equal nodes keep their order, and the given nodes are not changed. Nodes without
    text, such as pictures, are left out. Events are those of a reranker.

    Raises (when used):
        InputError: no query. It is a ValueError.
        ModelError: the model cannot be loaded.
    """

    instructions: str = Field(description='The question, in words: "Does the passage answer the query?"')
    levels: list[str] | None = Field(
        default=None, min_length=2, description="Levels of the answer, from the worst to the best; None: yes or no."
    )
    threshold: float = Field(default=0.5, ge=0, le=1, description="Leave out nodes that score below it, in [0, 1].")
    top_n: int | None = Field(default=None, ge=1, description="How many nodes to return at most; None for all.")

    @model_validator(mode="after")
    def _check_the_question(self) -> GLiClassQuestionFilter:
        self._question()
        return self

    @classmethod
    def class_name(cls) -> str:
        return "GLiClassQuestionFilter"

    def _at_most(self, nodes: int) -> int:
        return nodes if self.top_n is None else self.top_n

    def _question(self) -> Question:
        return Noul(self.instructions) if self.levels is None else Score(self.instructions, self.levels)

    def _rescored(self, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        states = [{"query": query, "passage": text} for text in self._texts(nodes)]
        answers = Decider(self._scorer).decide_many(states, {"question": self._question()})
        scored = [(_score(answer["question"]), found) for answer, found in zip(answers, nodes, strict=True)]
        kept = sorted((one for one in scored if one[0] >= self.threshold), key=lambda one: -one[0])
        return [self._with_score(found, score) for score, found in kept[: self.top_n]]


def _score(answer: Answer) -> float:
    """The probability of yes, or the expected level as a share of the highest. In [0, 1]."""
    if isinstance(answer, ScoreAnswer):
        return answer.score / (len(answer.probabilities) - 1)
    assert isinstance(answer, NoulAnswer)
    return answer.probability
