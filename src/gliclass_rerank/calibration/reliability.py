"""Calibration error: predicted probabilities against observed frequencies. Drawing needs matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from gliclass_rerank.errors import InputError, MissingExtraError, OptionError
from gliclass_rerank.validation import scores_and_outcomes


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
