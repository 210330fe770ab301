"""Calibrate logits: calibrator classes, fitting, file format, and calibration error.

A calibrator maps the raw logit of one task to calibrated log-odds, log(p / (1 - p)), and never swaps two logits.
Applying one needs NumPy alone, fitting one needs scikit-learn, and drawing needs matplotlib.
"""

from __future__ import annotations

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.errors import CheckpointError, InputError, MissingExtraError, OptionError
from gliclass_rerank.validation import check_choice, check_number

Kind = Literal["temperature", "platt", "isotonic"]
FloatArray = NDArray[np.float32]
CALIBRATION_FILE = "calibration.json"
TASKS = ("relevance", "support", "refutation", "labels")
"""Tasks whose calibrators this package uses. A file may hold others."""

FINITE = float(np.finfo(np.float32).max)
STEEPEST = LARGEST = 1e6  # beyond the range of any working model


@dataclass(frozen=True, slots=True)
class Calibrator(ABC):
    """A map from the raw logits of one task to calibrated log-odds.

    A larger logit never gets smaller log-odds, so calibration does not change the order. NaN stays NaN.

    Attributes:
        kind: "temperature", "platt" or "isotonic".
        fitted_on: a note about the data it was fitted on.
    """

    kind: ClassVar[Kind]
    fitted_on: str | None = field(default=None, kw_only=True)

    @abstractmethod
    def _mapped(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated log-odds, of the shape of ``logits``."""

    def log_odds(self, logits: ArrayLike) -> FloatArray:
        """Calibrated log-odds, float32, of the shape of ``logits`` (raw, any shape). Finite for finite logits."""
        mapped = self._mapped(np.asarray(logits, np.float64))
        return np.asarray(np.clip(mapped, -FINITE, FINITE), np.float32)

    def probabilities(self, logits: ArrayLike) -> FloatArray:
        """Calibrated probabilities in [0, 1], float32, of the shape of ``logits`` (raw, any shape)."""
        return np.asarray(sigmoid(self.log_odds(logits)), np.float32)

    def as_dict(self) -> dict[str, object]:
        """Input of `calibrator_from_dict`: "kind", the fitted numbers, and "fitted_on" if there is a note."""
        values = {name: value for name, value in asdict(self).items() if name != "fitted_on" or value is not None}
        return {"kind": self.kind} | values

    def _check_note(self) -> None:
        if not isinstance(self.fitted_on, str | None):
            raise OptionError(f"fitted_on: expected a note in words or None, got {self.fitted_on!r:.60}")


@dataclass(frozen=True, slots=True)
class TemperatureCalibrator(Calibrator):
    """log-odds = logit / temperature (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    Raises:
        OptionError: a temperature outside [1e-6, 1e6].
    """

    kind: ClassVar[Kind] = "temperature"
    temperature: float

    def __post_init__(self) -> None:
        self._check_note()
        temperature = check_number(self.temperature, "temperature", low=1 / STEEPEST, high=STEEPEST)
        object.__setattr__(self, "temperature", temperature)

    def _mapped(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return logits / self.temperature


@dataclass(frozen=True, slots=True)
class PlattCalibrator(Calibrator):
    """log-odds = slope * logit + intercept (Platt 1999, "Probabilistic Outputs for Support Vector Machines").

    Raises:
        OptionError: a slope outside [1e-6, 1e6] or an intercept outside [-1e6, 1e6].
    """

    kind: ClassVar[Kind] = "platt"
    slope: float
    intercept: float

    def __post_init__(self) -> None:
        self._check_note()
        slope = check_number(self.slope, "slope", low=1 / STEEPEST, high=STEEPEST)
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "intercept", check_number(self.intercept, "intercept", low=-LARGEST, high=LARGEST))

    def _mapped(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.slope * logits + self.intercept


@dataclass(frozen=True, slots=True)
class IsotonicCalibrator(Calibrator):
    """Log-odds that are linear between thresholds (Zadrozny and Elkan 2002, interpolated in log-odds).

    Outside the thresholds the log-odds continue with the mean slope between the first and the last one, so that logits
    beyond the fitted range stay distinct.

    Attributes:
        thresholds: logits, at least two, strictly increasing in float32, within [-1e6, 1e6].
        values: log-odds at the thresholds, not decreasing, the last above the first, within [-1e6, 1e6].

    Raises:
        OptionError: other thresholds or values.
    """

    kind: ClassVar[Kind] = "isotonic"
    thresholds: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        self._check_note()
        thresholds = _numbers(self.thresholds, "thresholds")
        values = _numbers(self.values, "values")
        if len(thresholds) != len(values) or len(values) < 2:
            counts = f"{len(thresholds)} thresholds and {len(values)} values"
            raise OptionError(f"isotonic: expected two or more thresholds and as many values, got {counts}")
        if not all(np.float32(one) < np.float32(next_one) for one, next_one in pairwise(thresholds)):
            raise OptionError("thresholds: expected strictly increasing ones, in float32; got others")
        if not all(one <= next_one for one, next_one in pairwise(values)) or values[0] == values[-1]:
            raise OptionError("values: expected none below the one before it, and the last above the first; got others")
        object.__setattr__(self, "thresholds", thresholds)
        object.__setattr__(self, "values", values)

    def _mapped(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        # Unlike np.interp, this never ends a segment above the start of the next one by rounding.
        x, y = np.array(self.thresholds), np.array(self.values)
        inside = np.clip(logits, x[0], x[-1])
        left = np.clip(np.searchsorted(x, inside, side="right") - 1, 0, len(x) - 2)
        share = (inside - x[left]) / (x[left + 1] - x[left])
        between = np.minimum(y[left] + share * (y[left + 1] - y[left]), y[left + 1])
        mean_slope = (y[-1] - y[0]) / (x[-1] - x[0])
        mapped: NDArray[np.float64] = between + mean_slope * (logits - inside)
        return mapped


KINDS: Mapping[str, type[Any]] = {
    made.kind: made for made in (TemperatureCalibrator, PlattCalibrator, IsotonicCalibrator)
}


def sigmoid(log_odds: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) in float64, of the shape of ``log_odds``, exact for large negative x as well."""
    return np.exp(-np.logaddexp(0, -np.asarray(log_odds, np.float64)))


def calibrated(logits: ArrayLike, calibrator: Calibrator | None) -> NDArray[np.float64]:
    """Log-odds in float64, of the shape of ``logits`` (raw, any shape). Without a calibrator, the logits themselves."""
    return np.asarray(logits if calibrator is None else calibrator.log_odds(logits), np.float64)


# File format


def calibrator_from_dict(value: object, where: str | Path) -> Calibrator:
    """Create a calibrator from the output of `Calibrator.as_dict`.

    Args:
        value: an object of a JSON file.
        where: the file, and optionally the position in it, for errors.

    Raises:
        CheckpointError: another object, or numbers that are no calibration.
    """
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(kind, str) or kind not in KINDS:
        expected = ", ".join(map(repr, KINDS))
        raise CheckpointError(
            f"{where}: expected an object whose kind is one of {expected}, got {value!r:.60}; {REFIT}"
        )
    numbers = {entry.name for entry in fields(KINDS[kind])} - {"fitted_on"}
    given = {key: entry for key, entry in value.items() if key != "kind"}
    if given.keys() - {"fitted_on"} != numbers:
        names = ", ".join(sorted(numbers))
        raise CheckpointError(f"{where}: {kind} has {names}, got {', '.join(map(str, given)) or 'none'}; {REFIT}")
    try:
        calibrator: Calibrator = KINDS[kind](**given)
    except OptionError as error:
        raise CheckpointError(f"{where}: {error}; {REFIT}") from error
    return calibrator


REFIT = "fit it anew, or delete it to go without"


def read_calibration(folder: str | Path) -> dict[str, Calibrator]:
    """Read the calibrators of a model folder (``calibration.json``), by task. Empty without such a file.

    Tasks are "relevance", "support", "refutation" and "labels". Others are kept unchanged.

    Raises:
        CheckpointError: the file is not readable, or no such mapping.
    """
    file = Path(folder) / CALIBRATION_FILE
    if not file.is_file():
        return {}
    try:
        tasks = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not readable as JSON: {error}; {REFIT}") from error
    if not isinstance(tasks, dict):
        raise CheckpointError(f"{file}: expected an object with a calibrator a task, got {tasks!r:.60}; {REFIT}")
    return {task: calibrator_from_dict(value, f"{file}, {task}") for task, value in tasks.items()}


def write_calibration(folder: str | Path, calibration: Mapping[str, Calibrator]) -> None:
    """Write the calibrators of a model folder, by task, and replace all existing ones.

    Raises:
        InputError: no such folder, or a value that is no `Calibrator`.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: expected a model's folder, and there is none; make it first")
    for task, calibrator in calibration.items():
        if not isinstance(task, str) or not isinstance(calibrator, Calibrator):
            raise InputError(
                f"calibration: expected a Calibrator by the name of its task, got {task!r}: {calibrator!r}"
            )
    tasks = {task: calibrator.as_dict() for task, calibrator in calibration.items()}
    (Path(folder) / CALIBRATION_FILE).write_text(json.dumps(tasks, indent=2) + "\n", "utf-8")


# Fitting


def fit_calibrator(
    logits: ArrayLike, outcomes: ArrayLike, kind: Kind = "platt", *, fitted_on: str | None = None
) -> Calibrator:
    """Fit a calibrator on logits with known outcomes. Needs the extra "train".

    With N+ positive and N- negative outcomes the targets are Platt's (1999, section 2.2), (N+ + 1) / (N+ + 2) and
    1 / (N- + 2), instead of 1 and 0, so that the fit is finite even if a threshold separates all examples. Temperature
    and Platt maximise the likelihood, isotonic is the least-squares monotone fit.

    Args:
        logits: raw, shape (examples,).
        outcomes: observed outcomes, booleans, shape (examples,); both must occur.
        kind: "platt" for few examples, "isotonic" from about a thousand on (Niculescu-Mizil and Caruana 2005),
            "temperature" to keep a logit of 0 at a probability of one half.
        fitted_on: a note to store.

    Raises:
        InputError: other shapes, no examples, only one outcome, logits that are not finite, all equal, or larger for
            negative outcomes.
        OptionError: an unknown kind, or a note that is no string.
        MissingExtraError: scikit-learn is not installed.
    """
    check_choice(kind, get_args(Kind), "kind")
    scores, observed = scores_and_outcomes(logits, outcomes, "logits")
    check_both_occur(observed)
    if np.abs(scores).max() > LARGEST or len(np.unique(scores.astype(np.float32))) < 2:
        raise InputError(f"logits: expected some that differ, within ±{LARGEST:g}; does the model work?")
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError("train", "fitting a calibration")
    if kind == "isotonic":
        return _fit_isotonic(scores, observed, fitted_on)
    slope, intercept = _fit_line(scores, observed, through_zero=kind == "temperature")
    if slope <= 0:
        raise InputError(f"logits: {UPSIDE_DOWN}")
    if kind == "temperature":
        return TemperatureCalibrator(1 / slope, fitted_on=fitted_on)
    return PlattCalibrator(slope, intercept, fitted_on=fitted_on)


UPSIDE_DOWN = (
    "expected larger ones where the outcome holds, and they tell nothing or the opposite; are the outcomes inverted?"
)


def scores_and_outcomes(
    scores: ArrayLike, outcomes: ArrayLike, what: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and outcomes as arrays of one shape (examples,), at least one. ``what`` names the scores in errors.

    Raises:
        InputError: other shapes, none, scores that are no finite numbers, outcomes that are no booleans.
    """
    try:
        numbers, observed = np.asarray(scores, np.float64), np.asarray(outcomes)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected finite numbers with as many outcomes, got {scores!r:.60}") from error
    if numbers.ndim != 1 or numbers.shape != observed.shape:
        raise InputError(
            f"{what}: expected a row and as many outcomes, got shapes {numbers.shape} and {observed.shape}"
        )
    if not len(numbers):
        raise InputError(f"{what}: expected at least one, got none")
    if observed.dtype != np.bool_:
        raise InputError(f"outcomes: expected booleans, got {observed.dtype}; compare grades with a threshold first")
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{what}: expected finite numbers, got {numbers[~np.isfinite(numbers)][0]}; is the model broken?"
        )
    return numbers, observed


def check_both_occur(observed: NDArray[np.bool_]) -> None:
    """Raise `InputError` unless there are positive and negative outcomes."""
    if observed.all() or not observed.any():
        which = "all of them hold" if observed.all() else "none of them holds"
        raise InputError(f"outcomes: expected some that hold and some that do not, but {which}; add the other kind")


def _platt_targets(observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    positive, negative = int(observed.sum()), int((~observed).sum())
    return np.where(observed, (positive + 1) / (positive + 2), 1 / (negative + 2))


def _fit_line(scores: NDArray[np.float64], observed: NDArray[np.bool_], *, through_zero: bool) -> tuple[float, float]:
    """Slope and intercept (0 if ``through_zero``) of maximum likelihood for Platt's targets."""
    from sklearn.linear_model import LogisticRegression

    centre = 0.0 if through_zero else float(scores.mean())
    scale = float(np.sqrt(np.square(scores - centre).mean()))
    inputs = ((scores - centre) / scale)[:, None]
    targets = _platt_targets(observed)
    # A target between 0 and 1 becomes two weighted examples, one of each outcome.
    model = LogisticRegression(C=np.inf, fit_intercept=not through_zero, solver="newton-cholesky", tol=1e-9)
    model.fit(np.vstack([inputs, inputs]), np.repeat([1, 0], len(observed)), np.concatenate([targets, 1 - targets]))
    slope = float(model.coef_[0, 0]) / scale
    return slope, 0.0 if through_zero else float(model.intercept_[0]) - slope * centre


def _fit_isotonic(scores: NDArray[np.float64], observed: NDArray[np.bool_], fitted_on: str | None) -> Calibrator:
    from sklearn.isotonic import IsotonicRegression

    inputs = scores.astype(np.float32).astype(np.float64)  # merge thresholds that are equal in float32
    model = IsotonicRegression().fit(inputs, _platt_targets(observed))
    thresholds, frequencies = model.X_thresholds_, model.y_thresholds_
    values = np.maximum.accumulate(np.log(frequencies) - np.log1p(-frequencies))
    if values[0] == values[-1]:
        raise InputError(f"logits: {UPSIDE_DOWN}")
    return IsotonicCalibrator(tuple(thresholds.tolist()), tuple(values.tolist()), fitted_on=fitted_on)


def _numbers(values: object, what: str) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise OptionError(f"{what}: expected a sequence of numbers, got {values!r:.60}")
    return tuple(check_number(value, what, low=-LARGEST, high=LARGEST) for value in values)


# Calibration error


@dataclass(frozen=True, slots=True)
class Bin:
    """The examples with a probability in (lower, upper], or in [0, upper] for the first bin.

    Attributes:
        lower, upper: the bin's bounds, in [0, 1].
        count: number of examples, > 0.
        mean_probability: mean predicted probability, in [0, 1].
        frequency: share of the examples with a positive outcome, in [0, 1].
    """

    lower: float
    upper: float
    count: int
    mean_probability: float
    frequency: float


def reliability(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 15) -> list[Bin]:
    """Compare predicted and observed frequencies in bins of equal width, ascending. Empty bins are left out.

    Args:
        probabilities: shape (examples,), in [0, 1].
        outcomes: observed outcomes, booleans, shape (examples,).
        bins: number of bins of the unit interval.

    Raises:
        InputError: other shapes, none, no probabilities, no booleans.
        OptionError: ``bins`` is no positive number.
    """
    if not isinstance(bins, int) or isinstance(bins, bool) or bins < 1:
        raise OptionError(f"bins: expected a positive number, got {bins!r}")
    predicted, observed = scores_and_outcomes(probabilities, outcomes, "probabilities")
    if predicted.min() < 0 or predicted.max() > 1:
        raise InputError(f"probabilities: expected them in [0, 1], got {predicted.min():g} to {predicted.max():g}")
    edges = np.linspace(0, 1, bins + 1)
    places = np.searchsorted(edges[1:-1], predicted, side="left")
    found = []
    for place in np.unique(places):
        inside = places == place
        bounds = float(edges[place]), float(edges[place + 1])
        found.append(Bin(*bounds, int(inside.sum()), float(predicted[inside].mean()), float(observed[inside].mean())))
    return found


def expected_calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 15) -> float:
    """Mean distance between predicted and observed frequency over bins of equal width, in [0, 1]; 0 is best.

    ECE = sum over bins of count / examples * |frequency - mean probability| (Guo et al. 2017, "On Calibration of Modern
    Neural Networks", eq. 3), with the probability of the outcome in place of the confidence in the best class.

    Arguments and errors are those of `reliability`.
    """
    found = reliability(probabilities, outcomes, bins)
    gaps = sum(one.count * abs(one.frequency - one.mean_probability) for one in found)
    return gaps / sum(one.count for one in found)


def draw_reliability(bins: Sequence[Bin], file: str | Path, title: str) -> None:
    """Draw a reliability diagram: observed over predicted frequency, and the number of examples of each point.

    Args:
        bins: output of `reliability`.
        file: a picture to write, in the format of its suffix (".png", ".svg").
        title: title of the picture.

    Raises:
        MissingExtraError: matplotlib is not installed (extra "bench").
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("bench", "drawing a reliability diagram")
    from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the whole process

    figure = Figure(figsize=(5, 6), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color="tab:gray", linestyle="dotted", label="what was predicted")
    predicted = [one.mean_probability for one in bins]
    curve.plot(predicted, [one.frequency for one in bins], marker="o", color="tab:blue", label="what was observed")
    curve.set(ylabel="frequency of the outcome", xlim=(0, 1), ylim=(0, 1))
    curve.set_title(title, fontsize="medium", loc="left")
    curve.legend(frameon=False)
    lefts, widths = [one.lower for one in bins], [one.upper - one.lower for one in bins]
    counts.bar(lefts, [one.count for one in bins], widths, align="edge", color="tab:blue", edgecolor="white")
    counts.set(xlabel="probability", ylabel="examples")
    for axes in (curve, counts):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
