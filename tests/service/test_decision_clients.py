"""Real clients of decisions: jevcompat finds nothing wrong, OpenAI's and TypeSafe's get the library's answers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import Scorers
from environments import python_with
from gliclass_rerank_service import Settings, create_app
from pydantic import SecretStr
from services import LOCAL
from serving import ROOT, running

from gliclass_rerank import Choice, ChoiceAnswer, Decider, Noul, NoulAnswer
from gliclass_rerank.tasks.decide.questions import Question

CLIENTS = ("jevcompat==0.1.1", "openai==3.57.0", "typesafe-sdk==0.7.5", "zstandard==0.25.0")
KEY = "sk-conformance"
STATE = "The invoice was paid twice, and the parcel never came. " * 40
OPTIONS = {"invoices": "payments and refunds", "parcels": None}
MUST, ALL = 32, 46  # of 48 requirements; jevcompat tests two only where the service refuses other models


@pytest.fixture(scope="module")
def their_python() -> Path:
    try:
        return python_with(CLIENTS, ROOT / "build" / "conformance" / "decisions")
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"cannot install {' '.join(CLIENTS)}")


@pytest.mark.clients
@pytest.mark.long
@pytest.mark.timeout(1800)  # the environment is made here
def test_clients_of_decisions_get_the_librarys_answers(their_python: Path, scorers: Scorers) -> None:
    scorer = scorers("bert-simple")
    with running(create_app(scorer, Settings(api_keys=(SecretStr(KEY),)))) as url:
        done = subprocess.run(
            [their_python, ROOT / "tests" / "conformance" / "clients" / "decisions.py", url, KEY],
            input=json.dumps({"state": STATE, "options": OPTIONS}),
            env=os.environ | LOCAL,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    question = "Which one is it?"
    asked: dict[str, Question] = {"yes": Noul(question), "choice": Choice(question, OPTIONS)}
    yes, choice = Decider(scorer).decide(STATE, asked).values()
    assert isinstance(yes, NoulAnswer)
    assert isinstance(choice, ChoiceAnswer)
    for client in ("openai", "typesafe"):
        assert found[client]["yes"] == pytest.approx(yes.probability, abs=1e-6)
        assert found[client]["choice"] == pytest.approx(dict(choice.probabilities), abs=1e-6)
    assert found["openai"]["models"] == [scorer.info.name, "jev-latest"]
    assert found["openai"]["refusals"] == ["BadRequestError", "AuthenticationError"]
    verdict = found["jevcompat"]
    assert verdict["exit"] == 0, verdict["told"]
    assert f"MUST {MUST}/{MUST}, SHOULD {ALL - MUST}/{ALL - MUST}" in verdict["told"]
