"""Calibrators: monotone, fitted well, kept in the model's folder, and used by Reranker without reordering anything."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Tiny
from fakes import OverlapScorer
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import CheckpointError, InputError, OptionError, Reranker, load_scorer
from gliclass_rerank.calibration.calibrators import (
    Calibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    TemperatureCalibrator,
    sigmoid,
)
from gliclass_rerank.calibration.file import calibrator_from_dict, read_calibration, write_calibration
from gliclass_rerank.calibration.fitting import fit_calibrator
from gliclass_rerank.calibration.reliability import Bin, draw_reliability, expected_calibration_error, reliability
from gliclass_rerank.cli.main import main

finite32 = st.floats(-1e6, 1e6, width=32)
steepness = st.floats(1e-6, 1e6)
thresholds = st.lists(finite32, min_size=2, max_size=8, unique_by=float).map(sorted)


@st.composite
def isotonic(draw: Any) -> IsotonicCalibrator:
    at = draw(thresholds)
    values = draw(st.lists(st.floats(-50, 50), min_size=len(at), max_size=len(at)).map(sorted))
    if values[0] == values[-1]:
        values[-1] += 1
    return IsotonicCalibrator(tuple(at), tuple(values))


lines = st.builds(TemperatureCalibrator, steepness) | st.builds(PlattCalibrator, steepness, st.floats(-1e6, 1e6))
calibrators: st.SearchStrategy[Calibrator] = lines | isotonic()

ISOTONIC = IsotonicCalibrator((-2.0, 0.0, 1.0), (-3.0, -1.0, -1.0))
EACH = [TemperatureCalibrator(2.0, fitted_on="tune"), PlattCalibrator(0.5, -1.0), ISOTONIC]


def drawn(slope: float, intercept: float, count: int = 20_000) -> tuple[Any, Any]:
    """Logits, and outcomes that hold with probability sigmoid(slope * logit + intercept)."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, count).astype(np.float32)
    return logits, generator.random(count) < sigmoid(slope * logits + intercept)


# Applying


