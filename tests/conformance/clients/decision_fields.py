"""Questions as fields of a type, for Pydantic AI and DSPy, and what they become."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent
from trial import Body, Call, Hit, hits

URGENT, TEAM, GOAL = "Does this need an answer today?", "Which team?", "Sort a ticket."


class Ticket(BaseModel):
    __doc__ = GOAL
    # With these bounds, the field is the probability itself.
    urgent: float = Field(ge=0, le=1, description=URGENT)
    team: Literal["invoices", "parcels"] = Field(description=TEAM)


def asked_by_agent(call: Call) -> Body:
    """What Pydantic AI asks for `Ticket`: its instructions have the field's name and the type's description."""
    urgent, team = (
        {"field": name, "question": asked, "goal": GOAL} for name, asked in (("urgent", URGENT), ("team", TEAM))
    )
    return {"state": call.query, "questions": fields_of(urgent, team)}


def fields_of(urgent: object, team: object) -> dict[str, object]:
    """The questions with these instructions, in the form of `/v1/systemone`."""
    options = {"invoices": None, "parcels": None}
    return {
        "urgent": {"type": "noul", "instructions": urgent},
        "team": {"type": "choice", "instructions": team, "criteria": options},
    }


def ask_agent(model: Any, prompt: str) -> list[Hit]:
    """Probabilities of `Ticket`, from an agent with a decision model."""
    told = Agent(model, output_type=Ticket).run_sync(prompt)
    details = told.response.provider_details
    assert details["probabilities"]["team"].keys() == {"invoices", "parcels"}
    return hits([told.output.urgent, *details["probabilities"]["team"].values()])
