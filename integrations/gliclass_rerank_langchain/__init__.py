"""GLiClass in LangChain: rerank, route and fact-check, as parts that drop into a chain.

Each part takes ``model`` (the bundled "mini", a checkpoint folder, a hub id, or the URL of a running service), which is
loaded when it is first needed, or a ``scorer`` that is loaded already. Parts that get the same scorer share its memory.
"""

import importlib.util

from gliclass_rerank import MissingExtraError

if importlib.util.find_spec("langchain_core") is None:
    raise MissingExtraError("langchain", "gliclass_rerank_langchain")

# After the check, so that what is missing is named.
from gliclass_rerank_langchain.cross_encoder import GLiClassCrossEncoder
from gliclass_rerank_langchain.fact_check import GLiClassFactCheck
from gliclass_rerank_langchain.rerank import GLiClassRerank
from gliclass_rerank_langchain.retriever import GLiClassRetriever
from gliclass_rerank_langchain.router import GLiClassRouter

__all__ = ["GLiClassCrossEncoder", "GLiClassFactCheck", "GLiClassRerank", "GLiClassRetriever", "GLiClassRouter"]