@given(calibrators, st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_a_larger_logit_never_gets_less(calibrator: Calibrator, logits: list[float]) -> None:
    ascending = np.sort(np.array(logits, np.float32))
    log_odds, probabilities = calibrator.log_odds(ascending), calibrator.probabilities(ascending)
    assert log_odds.dtype == probabilities.dtype == np.float32
    assert log_odds.shape == probabilities.shape == ascending.shape
    assert np.isfinite(log_odds).all()
    assert (np.diff(log_odds) >= 0).all()
    assert (np.diff(probabilities) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@given(isotonic())
def test_isotonic_is_its_thresholds_and_goes_on_beyond_them(calibrator: IsotonicCalibrator) -> None:
    assert calibrator.log_odds(calibrator.thresholds) == pytest.approx(calibrator.values, rel=1e-6, abs=1e-6)
    at, values = calibrator.thresholds, calibrator.values
    slope = (values[-1] - values[0]) / (at[-1] - at[0])
    span = at[-1] - at[0]
    assert calibrator.log_odds([at[0] - span, at[-1] + span]) == pytest.approx(
        [values[0] - slope * span, values[-1] + slope * span], rel=1e-5, abs=1e-5
    )


@given(isotonic(), st.floats(0, 1))
def test_isotonic_is_linear_between_thresholds(calibrator: IsotonicCalibrator, share: float) -> None:
    at = calibrator.thresholds[0] + share * (calibrator.thresholds[-1] - calibrator.thresholds[0])
    expected = np.interp(at, calibrator.thresholds, calibrator.values)
    assert calibrator.log_odds(at) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_each_kind_by_hand() -> None:
    logits = np.array([[-4.0, -1.0], [0.5, 3.0]])
    assert TemperatureCalibrator(2.0).log_odds(logits).tolist() == [[-2.0, -0.5], [0.25, 1.5]]
    assert PlattCalibrator(0.5, -1.0).log_odds(logits).tolist() == [[-3.0, -1.5], [-0.75, 0.5]]
    assert ISOTONIC.log_odds(logits) == pytest.approx(np.array([[-3 - 4 / 3, -2.0], [-1.0, -1 + 4 / 3]]))
    assert PlattCalibrator(1.0, 0.0).probabilities(logits) == pytest.approx(1 / (1 + np.exp(-logits)))
    assert PlattCalibrator(0.5, -1.0).log_odds(2.0).shape == ()
    assert PlattCalibrator(0.5, -1.0).log_odds([]).shape == (0,)
    assert all(np.isnan(calibrator.log_odds([np.nan, 1.0])).tolist() == [True, False] for calibrator in EACH)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperatureCalibrator(0.0), "temperature: expected a finite number in"),
        (lambda: TemperatureCalibrator("1"), "temperature"),  # type: ignore[arg-type]
        (lambda: TemperatureCalibrator(1.0, fitted_on=3), "fitted_on"),  # type: ignore[arg-type]
        (lambda: PlattCalibrator(-1.0, 0.0), "slope"),
        (lambda: PlattCalibrator(1.0, float("nan")), "intercept"),
        (lambda: IsotonicCalibrator((0.0,), (0.0,)), "two or more thresholds"),
        (lambda: IsotonicCalibrator((0.0, 1.0), (0.0,)), "2 thresholds and 1 values"),
        (lambda: IsotonicCalibrator((1.0, 1.0), (0.0, 1.0)), "strictly increasing"),
        (lambda: IsotonicCalibrator((1.0, 1.0 + 1e-12), (0.0, 1.0)), "strictly increasing"),
        (lambda: IsotonicCalibrator((0.0, 1.0), (1.0, 0.0)), "none below the one before"),
        (lambda: IsotonicCalibrator((0.0, 1.0), (1.0, 1.0)), "the last above the first"),
        (lambda: IsotonicCalibrator((0.0, float("inf")), (0.0, 1.0)), "thresholds: expected a finite number"),
        (lambda: IsotonicCalibrator("01", (0.0, 1.0)), "a sequence of numbers"),  # type: ignore[arg-type]
    ],
)
def test_numbers_that_are_no_calibration(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


# In a model's folder


@given(calibrators, st.none() | st.text())
def test_as_json_and_back(calibrator: Calibrator, note: str | None) -> None:
    noted = replace(calibrator, fitted_on=note)
    assert calibrator_from_dict(json.loads(json.dumps(noted.as_dict())), "here") == noted
    assert ("fitted_on" in noted.as_dict()) == (note is not None)


def test_a_folder_keeps_a_calibrator_for_each_task(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) == {}
    calibration = dict(zip(("relevance", "labels", "a task of tomorrow"), EACH, strict=True))
    write_calibration(tmp_path, calibration)
    assert read_calibration(str(tmp_path)) == calibration
    assert json.loads((tmp_path / "calibration.json").read_text("utf-8"))["relevance"] == {
        "kind": "temperature",
        "temperature": 2.0,
        "fitted_on": "tune",
    }
    write_calibration(tmp_path, {})
    assert read_calibration(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("\xff", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[]", "expected an object with a calibrator per task"),
        (
            '{"relevance": null}',
            "relevance: expected an object whose kind is one of 'temperature', 'platt', 'isotonic'",
        ),
        ('{"relevance": {"slope": 1}}', "relevance: expected an object whose kind"),
        ('{"relevance": {"kind": ["platt"]}}', "relevance: expected an object whose kind"),
        ('{"relevance": {"kind": "beta", "a": 1}}', "relevance: expected an object whose kind"),
        ('{"relevance": {"kind": "platt"}}', "platt has intercept, slope, got none"),
        (
            '{"support": {"kind": "platt", "slope": 1, "offset": 2}}',
            "support: platt has intercept, slope, got slope, off",
        ),
        ('{"relevance": {"kind": "platt", "slope": 1, "intercept": NaN}}', "intercept: expected a finite number"),
        ('{"relevance": {"kind": "platt", "slope": "1", "intercept": 0}}', "slope: expected a finite number"),
        ('{"relevance": {"kind": "temperature", "temperature": -1}}', "temperature: expected"),
        ('{"relevance": {"kind": "temperature", "temperature": 1' + "0" * 400 + "}}", "relevance: "),
        ('{"relevance": {"kind": "temperature", "temperature": 1, "fitted_on": 3}}', "fitted_on"),
        ('{"relevance": {"kind": "isotonic", "thresholds": 1, "values": [1]}}', "thresholds: expected a sequence"),
        ('{"relevance": {"kind": "isotonic", "thresholds": [1, 0], "values": [0, 1]}}', "strictly increasing"),
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "calibration.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_calibration(tmp_path)
    assert str(tmp_path / "calibration.json") in str(caught.value)


def test_only_calibrators_are_written_and_only_into_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a Calibrator"):
        write_calibration(tmp_path, {"relevance": {"kind": "platt"}})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="expected a model's folder"):
        write_calibration(tmp_path / "none", {})
    assert not list(tmp_path.iterdir())


# Fitting


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -2.0), (3.0, 1.0), (0.05, 0.0)])
def test_platt_finds_the_line_that_outcomes_were_drawn_from(slope: float, intercept: float) -> None:
    pytest.importorskip("sklearn")
    calibrator = fit_calibrator(*drawn(slope, intercept), fitted_on="made up")
    assert isinstance(calibrator, PlattCalibrator)
    assert (calibrator.slope, calibrator.intercept) == pytest.approx((slope, intercept), rel=0.1, abs=0.1)
    assert calibrator.fitted_on == "made up"


