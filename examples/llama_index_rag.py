"""LlamaIndex over Python's documentation: FAISS finds, GLiClass reranks; a router, and a fact-checked answer.

    python examples/llama_index_rag.py [FOLDER]    # a collection of yours in BEIR's layout instead

Needs `pip install "gliclass-rerank[examples]"`; nothing else is downloaded.
"""

from __future__ import annotations

from functools import partial

import faiss
from collection import documents, mean_ndcg, questions, vectors
from gliclass_rerank_llama_index import FactCheckedQueryEngine, GLiClassRerank, GLiClassSelector
from llama_index.core import StorageContext, VectorStoreIndex, get_response_synthesizer
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import CustomQueryEngine, RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.response import Response
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.retrievers.bm25 import BM25Retriever
from llama_index.vector_stores.faiss import FaissVectorStore

from gliclass_rerank import load_scorer

FOUND = 20
llm = MockLLM()  # a real one: llm = OpenAI(model="...")


class MiniLM(BaseEmbedding):
    """all-MiniLM-L6-v2; HuggingFaceEmbedding(model_name="...") does it for a model of the hub."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return vectors([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return vectors(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vectors([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class Fixed(CustomQueryEngine):
    """Answers always the same, as a language model would that made something up."""

    retriever: BaseRetriever
    answer: str

    def custom_query(self, query_str: str) -> Response:
        return Response(self.answer, source_nodes=self.retriever.retrieve(query_str))


nodes: list[BaseNode] = [TextNode(id_=name, text=text) for name, text in documents().items()]
store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(384))
storage = StorageContext.from_defaults(vector_store=store)
index = VectorStoreIndex(nodes, storage_context=storage, embed_model=MiniLM())
dense = index.as_retriever(similarity_top_k=FOUND)
bm25 = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=FOUND)
hybrid = QueryFusionRetriever(
    [dense, bm25], similarity_top_k=FOUND, num_queries=1, mode=FUSION_MODES.RECIPROCAL_RANK, llm=llm
)

scorer = load_scorer("mini")  # one model for all that follows
rerank = GLiClassRerank(scorer=scorer, use_first_stage_scores=True)


def names(retriever: BaseRetriever, postprocessors: list[BaseNodePostprocessor], query: str) -> list[str]:
    found = retriever.retrieve(query)
    for postprocessor in postprocessors:
        found = postprocessor.postprocess_nodes(found, query_str=query)
    return [node.node_id for node in found]


print(f"{len(nodes)} passages, nDCG@10 of {len(questions())} questions")
for name, retriever in (("FAISS", dense), ("FAISS and BM25", hybrid)):
    before, after = mean_ndcg(partial(names, retriever, [])), mean_ndcg(partial(names, retriever, [rerank]))
    print(f"{name:15} {before:.3f}  reranked {after:.3f}")

synthesizer = get_response_synthesizer(llm=llm)
docs = RetrieverQueryEngine(hybrid, synthesizer, node_postprocessors=[rerank.model_copy(update={"top_n": 3})])
house = VectorStoreIndex([TextNode(text="Holidays: 30 days a year.")], embed_model=MiniLM()).as_query_engine(llm=llm)
router = RouterQueryEngine(
    selector=GLiClassSelector(scorer=scorer, fallback="python"),
    query_engine_tools=[
        QueryEngineTool.from_defaults(docs, name="python", description="questions about Python's standard library"),
        QueryEngineTool.from_defaults(house, name="house", description="holidays, salary and rules of the company"),
    ],
    llm=llm,
)
for question in ("how do I copy a file?", "how many days of holiday do I have?"):
    result = router.query(question)
    selected = (result.metadata or {})["selector_result"]
    print(f"\n{question}\n  -> {selected.selections[0].reason}")

made_up = Fixed(retriever=dense, answer="shutil.copy copies a file. It also sends you a postcard.")
checked = FactCheckedQueryEngine(made_up, scorer=scorer).query("how do I copy a file?")
print(f"\n{made_up.answer}\n  -> {checked}")
for claim in (checked.metadata or {})["fact_check"]["claims"]:
    print(f"     {claim['verdict']:15} {claim['support']:.2f}  {claim['text']}")
