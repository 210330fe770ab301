"""Calibrators of decisions: learned temperatures make probabilities that match the answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import OverlapScorer

from gliclass_rerank import Choice, Decider, InputError, Noul, NoulAnswer, Score
from gliclass_rerank.calibration.calibrators import TemperatureCalibrator
from gliclass_rerank.calibration.fitting import COLDEST, HOTTEST, fit_softmax_temperature
from gliclass_rerank.training.decisions import fit_decisions, read_decisions

QUESTIONS = {
    "paid": {"type": "noul", "criteria": {"true": "paid", "false": "open"}},
    "team": {"type": "choice", "criteria": {"invoice": None, "parcel": None, "other": None}},
    "level": {"type": "score", "criteria": ["little", "much"]},
}


def record(state: str, **answers: Any) -> dict[str, Any]:
    return {"state": state, "questions": {name: QUESTIONS[name] for name in answers}, "answers": answers}


def written(tmp_path: Path, *records: Any) -> Path:
    file = tmp_path / "decisions.jsonl"
    file.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records), "utf-8")
    return file


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_of_softmaxes_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    rows = [random.normal(0, 2 * temperature, size=2 + i % 4) for i in range(4000)]
    true = []
    for row in rows:
        shares = np.exp((row - row.max()) / temperature)
        true.append(int(random.choice(len(row), p=shares / shares.sum())))
    fitted = fit_softmax_temperature(rows, true, fitted_on="a test")
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    assert fitted.fitted_on == "a test"


def test_temperatures_have_limits_and_need_logits_that_tell_something() -> None:
    assert fit_softmax_temperature([[1.0, 0.0]], [0]).temperature == pytest.approx(COLDEST)
    assert fit_softmax_temperature([[1.0, 0.0]] * 101, [0] * 51 + [1] * 50).temperature == pytest.approx(HOTTEST)
    for rows, true, message in (
        ([[1.0, 0.0]], [1], "are the outcomes inverted"),
        ([[1.0, 0.0]], [2], "the true option among them"),
        ([[np.nan, 0.0]], [0], "finite"),
        ([], [], "at least one"),
        ([[1.0, 0.0]], [0, 1], "got 1 and 2"),
    ):
        with pytest.raises(InputError, match=message):
            fit_softmax_temperature(rows, true)


def test_records_are_read(tmp_path: Path) -> None:
    (read,) = read_decisions(written(tmp_path, record("a b", paid=False, team="parcel", level=1)))
    assert read.state == "a b"
    assert read.questions == {
        "paid": Noul(None, "paid", "open"),
        "team": Choice(None, ["invoice", "parcel", "other"]),
        "level": Score(None, ["little", "much"]),
    }
    assert read.answers == {"paid": 1, "team": 1, "level": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 1: "),
        ("[]", 'expected an object with "state"'),
        (record("a", paid="yes"), "answer 'paid': expected true or false"),
        (record("a", team="else"), "got 'else'"),
        (record("a", level=2), "got 2"),
        (record("a", level=True), "got True"),
        (record("", level=1), "state: expected some text"),
        (record("a", level=1) | {"answers": {}}, "one for each question"),
        ("", "expected at least one record"),
    ],
)
def test_malformed_records_are_refused_with_their_line(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_decisions(written(tmp_path, line))
    assert message in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read"):
        read_decisions(tmp_path / "none.jsonl")


def test_what_is_fitted_calibrates_the_decider(tmp_path: Path) -> None:
    # The model is right in three of four: yes with a difference of logits of 2, which is too sure at temperature 1.
    right, wrong = record("paid", paid=True, team="invoice"), record("paid", paid=False, team="parcel")
    others = [record("open invoice", paid=False, team="invoice", level=0), record("open much", paid=False, level=1)]
    records = read_decisions(written(tmp_path, *[right] * 30, *[wrong] * 10, *others * 20))
    scorer = OverlapScorer()
    fitted = fit_decisions(scorer, records, "temperature", fitted_on="a test")
    assert set(fitted) == {"noul", "choice-3-5", "score-2"}
    assert all(isinstance(one, TemperatureCalibrator) and one.fitted_on == "a test" for one in fitted.values())
    scorer.info = replace(scorer.info, calibration=fitted)
    answer = Decider(scorer).decide("paid", {"paid": Noul(None, "paid", "open")})["paid"]
    assert isinstance(answer, NoulAnswer)
    assert fitted["noul"].probabilities(2.0) == pytest.approx(answer.probability)
    assert set(fit_decisions(scorer, [])) == set()