def test_temperature_finds_the_temperature() -> None:
    pytest.importorskip("sklearn")
    calibrator = fit_calibrator(*drawn(0.4, 0.0), "temperature")
    assert isinstance(calibrator, TemperatureCalibrator)
    assert calibrator.temperature == pytest.approx(2.5, rel=0.05)


@given(
    st.lists(st.tuples(st.floats(-30, 30, width=16), st.booleans()), min_size=3, max_size=40),
    st.floats(-100, 100),
)
def test_platt_is_the_likeliest_line(examples: list[tuple[float, bool]], shift: float) -> None:
    pytest.importorskip("sklearn")
    logits = np.array([logit for logit, _ in examples]) + shift
    held = np.array([outcome for _, outcome in examples])
    try:
        calibrator = fit_calibrator(logits, held)
    except InputError:
        return
    assert isinstance(calibrator, PlattCalibrator)
    targets = np.where(held, (held.sum() + 1) / (held.sum() + 2), 1 / ((~held).sum() + 2))
    residuals = sigmoid(calibrator.slope * logits + calibrator.intercept) - targets
    # Both derivatives of the log-likelihood are 0.
    assert residuals.sum() == pytest.approx(0, abs=1e-3)
    assert (residuals * (logits - logits.mean())).mean() / logits.std() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", ["platt", "temperature", "isotonic"])
def test_outcomes_that_a_threshold_tells_apart_stay_finite(kind: Any) -> None:
    pytest.importorskip("sklearn")
    calibrator = fit_calibrator([-2.0, -1.0, 1.0, 2.0], [False, False, True, True], kind)
    assert calibrator.kind == kind
    low, high = calibrator.probabilities([-1.5, 1.5])
    assert (low, high) == pytest.approx((0.25, 0.75), abs=0.03)  # Platt's targets of two examples each


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_fitting_brings_probabilities_close_to_frequencies(kind: Any) -> None:
    pytest.importorskip("sklearn")
    logits, held = drawn(0.4, -2.0)
    before = expected_calibration_error(sigmoid(logits[1::2]), held[1::2])
    calibrator = fit_calibrator(logits[::2], held[::2], kind)
    after = expected_calibration_error(calibrator.probabilities(logits[1::2]), held[1::2])
    assert after < 0.02 < 0.2 < before


