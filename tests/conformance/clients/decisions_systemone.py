"""Clients of TypeSafe's format: its own, Pydantic AI's, DSPy's and LiteLLM's.

Pydantic AI and DSPy make questions of the fields of a type. Their probabilities are in the response's details and in
the history. The state is long enough for TypeSafe's client to compress its bodies.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks for a table of prices when it is imported

import dspy
import litellm
import typesafe_sdk
from decision_fields import TEAM, URGENT, ask_agent, asked_by_agent, fields_of
from dspy.experimental import TypeSafe
from pydantic_ai.exceptions import ModelAuthenticationError, ModelRateLimitError
from pydantic_ai.models.system_one import SystemOneModel
from pydantic_ai.providers.system_one import SystemOneProvider
from trial import Body, Call, Client, Hit, conduct, hits

TYPES = {"noul": typesafe_sdk.Noul, "choice": typesafe_sdk.Choice, "score": typesafe_sdk.Score}


def probabilities(answer: Mapping[str, Any]) -> list[float]:
    """Of yes, or of each option or level."""
    return [answer["noul"]] if "noul" in answer else list(answer["probabilities"].values())


def flat(answers: Mapping[str, Mapping[str, Any]]) -> list[Hit]:
    return hits([share for answer in answers.values() for share in probabilities(answer)])


def typesafe(call: Call) -> list[Hit]:
    questions = {
        name: TYPES[asked["type"]](**{key: value for key, value in asked.items() if key != "type"})
        for name, asked in call.questions.items()
    }
    with typesafe_sdk.TypeSafeClient(api_key=call.key or "none", base_url=call.url) as client:
        told = client.system_one(state=call.query, questions=questions)
    assert told.request_id
    return flat({name: answer.model_dump() for name, answer in told.answers.items()})


def lite_llm(call: Call) -> list[Hit]:
    told = litellm.systemone(
        model="hosted_vllm/any", state=call.query, questions=call.questions, api_base=f"{call.url}/v1", api_key=call.key
    )
    return flat({name: told.answers[name].model_dump() for name in call.questions})


def pydantic_ai(call: Call) -> list[Hit]:
    provider = SystemOneProvider(base_url=call.url, api_key=call.key)
    return ask_agent(SystemOneModel("any", provider=provider), call.query)


class Sort(dspy.Signature):  # type: ignore[misc]
    """Sort a ticket."""

    ticket: str = dspy.InputField()
    urgent: bool = dspy.OutputField(desc=URGENT)
    team: Literal["invoices", "parcels"] = dspy.OutputField(desc=TEAM)


def dspy_predict(call: Call) -> list[Hit]:
    model = TypeSafe(base_url=call.url, api_key=call.key or "none", cache=False)
    told = dspy.Predict(Sort)(ticket=call.query, lm=model)
    answers = model.history[-1]["response"]["answers"]
    assert told.team == answers["team"]["choice"]
    assert told.urgent == (answers["urgent"]["noul"] >= 0.5)
    return flat({name: {k: v for k, v in answers[name].items() if v is not None} for name in ("urgent", "team")})


def asked_by_dspy(call: Call) -> Body:
    state = {
        "instructions": Sort.instructions, "input_fields": "1. `ticket` (str):", "inputs": {"ticket": call.query}
    }  # fmt: skip
    return {"state": state, "questions": fields_of(URGENT, TEAM)}


conduct(
    Client(
        "TypeSafe `TypeSafeClient`",
        ["typesafe-sdk"],
        "TypeSafeClient(api_key=key, base_url=URL)",
        typesafe,
        wrong_key=typesafe_sdk.TypeSafeAuthenticationError,
        empty_query=typesafe_sdk.TypeSafeUnprocessableEntityError,
        kind="decisions",
    ),
    Client(
        "Pydantic AI `SystemOneModel`",
        ["pydantic-ai-slim"],
        "SystemOneModel(NAME, provider=SystemOneProvider(base_url=URL))",
        pydantic_ai,
        wrong_key=ModelAuthenticationError,
        empty_query=None,
        busy=ModelRateLimitError,
        kind="decisions",
        asked=asked_by_agent,
    ),
    Client(
        "DSPy `TypeSafe`",
        ["dspy", "typesafe-sdk"],
        "TypeSafe(base_url=URL, api_key=key)",
        dspy_predict,
        wrong_key=typesafe_sdk.TypeSafeAuthenticationError,
        empty_query=None,
        kind="decisions",
        asked=asked_by_dspy,
    ),
    Client(
        "LiteLLM `systemone`",
        ["litellm"],
        'systemone("hosted_vllm/NAME", api_base=URL + "/v1", ...)',
        lite_llm,
        wrong_key=litellm.AuthenticationError,
        empty_query=litellm.BadRequestError,
        busy=litellm.RateLimitError,
        kind="decisions",
    ),
)
