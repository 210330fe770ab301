"""Fit calibrators on logits with known outcomes. Needs scikit-learn."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.calibration.calibrators import (
    LARGEST,
    Calibrator,
    IsotonicCalibrator,
    Kind,
    PlattCalibrator,
    TemperatureCalibrator,
)
from gliclass_rerank.errors import InputError, MissingExtraError
from gliclass_rerank.validation import check_both_occur, check_choice, scores_and_outcomes


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


COLDEST, HOTTEST = 0.05, 20.0  # temperatures of a softmax; a threshold may separate a few examples perfectly


def fit_softmax_temperature(
    rows: Sequence[ArrayLike], true: Sequence[int], *, fitted_on: str | None = None
) -> TemperatureCalibrator:
    """Fit the temperature of softmaxes by maximum likelihood, within [0.05, 20].

    Args:
        rows: raw logits of the options of each example, shape (options,); the number of options may differ.
        true: position of the true option of each, shape (examples,).
        fitted_on: a note to store.

    Raises:
        InputError: no examples, other lengths, a position beyond the options, logits that are not finite, or not larger
            for the true options.
        MissingExtraError: scikit-learn is not installed.
    """
    logits = [np.asarray(row, np.float64) for row in rows]
    if not logits or len(logits) != len(true):
        raise InputError(f"rows: expected at least one, each with its true option, got {len(logits)} and {len(true)}")
    for row, place in zip(logits, true, strict=True):
        if row.ndim != 1 or not 0 <= place < len(row) or not np.isfinite(row).all():
            raise InputError(f"rows: expected finite logits with the true option among them, got {row!r:.60}, {place}")

    def slope_at(inverse: float) -> float:
        """Derivative of the negative log likelihood by the inverse temperature, which it is convex in."""
        total = 0.0
        for row, place in zip(logits, true, strict=True):
            shares = np.exp(inverse * (row - row.max()))
            total += float(np.dot(shares, row) / shares.sum() - row[place])
        return total

    if slope_at(0.0) >= 0:
        raise InputError(f"logits: {UPSIDE_DOWN}")
    if importlib.util.find_spec("scipy") is None:  # scikit-learn brings it
        raise MissingExtraError("train", "fitting a calibration")
    from scipy.optimize import brentq

    low, high = 1 / HOTTEST, 1 / COLDEST
    inverse = low if slope_at(low) >= 0 else high if slope_at(high) <= 0 else float(brentq(slope_at, low, high))
    return TemperatureCalibrator(1 / inverse, fitted_on=fitted_on)


UPSIDE_DOWN = (
    "expected larger ones where the outcome holds, and they tell nothing or the opposite; are the outcomes inverted?"
)


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