@pytest.mark.parametrize(
    ("logits", "outcomes", "message"),
    [
        ([], [], "logits: expected at least one, got none"),
        ([1.0, 2.0], [True], r"got shapes \(2,\) and \(1,\)"),
        ([[1.0], [2.0]], [[True], [False]], "expected a row"),
        (1.0, True, "expected a row"),
        ([1.0, 2.0], [1, 0], "outcomes: expected booleans, got int64"),
        ([1.0, 2.0], [0.5, 0.1], "outcomes: expected booleans, got float64"),
        ([1.0, float("nan")], [True, False], "logits: expected finite numbers, got nan"),
        ([float("-inf"), 1.0], [True, False], "logits: expected finite numbers, got -inf"),
        (["a", "b"], [True, False], "logits: expected finite numbers"),
        ([1.0, 2.0], [True, True], "all of them hold"),
        ([1.0, 2.0], [False, False], "none of them holds"),
        ([1.0, 1.0], [False, True], "expected some that differ"),
        ([1.0, 1e30], [False, True], "within ±1e"),
    ],
)
def test_examples_that_cannot_be_fitted(logits: Any, outcomes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_calibrator(logits, outcomes)


@pytest.mark.parametrize("kind", ["platt", "temperature", "isotonic"])
def test_outcomes_the_wrong_way_round_are_refused(kind: Any) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(InputError, match="are the outcomes inverted"):
        fit_calibrator([-2.0, -1.0, 1.0, 2.0], [True, True, False, False], kind)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(OptionError, match="kind: expected one of 'temperature', 'platt', 'isotonic', got 'beta'"):
        fit_calibrator([1.0], [True], "beta")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("sklearn", "train", "fit_calibrator([0.0, 1.0], [False, True])"),
        ("matplotlib", "bench", "draw_reliability([], 'x.png', 'x')"),
    ],
)
def test_a_missing_extra_is_named(package: str, extra: str, call: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None  # Python's own way to say that a module cannot be imported
from gliclass_rerank import MissingExtraError
from gliclass_rerank.calibration.fitting import fit_calibrator
from gliclass_rerank.calibration.reliability import draw_reliability
try:
    {call}
except MissingExtraError as error:
    print(error.extra)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [extra], done.stderr


# Measuring


def test_reliability_by_hand() -> None:
    probabilities, outcomes = [0.0, 0.2, 0.25, 0.9, 1.0], [False, True, False, True, True]
    assert reliability(probabilities, outcomes, bins=5) == [
        Bin(0.0, 0.2, 2, 0.1, 0.5),  # 0.2 is the upper bound of its bin
        Bin(0.2, 0.4, 1, 0.25, 0.0),
        Bin(0.8, 1.0, 2, 0.95, 1.0),
    ]
    expected = (2 * 0.4 + 0.25 + 2 * 0.05) / 5
    assert expected_calibration_error(probabilities, outcomes, bins=5) == pytest.approx(expected)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 30))
def test_bins_hold_every_example_once(examples: list[tuple[float, bool]], bins: int) -> None:
    probabilities, outcomes = (np.array(column) for column in zip(*examples, strict=True))
    found = reliability(probabilities, outcomes, bins)
    assert sum(one.count for one in found) == len(examples)
    assert all(one.lower - 1e-9 <= one.mean_probability <= one.upper + 1e-9 for one in found)
    assert [one.lower for one in found] == sorted({one.lower for one in found})
    assert sum(one.count * one.frequency for one in found) == pytest.approx(outcomes.sum())
    assert 0 <= expected_calibration_error(probabilities, outcomes, bins) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.1], [True]), InputError, r"expected them in \[0, 1\], got 1.1 to 1.1"),
        (([-0.1, 0.5], [True, True]), InputError, "got -0.1 to 0.5"),
        (([0.5], [1]), InputError, "booleans"),
        (([], []), InputError, "at least one"),
        (([0.5], [True], 0), OptionError, "bins"),
        (([0.5], [True], 2.5), OptionError, "bins"),
    ],
)
def test_what_is_no_probability(arguments: Any, error: type[Exception], message: str) -> None:
    for measure in (reliability, expected_calibration_error):
        with pytest.raises(error, match=message):
            measure(*arguments)


def test_a_diagram_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    logits, held = drawn(1.0, 0.0, 500)
    draw_reliability(reliability(sigmoid(logits), held), tmp_path / "curve.png", "made up")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    draw_reliability([], tmp_path / "empty.svg", "no examples")
    assert b"<svg" in (tmp_path / "empty.svg").read_bytes()


# Used by Reranker

word = st.sampled_from("copy a file read sort list folder open close move".split())
text = st.lists(word, min_size=1, max_size=8).map(" ".join)


def reranker(calibrator: Calibrator | None = None, **options: Any) -> Reranker:
    scorer = OverlapScorer(**options)
    calibration = {} if calibrator is None else {"relevance": calibrator}
    scorer.info = replace(scorer.info, calibration=calibration)
    return Reranker(scorer)


