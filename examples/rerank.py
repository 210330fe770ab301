"""Passages for a question, best first: alone, with the first stage's own scores, and by a further criterion."""

from gliclass_rerank import Reranker

QUESTION = "How do I keep bread fresh for longer?"
PASSAGES = [
    "A sourdough starter is fed with flour and water once a day.",
    "Bread keeps for three days in a linen bag; sliced and frozen, it stays fresh for three months.",
    "Fresh bread is sold from six in the morning.",
    "Never put a loaf into the fridge: the cold makes it stale sooner than the cupboard does.",
]
FIRST_STAGE = [2.1, 6.4, 6.9, 3.0]  # what BM25 or a vector store gave them, on any scale

reranker = Reranker()
for hit in reranker.rank(QUESTION, PASSAGES, top_n=2):
    print(f"{hit.score:.3f}  {PASSAGES[hit.index]}")

print("\nwith the first stage's scores:")
for hit in reranker.rank(QUESTION, PASSAGES, first_stage_scores=FIRST_STAGE):
    print(f"{hit.score:.3f}  {PASSAGES[hit.index]}")

print("\nadvice rather than facts:")
for hit in reranker.rank(QUESTION, PASSAGES, criteria={"gives advice": 0.5}):
    print(f"{hit.score:.3f}  {hit.criteria['gives advice']:.3f}  {PASSAGES[hit.index]}")
