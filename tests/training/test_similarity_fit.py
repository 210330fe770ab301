"""Fitting the similarity: the largest weight that the records do not speak against, written to the model's card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from checkpoints import build_independent
from typer.testing import CliRunner

from gliclass_rerank import Reranker, load_scorer
from gliclass_rerank.cli.main import app
from gliclass_rerank.models.checkpoint import OPTIONS_FILE
from gliclass_rerank.training.data.records import LabelRecord, RankingRecord
from gliclass_rerank.training.similarity import WEIGHTS, SimilarScorer, fit_similarity, is_worse
from gliclass_rerank.types import FloatArray, ModelInfo, ScoreRequest

RANKINGS = [RankingRecord(f"query {i}", (f"right {i}",), (f"wrong {i}", f"other {i}")) for i in range(20)]
LABELS = [LabelRecord(f"text {i}", ("right", "wrong"), (1.0, 0.0)) for i in range(20)]


class CosineScorer:
    """Logits and cosines that speak for "right" or against it.

    Args:
        logit, cosine: of what is right; those of the rest are 0.
    """

    info = ModelInfo("cosine", "0", "uni-encoder", "torch", "cpu", "fp32", 64, embeds=True)

    def __init__(self, *, logit: float, cosine: float) -> None:
        self._logit, self._cosine = logit, cosine

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        return [self._row(request) for request in requests]

    def _row(self, request: ScoreRequest) -> FloatArray:
        right = [float("right" in f"{request.text} {label}") for label in request.labels]
        return np.array(right, np.float32) * (self._logit + request.similarity * self._cosine)


@pytest.mark.parametrize(
    ("logit", "cosine", "expected"),
    [
        (-1.0, 1.0, WEIGHTS[-1]),  # only the cosine is right
        (5.0, -0.5, 8.0),  # 10 would cancel the logit, so nothing would be ranked
        (1.0, 0.0, WEIGHTS[-1]),  # no difference
    ],
)
def test_the_largest_weight_that_does_no_harm(logit: float, cosine: float, expected: float) -> None:
    fitted = fit_similarity(CosineScorer(logit=logit, cosine=cosine), [*RANKINGS, *LABELS])
    assert fitted == {"relevance": expected, "labels": expected}


def test_only_tasks_with_records_are_fitted() -> None:
    scorer = CosineScorer(logit=1.0, cosine=1.0)
    assert fit_similarity(scorer, RANKINGS).keys() == {"relevance"}
    assert fit_similarity(scorer, LABELS).keys() == {"labels"}
    assert fit_similarity(scorer, []) == {}


def test_a_loss_within_one_standard_error_is_none() -> None:
    best = np.array([1.0, 1.0, 0.0, 1.0])
    assert not is_worse(best, best)
    assert not is_worse(np.array([1.0, 0.9, 0.1, 1.0]), best)
    assert is_worse(best - np.array([0.1, 0.2, 0.1, 0.2]), best)


def test_calibrate_writes_it_and_the_model_uses_it(tmp_path: Path) -> None:
    folder = build_independent(tmp_path)
    file = tmp_path / "records.jsonl"
    texts = ["she plays the violin", "the court found it void", "bread rises because of yeast"]
    alike = SimilarScorer(load_scorer(folder), {"relevance": WEIGHTS[-1]})
    best = texts[Reranker(alike).rank(texts[0], texts)[0].index]
    lines = [{"query": texts[0], "positive": best, "negatives": [one for one in texts if one != best]}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    result = CliRunner().invoke(app, ["calibrate", str(folder), str(file)])
    assert result.exit_code == 0, result.output
    card = json.loads((folder / OPTIONS_FILE).read_text("utf-8"))
    assert card["labels"] == "independent"
    assert card["similarity"].keys() == {"relevance"}
    assert card["similarity"]["relevance"] == WEIGHTS[-1]
    assert load_scorer(folder).info.similarity == card["similarity"]


def test_a_calibration_that_cannot_be_fitted_changes_nothing(tmp_path: Path) -> None:
    folder = build_independent(tmp_path)
    before = (folder / OPTIONS_FILE).read_bytes()
    file = tmp_path / "records.jsonl"
    record = {"text": "bread rises", "all_labels": ["bread rises", "violin"], "true_labels": ["bread rises", "violin"]}
    file.write_text(json.dumps(record) + "\n", "utf-8")
    assert CliRunner().invoke(app, ["calibrate", str(folder), str(file)]).exit_code
    assert (folder / OPTIONS_FILE).read_bytes() == before
