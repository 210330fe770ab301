"""Measure the gain of reranking in FAISS pipelines of LlamaIndex and LangChain.

    gliclass-rerank bench frameworks --data DATA/eval/retrieval [--queries 20] [--sets scifact,cosqa] [--cache CACHE]

In each framework FAISS retrieves 30 passages by the cosine of all-MiniLM-L6-v2's vectors. Our component then reranks
them, with the cosines as first-stage scores: `GLiClassRerank` as a node postprocessor, `GLiClassRetriever` around a
retriever. Reports nDCG@10 before and after, on the collections that are searched as a whole, and the p of a paired
permutation test over all queries. Needs the extras [bench] and [examples].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

import faiss
from gliclass_rerank_langchain import GLiClassRetriever
from gliclass_rerank_llama_index import GLiClassRerank
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.vector_stores.faiss import FaissVectorStore
from pydantic import PrivateAttr
from rich.progress import track

from benchmarks.lib.baselines import SentenceEncoder
from benchmarks.lib.eval_data import SEED, Collection, Query, data_folder, read_collection, set_folders
from benchmarks.lib.measures import permutation_p
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from gliclass_rerank import Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.metrics.ranking import ndcg_at

FOUND = 30  # passages per query retrieved by FAISS
COUNTED = 10
RERANKED = ", reranked"

Search = Callable[[str], Sequence[int]]
"""Function from a query to the indices of the retrieved passages, best first."""
Encode = Callable[[Sequence[str]], list[list[float]]]


class LangChainVectors(Embeddings):
    """LangChain embeddings of the precomputed vectors."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        return self._encode(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the query's vector."""
        return self._encode([text])[0]


class Scored(BaseRetriever):
    """FAISS with the cosine in each document's metadata."""

    store: FAISS

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = self.store.similarity_search_with_score(query, k=FOUND)
        return [Document(one.page_content, metadata={**one.metadata, "cosine": float(score)}) for one, score in found]


class LlamaIndexVectors(BaseEmbedding):
    """LlamaIndex embedding model of the precomputed vectors."""

    _encode: Encode = PrivateAttr()

    def __init__(self, encode: Encode) -> None:
        super().__init__()
        self._encode = encode

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encode([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encode(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encode([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def main() -> None:
    parser = evaluation_parser(__doc__)
    parser.add_argument("--queries", type=int, default=20, help="maximum per set; 20 by default")
    options = parser.parse_args()
    if options.no_dense or len(options.model or ()) > 1:
        parser.error("expected one model at most, and sentence vectors, which FAISS searches")
    (model,) = load_models(options.model or ["mini"], options.threads).items()
    encoder = SentenceEncoder(options.cache)
    values: dict[str, dict[str, list[float]]] = {}
    for folder in set_folders(data_folder(options.data), "eval/retrieval", options.sets):
        collection = read_collection(folder, options.queries)
        if not collection.reranking:
            for name, found in measured(collection, encoder, model[1]).items():
                values.setdefault(name, {})[collection.name] = found
    if not values:
        parser.error("expected collections that are searched as a whole, got only those with candidates of their own")
    means = {name: {key: fmean(row) for key, row in sets.items()} for name, sets in values.items()}
    shown = {name: {**row, "mean": fmean(row.values())} for name, row in means.items()}
    tests = {name: gain_p(values[name], values[name + RERANKED]) for name in ("LlamaIndex", "LangChain")}
    columns = list(next(iter(shown.values())))
    rows = {name: [row[column] for column in columns] for name, row in shown.items()}
    print_table(table(f"nDCG@10 of FAISS's {FOUND}, {model[0]}", columns, rows))
    print_table(table("Gain, all queries pooled", ["p"], {name: [p] for name, p in tests.items()}, digits=4))
    if not options.no_write:
        setting = {"seed": SEED, "queries of a set": options.queries, "found": FOUND, "p of the gain": tests}
        file = write(header(dict([model])) | setting | {"means": shown, "queries": values}, "frameworks", options.out)
        draw_bars(shown, "nDCG@10", f"FAISS's {FOUND} reranked in pipelines, {model[0]}", file.with_suffix(".png"))


def measured(collection: Collection, encoder: SentenceEncoder, scorer: Scorer) -> dict[str, list[float]]:
    """nDCG@10 of each query, in [0, 1], by contestant."""
    texts = [passage.shown for passage in collection.passages]

    read = [*texts, *(query.text for query in collection.queries)]
    known = dict(zip(read, encoder.encode(read, collection.name).tolist(), strict=True))

    def encode(wanted: Sequence[str]) -> list[list[float]]:
        return [known[text] for text in wanted]

    contestants = llama_index(texts, encode, scorer) | langchain(texts, encode, scorer)
    return {
        name: [ndcg(query, search(query.text)) for query in track(collection.queries, f"{collection.name}: {name}")]
        for name, search in contestants.items()
    }


def llama_index(texts: Sequence[str], encode: Encode, scorer: Scorer) -> dict[str, Search]:
    """The retriever of an index over FAISS, alone and with our postprocessor."""
    nodes = [TextNode(id_=str(place), text=text) for place, text in enumerate(texts)]
    vectors = LlamaIndexVectors(encode)
    store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(len(encode(texts[:1])[0])))
    storage = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=storage, embed_model=vectors)
    retriever = index.as_retriever(similarity_top_k=FOUND)
    rerank = GLiClassRerank(scorer=scorer, use_first_stage_scores=True)

    def places(found: Sequence[NodeWithScore]) -> list[int]:
        return [int(node.node_id) for node in found]

    return {
        "LlamaIndex": lambda query: places(retriever.retrieve(query)),
        "LlamaIndex" + RERANKED: lambda query: places(
            rerank.postprocess_nodes(retriever.retrieve(query), query_str=query)
        ),
    }


def langchain(texts: Sequence[str], encode: Encode, scorer: Scorer) -> dict[str, Search]:
    """A retriever over FAISS, alone and inside ours."""
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(texts)]
    store = FAISS.from_documents(
        documents, LangChainVectors(encode), distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT
    )
    retriever = Scored(store=store)
    reranked = GLiClassRetriever(retriever=retriever, fetch_k=FOUND, k=FOUND, first_stage_key="cosine", scorer=scorer)

    def places(found: Sequence[Document]) -> list[int]:
        return [document.metadata["place"] for document in found]

    return {
        "LangChain": lambda query: places(retriever.invoke(query)),
        "LangChain" + RERANKED: lambda query: places(reranked.invoke(query)),
    }


def ndcg(query: Query, found: Sequence[int]) -> float:
    return ndcg_at(COUNTED, [query.grades.get(place, 0) for place in found], list(query.grades.values()))


def gain_p(before: dict[str, list[float]], after: dict[str, list[float]]) -> float:
    """The p of the difference over the queries of all sets."""
    pairs = [zip(after[name], before[name], strict=True) for name in before]
    return permutation_p([new - old for pair in pairs for new, old in pair])


if __name__ == "__main__":
    main()
