"""Rows of logits of two scorers: whether one is unsure, its calibration, and the vector of another row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gliclass_rerank.calibration.calibrators import Calibrator, sigmoid
from gliclass_rerank.types import FloatArray, Logits
from gliclass_rerank.unreadable import readable


def is_unsure(row: FloatArray, band: tuple[float, float], *, exclusive: bool) -> bool:
    """Whether the probability of a label is in the band, both ends included, or a label could not be read.

    Args:
        row: log-odds, shape (labels,).
        band: two probabilities, the smaller one first.
        exclusive: of several labels one holds. Their probabilities are then a softmax, and the row is unsure if the
            largest is at most ``band[1]``.
    """
    if not readable(row).all():
        return True
    low, high = band
    log_odds = np.asarray(row, np.float64)
    if exclusive and len(row) > 1:
        return bool(np.exp(log_odds.max() - np.logaddexp.reduce(log_odds)) <= high)
    probabilities = sigmoid(log_odds)
    return bool(((probabilities >= low) & (probabilities <= high)).any())


def calibrated_row(row: FloatArray, calibrators: Sequence[Calibrator | None]) -> FloatArray:
    """Log-odds of a row, by the calibrators in turn. Windows and all else stay."""
    windows = row.per_window if isinstance(row, Logits) and row.spans else np.asarray(row)[np.newaxis]
    log_odds: FloatArray = windows.astype(np.float32)
    for i, calibrator in enumerate(calibrators):
        if calibrator is not None:
            log_odds[:, i :: len(calibrators)] = calibrator.log_odds(windows[:, i :: len(calibrators)])
    if not isinstance(row, Logits) or not row.spans:
        values: FloatArray = log_odds[0]
        return values
    return Logits.over_windows(
        log_odds,
        row.spans,
        truncated=row.truncated,
        unread_text=row.unread_text,
        unread_labels=row.unread_labels,
        vector=row.vector,
    )


def with_vector(row: FloatArray, other: FloatArray, text: str) -> Logits:
    """A row for a text as `Logits`, with the vector of another row for that text."""
    assert isinstance(other, Logits)
    made = row.copy() if isinstance(row, Logits) else None
    if made is None or not made.spans:
        made = Logits.over_windows(np.asarray(row, np.float32)[np.newaxis], [(0, len(text))])
    made.vector = other.vector
    return made