@given(
    st.lists(text, min_size=1, max_size=3), st.lists(text, max_size=8), calibrators, st.sampled_from(["max", "mean"])
)
def test_a_calibration_reorders_nothing(
    queries: list[str], passages: list[str], calibrator: Calibrator, fuse: Any
) -> None:
    plain = reranker().rank(queries, passages, fuse=fuse)
    calibrated = reranker(calibrator).rank(queries, passages, fuse=fuse)
    assert [(ranked.index, ranked.logit) for ranked in calibrated] == [(ranked.index, ranked.logit) for ranked in plain]


def test_scores_are_calibrated_and_logits_stay_raw() -> None:
    passages = ["rename a folder", "copy a file", "read it"]
    for ranked in reranker(PlattCalibrator(0.5, -1.0)).rank("copy a file", passages):
        assert ranked.score == pytest.approx(sigmoid(0.5 * ranked.logit - 1))
    assert [ranked.logit for ranked in reranker(EACH[0]).rank("copy a file", passages)] == [3, -1, -3]


def test_a_prior_is_added_to_the_calibrated_log_odds() -> None:
    passages, prior = ["rename a folder", "copy a file"], [3.0, 1.0]
    for ranked in reranker(PlattCalibrator(0.5, -1.0)).rank(
        "copy a file", passages, first_stage_scores=prior, first_stage_weight=2
    ):
        z = (1, -1)[ranked.index]
        assert ranked.score == pytest.approx(sigmoid(0.5 * ranked.logit - 1 + 2 * z))


def test_criteria_and_other_tasks_stay_uncalibrated() -> None:
    scorer = OverlapScorer()
    plain = Reranker(scorer).rank("copy a file", ["copy it", "a file"], criteria={"a file": 1.0})
    scorer.info = replace(scorer.info, calibration={"labels": EACH[1], "support": EACH[1]})
    assert scorer.info.calibrated
    assert Reranker(scorer).rank("copy a file", ["copy it", "a file"], criteria={"a file": 1.0}) == plain
    calibrated = reranker(EACH[1]).rank("copy a file", ["a file"], criteria={"a file": 1.0})
    assert calibrated[0].criteria == pytest.approx({"a file": sigmoid(1)})


# Loaded and exported


def test_a_loaded_model_has_the_calibration_of_its_folder(tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert-average-text").folder, tmp_path / "model")
    plain = load_scorer(folder, device="cpu").info
    assert (plain.calibrated, plain.calibration) == (False, {})
    write_calibration(folder, {"relevance": EACH[1]})
    info = load_scorer(folder, device="cpu").info
    assert (info.calibrated, info.calibration) == (True, {"relevance": EACH[1]})
    assert info.revision != plain.revision
    assert isinstance(hash(info), int)
    (folder / "calibration.json").write_text('{"relevance": 1}', "utf-8")
    with pytest.raises(CheckpointError, match=r"calibration\.json, relevance: expected an object"):
        load_scorer(folder, device="cpu")


def test_info_tells_the_calibration(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tiny("bert-average-text").folder, tmp_path / "model")
    write_calibration(folder, {"relevance": EACH[1], "support": ISOTONIC})
    with pytest.raises(SystemExit):
        main(["info", "--model", str(folder), "--device", "cpu", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["calibrated"]
    assert told["calibration"]["relevance"] == {"kind": "platt", "slope": 0.5, "intercept": -1.0}
    with pytest.raises(SystemExit):
        main(["info", "--model", str(folder), "--device", "cpu"])
    assert "relevance (platt), support (isotonic)" in capsys.readouterr().out


@pytest.mark.slow
def test_an_export_keeps_the_calibration(tiny: Tiny, tmp_path: Path) -> None:
    from gliclass_rerank.export.onnx import export_checkpoint

    folder = copied(tiny("bert-average-text").folder, tmp_path / "model")
    write_calibration(folder, {"relevance": EACH[1]})
    export_checkpoint(folder, tmp_path / "exported", dtype="fp32")
    assert load_scorer(tmp_path / "exported").info.calibration == {"relevance": EACH[1]}


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target
