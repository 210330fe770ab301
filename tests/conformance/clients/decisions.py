"""Clients of decisions: the suite jevcompat, OpenAI's client and TypeSafe's. Prints one JSON object.

The arguments are the service's URL and its key. Standard input has the state and the options of a choice.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import openai
import typesafe_sdk

QUESTION = "Which one is it?"


def suite(url: str, key: str) -> dict[str, Any]:
    """Run jevcompat; returns its report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command: list[str | Path] = [
            Path(sys.executable).with_name("jevcompat"),
            "test",
            url,
            "--key",
            key,
            "--json",
            report,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(report.read_text("utf-8"))
        return found | {"exit": done.returncode, "told": done.stdout[-4000:]}


def by_openai(url: str, key: str, state: Any, options: dict[str, str | None]) -> dict[str, Any]:
    """A predicate and a choice, and what a user sees of refusals."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
    choices = [{"value": name} | ({"description": told} if told else {}) for name, told in options.items()]
    questions = [
        {"type": "predicate", "name": "yes", "instructions": QUESTION},
        {"type": "choice", "instructions": QUESTION, "choices": choices},
    ]
    decision = client.decisions.create(model="any", input=state, questions=questions)
    yes, choice = decision.answers
    assert (yes.name, choice.name) == ("yes", None)
    assert decision._request_id
    refusals = []
    changes: list[tuple[Any, dict[str, Any]]] = [
        (client, {"questions": []}),
        (openai.OpenAI(base_url=f"{url}/v1", api_key="not the key"), {}),
    ]
    for refused, change in changes:
        try:
            refused.decisions.create(**{"model": "any", "input": state, "questions": questions} | change)
        except openai.APIStatusError as error:
            refusals.append(type(error).__name__)
    return {
        "yes": yes.probability,
        "choice": {share.value: share.probability for share in choice.probabilities},
        "models": [model.id for model in client.models.list()],
        "refusals": refusals,
    }


def by_typesafe(url: str, key: str, state: Any, options: dict[str, str | None]) -> dict[str, Any]:
    """The same questions. The state is long enough to be sent as zstd."""
    questions = {
        "yes": typesafe_sdk.Noul(instructions=QUESTION),
        "🙂 .": typesafe_sdk.Choice(instructions=QUESTION, criteria=options),
    }
    with typesafe_sdk.TypeSafeClient(api_key=key, base_url=url) as client:
        told = client.system_one(state=state, questions=questions)
    assert told.request_id
    return {"yes": told.nouls["yes"].noul, "choice": told.choices["🙂 ."].probabilities}


def main() -> None:
    """Run all of them."""
    url, key = sys.argv[1:]
    asked = json.load(sys.stdin)
    found = {
        "openai": by_openai(url, key, asked["state"], asked["options"]),
        "typesafe": by_typesafe(url, key, asked["state"], asked["options"]),
        "jevcompat": suite(url, key),
    }
    sys.stdout.write(json.dumps(found))


main()
