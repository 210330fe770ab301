"""LangChain components for reranking, routing, fact-checking, deciding and embedding with GLiClass.

Each component takes ``model`` (the bundled "mini", a checkpoint folder, a hub id, or the URL of a running service),
which is loaded on first use, or a loaded ``scorer``. Components with the same scorer share its memory.
"""

import importlib.util
from typing import TYPE_CHECKING

from gliclass_rerank import MissingExtraError

if importlib.util.find_spec("langchain_core") is None:
    raise MissingExtraError("langchain", "gliclass_rerank_langchain")

# After the check, so that the error names the missing extra.
from langchain_core.version import VERSION

from gliclass_rerank_langchain.cross_encoder import GLiClassCrossEncoder
from gliclass_rerank_langchain.embeddings import GLiClassEmbeddings
from gliclass_rerank_langchain.fact_check import GLiClassFactCheck
from gliclass_rerank_langchain.rerank import GLiClassRerank
from gliclass_rerank_langchain.retriever import GLiClassRetriever
from gliclass_rerank_langchain.router import GLiClassRouter

if TYPE_CHECKING:
    from gliclass_rerank_langchain.decision_model import GLiClassDecisionModel

__all__ = [
    "GLiClassCrossEncoder",
    "GLiClassDecisionModel",
    "GLiClassEmbeddings",
    "GLiClassFactCheck",
    "GLiClassRerank",
    "GLiClassRetriever",
    "GLiClassRouter",
]


def __getattr__(name: str) -> object:
    """Import `GLiClassDecisionModel` on first use, since older versions of langchain-core have no decision models."""
    if name != "GLiClassDecisionModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("langchain_core.decisions") is None:
        purpose = f"GLiClassDecisionModel (langchain-core 1.8 or newer, got {VERSION}; pip install -U langchain-core)"
        raise MissingExtraError("langchain", purpose)
    from gliclass_rerank_langchain.decision_model import GLiClassDecisionModel

    return GLiClassDecisionModel
