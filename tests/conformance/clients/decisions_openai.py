"""Clients of OpenAI's format: its own, LangChain's, Pydantic AI's and LiteLLM's."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks for a table of prices when it is imported

import litellm
from decision_fields import ask_agent, asked_by_agent
from langchain_core.messages import HumanMessage
from langchain_openai import decisions as langchain
from langchain_openai.chat_models.base import OpenAIAuthenticationError, OpenAIInvalidRequestError
from openai import AuthenticationError, BadRequestError, OpenAI
from pydantic_ai.exceptions import ModelAuthenticationError
from pydantic_ai.models.openai_decisions import OpenAIDecisionsModel
from pydantic_ai.providers.openai import OpenAIProvider
from trial import Call, Client, Hit, conduct, hits


def as_openai(name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A question of `/v1/systemone` in OpenAI's format."""
    head, criteria = {"name": name, "instructions": asked["instructions"]}, asked.get("criteria")
    if asked["type"] == "noul":
        return {"type": "predicate", **head}
    if asked["type"] == "score":
        return {"type": "score", **head, "levels": [{"label": level} for level in criteria or ()]}
    choices = [{"value": value, **({"description": told} if told else {})} for value, told in (criteria or {}).items()]
    return {"type": "choice", **head, "choices": choices}


def flat(answers: list[Any]) -> list[Hit]:
    """Probabilities of OpenAI's answers, in their order."""
    shares: list[float] = []
    for answer in answers:
        if answer.type == "predicate":
            shares.append(answer.probability)
        else:
            shares += [share.probability for share in answer.probabilities]
    return hits(shares)


def openai(call: Call) -> list[Hit]:
    client = OpenAI(base_url=f"{call.url}/v1", api_key=call.key or "none")
    questions = [as_openai(name, asked) for name, asked in call.questions.items()]
    told = client.decisions.create(model="any", input=call.query, questions=questions)
    assert told._request_id
    assert [answer.name for answer in told.answers] == list(call.questions)
    assert "jev-latest" in [model.id for model in client.models.list()]
    return flat(told.answers)


def openai_unnamed(call: Call) -> list[Hit]:
    """Questions without names, about a message in parts."""
    client = OpenAI(base_url=f"{call.url}/v1", api_key=call.key or "none")
    questions = [{**as_openai("", asked), "name": None} for asked in call.questions.values()]
    message = {"role": "user", "content": [{"type": "input_text", "text": call.query}]}
    told = client.decisions.create(model="any", input=[message], questions=questions)
    assert {answer.name for answer in told.answers} == {None}
    return flat(told.answers)


def lite_llm(call: Call) -> list[Hit]:
    questions = [as_openai(name, asked) for name, asked in call.questions.items()]
    told = litellm.decisions(
        model="openai/any", input=call.query, questions=questions, api_base=f"{call.url}/v1", api_key=call.key or "none"
    )
    return flat(list(told.answers))


def pydantic_ai(call: Call) -> list[Hit]:
    provider = OpenAIProvider(base_url=f"{call.url}/v1", api_key=call.key or "none")
    return ask_agent(OpenAIDecisionsModel("any", provider=provider), call.query)


def lang_chain(call: Call) -> list[Hit]:
    return by_lang_chain(call, call.query)


def lang_chain_messages(call: Call) -> list[Hit]:
    """The state as a message of a user."""
    return by_lang_chain(call, [HumanMessage(call.query)])


def by_lang_chain(call: Call, state: Any) -> list[Hit]:
    model = langchain.OpenAIDecisions(model="any", base_url=f"{call.url}/v1", api_key=call.key or "none")
    questions: dict[str, Any] = {}
    for name, asked in call.questions.items():
        if asked["type"] == "noul":
            questions[name] = langchain.Predicate(instructions=asked["instructions"])
        elif asked["type"] == "choice":
            questions[name] = langchain.Choice(instructions=asked["instructions"], choices=asked["criteria"])
        else:
            questions[name] = langchain.Score(instructions=asked["instructions"], levels=asked["criteria"])
    told = model.invoke({"input": state, "questions": questions})
    assert told.request_id
    shares: list[float] = []
    for name in call.questions:
        answer = told.answers[name]
        shares += [answer.probability] if answer.type == "predicate" else list(answer.probabilities.values())
    return hits(shares)


conduct(
    Client(
        "OpenAI, decisions",
        ["openai"],
        'OpenAI(base_url=URL + "/v1", api_key=key)',
        openai,
        wrong_key=AuthenticationError,
        empty_query=BadRequestError,
        also={"unnamed": openai_unnamed},
        kind="decisions",
        refused=400,
    ),
    Client(
        "LangChain `OpenAIDecisions`",
        ["langchain-openai"],
        'OpenAIDecisions(model=NAME, base_url=URL + "/v1")',
        lang_chain,
        wrong_key=OpenAIAuthenticationError,
        empty_query=OpenAIInvalidRequestError,
        also={"messages": lang_chain_messages},
        kind="decisions",
        refused=400,
    ),
    Client(
        "Pydantic AI `OpenAIDecisionsModel`",
        ["pydantic-ai-slim", "openai"],
        'OpenAIDecisionsModel(NAME, provider=OpenAIProvider(base_url=URL + "/v1"))',
        pydantic_ai,
        wrong_key=ModelAuthenticationError,
        empty_query=None,
        kind="decisions",
        refused=400,
        asked=asked_by_agent,
    ),
    Client(
        "LiteLLM `decisions`",
        ["litellm"],
        'decisions("openai/NAME", api_base=URL + "/v1", ...)',
        lite_llm,
        wrong_key=litellm.AuthenticationError,
        empty_query=litellm.BadRequestError,
        busy=litellm.RateLimitError,
        kind="decisions",
        refused=400,
    ),
)
