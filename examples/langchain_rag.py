"""LangChain over Python's documentation: FAISS finds, GLiClass reranks; a router, and a fact-checked answer.

    python examples/langchain_rag.py [FOLDER]    # a collection of yours in BEIR's layout instead

Needs `pip install "gliclass-rerank[examples]"`; nothing else is downloaded.
"""

from __future__ import annotations

from functools import partial

from collection import documents, mean_ndcg, questions, vectors
from gliclass_rerank_langchain import GLiClassFactCheck, GLiClassRetriever, GLiClassRouter
from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from gliclass_rerank import Route, load_scorer

FOUND = 20
# A model that makes something up, always the same; a real one: ChatOpenAI(model="...").
llm = FakeListChatModel(responses=["shutil.copy copies a file. It also sends you a postcard."])


class MiniLM(Embeddings):
    """all-MiniLM-L6-v2; HuggingFaceEmbeddings(model_name="...") does it for a model of the hub."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return vectors(texts)

    def embed_query(self, text: str) -> list[float]:
        return vectors([text])[0]


class Dense(BaseRetriever):
    """A vector store that leaves its cosine in the metadata, for `first_stage_key`."""

    store: FAISS

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = self.store.similarity_search_with_score(query, k=FOUND)
        return [Document(one.page_content, metadata={**one.metadata, "cosine": float(score)}) for one, score in found]


passages = [Document(text, metadata={"name": name}) for name, text in documents().items()]
dense = Dense(store=FAISS.from_documents(passages, MiniLM(), distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT))
hybrid = EnsembleRetriever(retrievers=[dense, BM25Retriever.from_documents(passages, k=FOUND)], weights=[0.5, 0.5])

scorer = load_scorer("mini")  # one model for all that follows


def names(retriever: BaseRetriever, query: str) -> list[str]:
    return [document.metadata["name"] for document in retriever.invoke(query)]


print(f"{len(passages)} passages, nDCG@10 of {len(questions())} questions")
for name, retriever, first_stage_key in (("FAISS", dense, "cosine"), ("FAISS and BM25", hybrid, None)):
    reranked = GLiClassRetriever(
        retriever=retriever, fetch_k=FOUND, k=10, first_stage_key=first_stage_key, scorer=scorer
    )
    before, after = mean_ndcg(partial(names, retriever)), mean_ndcg(partial(names, reranked))
    print(f"{name:15} {before:.3f}  reranked {after:.3f}")

best = GLiClassRetriever(retriever=hybrid, fetch_k=FOUND, k=3, scorer=scorer)
prompt = ChatPromptTemplate.from_template("Answer by these sources.\n{context}\nQuestion: {question}")
answering = (
    RunnablePassthrough.assign(context=lambda state: best.invoke(state["question"]))
    | RunnablePassthrough.assign(answer=prompt | llm | StrOutputParser())
    | GLiClassFactCheck(mode="filter", scorer=scorer)
)
router = GLiClassRouter(
    routes=[
        Route("python", "questions about Python's standard library"),
        Route("house", "holidays, salary and rules of the company"),
    ],
    branches={"python": answering, "house": RunnableLambda(lambda _: {"answer": "30 days a year."})},
    fallback="python",
    scorer=scorer,
)
for question in ("how do I copy a file?", "how many days of holiday do I have?"):
    result = router.invoke({"question": question})
    print(f"\n{question}\n  -> {result['answer']}")
    for claim in result.get("fact_check", []):
        print(f"     {claim['verdict']:15} {claim['support']:.2f}  {claim['text']}")
