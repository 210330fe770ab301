"""Reranking, routing and fact-checking with GLiClass as components of LlamaIndex pipelines.

    GLiClassRerank                 postprocessor: orders retrieved nodes by the query
    GLiClassFactCheckFilter        postprocessor: keeps the nodes that support, or refute, a claim
    GLiClassQuestionFilter         postprocessor: keeps nodes by the answer to a question about query and node
    GLiClassSelector               selector: sends queries to query engines or retrievers by their descriptions
    GLiClassFaithfulnessEvaluator  evaluator: judges each sentence of an answer by its contexts
    GLiClassEmbedding              embedding: vectors of nodes and queries, by a model with independent labels
    FactCheckedQueryEngine         query engine wrapper: adds verdicts to answers and removes unsupported claims

Each takes a model (``model="mini"``, a folder, a hub id or a service's URL), loaded on first use, or a loaded one
(``scorer=``). All are thread-safe, and none blocks an event loop.
"""

import importlib.util

from gliclass_rerank import MissingExtraError

if importlib.util.find_spec("llama_index") is None:
    raise MissingExtraError("llama-index", "gliclass_rerank_llama_index")

# After the check, so that the error names the missing extra.
from gliclass_rerank_llama_index.embedding import GLiClassEmbedding
from gliclass_rerank_llama_index.evaluator import GLiClassFaithfulnessEvaluator
from gliclass_rerank_llama_index.fact_check_filter import GLiClassFactCheckFilter
from gliclass_rerank_llama_index.query_engine import FactCheckedQueryEngine
from gliclass_rerank_llama_index.question_filter import GLiClassQuestionFilter
from gliclass_rerank_llama_index.rerank import GLiClassRerank
from gliclass_rerank_llama_index.selector import GLiClassSelector

__all__ = [
    "FactCheckedQueryEngine",
    "GLiClassEmbedding",
    "GLiClassFactCheckFilter",
    "GLiClassFaithfulnessEvaluator",
    "GLiClassQuestionFilter",
    "GLiClassRerank",
    "GLiClassSelector",
]
