"""A graph that routes a question, answers it, checks the answer, and looks once more for what has no support yet.

    question -> router -> rivers or cities -> answer -> check -> end
                  |                             ^         |
                  +----> nothing_here           +- look_again   at most once

Needs `pip install "gliclass-rerank[examples]"`; nothing else is downloaded.
"""

from __future__ import annotations

from typing import Any, TypedDict

from gliclass_rerank_langchain import GLiClassFactCheck, GLiClassRetriever, GLiClassRouter
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph

from gliclass_rerank import Route, load_scorer

RIVERS = [
    "The Danube rises in the Black Forest in Germany.",
    "The Danube flows into the Black Sea.",
    "The Rhine rises in the Swiss Alps and flows into the North Sea.",
]
CITIES = [
    "Berlin is the capital of Germany, and its largest city.",
    "Hamburg is the second largest city of Germany.",
]
# A model that has learnt its answers by heart, and made one of them up; yours: prompt | ChatOpenAI(model="...").
ANSWERS = {
    "Where does the Danube rise, and where does it end?": (
        "The Danube rises in Germany. The Danube flows into the Black Sea."
    ),
    "What is the largest city of Germany?": "Berlin is the largest city of Germany. Most of its people keep bees.",
}
scorer = load_scorer("mini")  # one model for all that follows


class State(TypedDict, total=False):
    """What travels through the graph; the last two are what `GLiClassFactCheck` adds."""

    question: str
    context: list[Document]
    answer: str
    looked_again: bool
    fact_check: list[dict[str, Any]]
    supported: float


def search(sentences: list[str]) -> GLiClassRetriever:
    """The best of some sentences; in place of all of them, any retriever of yours goes first."""
    documents = [Document(sentence) for sentence in sentences]
    every: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: documents)
    return GLiClassRetriever(retriever=every, k=1, scorer=scorer)


rivers, cities, everywhere = search(RIVERS), search(CITIES), search(RIVERS + CITIES)


def unsupported(state: State) -> list[str]:
    """The claims of the answer that nothing found so far supports."""
    return [claim["text"] for claim in state["fact_check"] if claim["verdict"] != "supported"]


def look_again(state: State) -> State:
    """Search for each unsupported claim itself, on every shelf."""
    found = [document for claim in unsupported(state) for document in everywhere.invoke(claim)]
    print(f"  looked again: {[document.page_content for document in found]}")
    return {"context": [*state["context"], *found], "looked_again": True}


def check(state: State) -> dict[str, Any]:
    return checker.invoke({**state})


def next_after_check(state: State) -> str:
    print(f"  checked by {len(state['context'])} of what was found: {state['supported']:.0%} supported")
    return "look_again" if unsupported(state) and not state.get("looked_again") else END


router = GLiClassRouter(
    routes=[Route("rivers", "rivers and seas"), Route("cities", "cities and the people who live there")],
    threshold=0.3,
    fallback="nothing_here",
    scorer=scorer,
)
checker = GLiClassFactCheck(scorer=scorer)
graph = StateGraph(State)
graph.add_node("rivers", lambda state: {"context": rivers.invoke(state["question"])})
graph.add_node("cities", lambda state: {"context": cities.invoke(state["question"])})
graph.add_node("nothing_here", lambda state: {"answer": "I only know rivers and cities."})
graph.add_node("answer", lambda state: {"answer": ANSWERS[state["question"]]})
graph.add_node("check", check)
graph.add_node("look_again", look_again)

graph.add_conditional_edges(START, router.decide, ["rivers", "cities", "nothing_here"])
graph.add_edge("rivers", "answer")
graph.add_edge("cities", "answer")
graph.add_edge("answer", "check")
graph.add_conditional_edges("check", next_after_check, ["look_again", END])
graph.add_edge("look_again", "answer")
app = graph.compile()

for question in (*ANSWERS, "Can you bake me a cake?"):
    print(f"{question}\n  to {router.decide(question)}")
    result = app.invoke({"question": question})
    print(f"  -> {result['answer']}")
    for claim in result.get("fact_check", []):
        print(f"     {claim['verdict']:15} {claim['support']:.2f}  {claim['text']}")
