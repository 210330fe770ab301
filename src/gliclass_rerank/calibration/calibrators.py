"""Calibrators: maps from the raw logit of one task to calibrated log-odds, log(p / (1 - p)).

None of them swaps two logits. They are fitted by `fitting`, stored by `file` and measured by `reliability`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.errors import OptionError
from gliclass_rerank.validation import check_number

Kind = Literal["temperature", "platt", "isotonic"]
FloatArray = NDArray[np.float32]
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


def _numbers(values: object, what: str) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise OptionError(f"{what}: expected a sequence of numbers, got {values!r:.60}")
    return tuple(check_number(value, what, low=-LARGEST, high=LARGEST) for value in values)
