"""LangChain's decision model: answers of `Decider` for every form of state and question, and its refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import needs_mini
from fakes import OverlapScorer

from gliclass_rerank import Choice, Decider, MissingExtraError, Noul, Score

langchain = pytest.importorskip("gliclass_rerank_langchain")
decisions = pytest.importorskip("langchain_core.decisions")

from langchain_core.messages import AIMessage, HumanMessage  # noqa: E402  # after the check for its version

ASKED = {
    "late": decisions.Noul(instructions="Is it late?", criteria={"true": "after the date"}),
    "team": decisions.Choice(instructions="Which team?", criteria={"billing": "invoices", "tech": None}),
    "mood": decisions.Score(instructions={"ask": "How angry?"}, criteria=["calm", "angry", "furious"]),
}
OURS = {
    "late": Noul("Is it late?", "after the date"),
    "team": Choice("Which team?", {"billing": "invoices", "tech": None}),
    "mood": Score({"ask": "How angry?"}, ["calm", "angry", "furious"]),
}
CHAT = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "On its way."}]
MESSAGES = [HumanMessage("Where is it?"), AIMessage([{"type": "text", "text": "On its way."}])]


def invoke(state: Any, questions: Any = None, **options: Any) -> Any:
    model = langchain.GLiClassDecisionModel(scorer=options.pop("scorer", None) or OverlapScorer(), **options)
    return model.invoke({"state": state, "questions": questions or ASKED})


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("Where is my parcel?", "Where is my parcel?"),
        ({"subject": "parcel", "days": 3}, {"subject": "parcel", "days": 3}),
        (MESSAGES, CHAT),
        (MESSAGES[0], CHAT[:1]),
        ({"history": MESSAGES, "plan": None}, {"history": CHAT, "plan": None}),
    ],
)
def test_answers_are_the_deciders(given: Any, read: Any) -> None:
    scorer = OverlapScorer()
    answers = {name: answer.as_dict() for name, answer in Decider(scorer).decide(read, OURS).items()}
    response = invoke(given, scorer=scorer)
    assert list(response.answers) == list(ASKED)
    assert response.model_dump(mode="json")["answers"] == answers
    assert response.scores["mood"].legend == dict(enumerate(["calm", "angry", "furious"]))
    assert response.model == scorer.info.name


def test_asynchronous_calls_and_batches_answer_alike() -> None:
    model = langchain.GLiClassDecisionModel(scorer=OverlapScorer())
    request = {"state": "Where is my parcel?", "questions": ASKED}
    expected = model.invoke(request)
    assert asyncio.run(model.ainvoke(request)) == expected
    assert model.batch([request, request]) == [expected, expected]


@pytest.mark.parametrize(
    "state",
    [
        {"photo": {"type": "image", "base64": "AAAA", "mime_type": "image/png"}},
        [HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}])],
        {"inner": [{"recording": {"type": "audio", "url": "https://example.org/a.mp3"}}]},
    ],
)
def test_media_are_refused(state: Any) -> None:
    with pytest.raises(ValueError, match="reads texts only"):
        invoke(state)


def test_an_object_that_only_names_a_medium_is_read() -> None:
    assert invoke({"type": "image", "title": "sunset"}).answers


def test_a_medium_in_instructions_is_refused() -> None:
    asked = {"who": decisions.Noul(instructions=[{"type": "image", "url": "https://example.org/a.png"}])}
    with pytest.raises(ValueError, match="reads texts only"):
        invoke("A letter.", asked)


def test_box_questions_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'where'.*Box"):
        invoke("A letter.", {"where": decisions.Box(instructions="the stamp")})


def test_no_questions_are_refused() -> None:
    model = langchain.GLiClassDecisionModel(scorer=OverlapScorer())
    with pytest.raises(ValueError, match="questions"):
        model.invoke({"state": "A letter.", "questions": {}})


@needs_mini
def test_mini_decides() -> None:
    response = langchain.GLiClassDecisionModel().invoke(
        {"state": "I was charged twice for my March invoice.", "questions": {"team": ASKED["team"]}}
    )
    assert response.choices["team"].choice == "billing"


def test_an_older_langchain_core_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"langchain-core 1\.8"):
        _ = langchain.GLiClassDecisionModel
