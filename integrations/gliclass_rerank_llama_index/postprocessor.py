"""Base class of the node postprocessors: model options, events, and new nodes with scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # re-exported, not declared
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import SkipValidation
from pydantic.json_schema import SkipJsonSchema

from gliclass_rerank import InputError, Scorer
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.validation import is_blank
from gliclass_rerank_llama_index.model import lazy_scorer, with_shared_scorer

dispatcher = get_dispatcher(__name__)


class ScoringPostprocessor(BaseNodePostprocessor):
    """Base class: gives nodes new scores by the query, in new `NodeWithScore`s, and emits events and callbacks.

    Nodes without text, such as pictures, cannot be judged and are left out.

    Its serialisation holds the options and the model's name, without weights or a given scorer.
    """

    model: str = Field(
        default="mini", frozen=True, description='"mini", a folder, a hub id or a service\'s URL; loaded on first use.'
    )
    scorer: Annotated[Scorer | None, SkipValidation, SkipJsonSchema()] = Field(
        default=None, frozen=True, exclude=True, repr=False, description="A loaded model instead; its name then counts."
    )
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Which metadata is read together with a node's text."
    )
    keep_retrieval_score: bool = Field(
        default=False,
        description='Put the score that a node came with into its metadata, "retrieval_score", where neither an LLM '
        "nor an embedding model reads it.",
    )
    _scorer: LazyScorer = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _share_the_scorer(cls, data: object) -> object:
        return with_shared_scorer(data, "model")

    def model_post_init(self, context: object, /) -> None:
        super().model_post_init(context)
        self._scorer = lazy_scorer(self.scorer, self.model)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        most = self._at_most(len(nodes))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: None if query_bundle is None else query_bundle.query_str,
            EventPayload.TOP_K: most,
        }
        kept: list[NodeWithScore] = []
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=most, model_name=self.model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                if query_bundle is None:
                    raise InputError("query: expected one, got none; pass query_str= or query_bundle=")
                if with_text := [found for found in nodes if not is_blank(found.get_content(self.metadata_mode))]:
                    kept = self._rescored(query_bundle.query_str, with_text)
                event.on_end(payload={EventPayload.NODES: kept})
        finally:
            # Sent after an error as well, since handlers wait for the end of a started event.
            dispatcher.event(ReRankEndEvent(nodes=kept))
        return kept

    def _at_most(self, nodes: int) -> int:
        """Return the maximum number of returned nodes, out of ``nodes``."""
        return nodes

    @abstractmethod
    def _rescored(self, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        """Rescore nodes (at least one, all with text) by `_with_score`. Return those kept, best first."""

    def _texts(self, nodes: list[NodeWithScore]) -> list[str]:
        return [found.get_content(self.metadata_mode) for found in nodes]

    def _with_score(
        self, found: NodeWithScore, score: float, notes: Mapping[str, object] | None = None
    ) -> NodeWithScore:
        """Return a new `NodeWithScore` around the same node, or around a copy with notes in its metadata."""
        kept = {"retrieval_score": found.score} if self.keep_retrieval_score else {}
        hidden: dict[str, object] = {**kept, **(notes or {})}
        if not hidden:
            return found.model_copy(update={"score": score})
        node = found.node
        noted = node.model_copy(
            update={
                "metadata": {**node.metadata, **hidden},
                # Keep the notes out of the text for LLMs and embedding models.
                "excluded_llm_metadata_keys": _with_keys(node.excluded_llm_metadata_keys, hidden),
                "excluded_embed_metadata_keys": _with_keys(node.excluded_embed_metadata_keys, hidden),
            }
        )
        return found.model_copy(update={"score": score, "node": noted})


def _with_keys(excluded: list[str], hidden: Mapping[str, object]) -> list[str]:
    return [*excluded, *(key for key in hidden if key not in excluded)]
