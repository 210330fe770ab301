"""The pictures of docs/thresholds.md, from the shipped calibration and from scores of judged questions.

    python -m docs.make.pictures            # draws what relevance.json and the bundled model's calibration say
    python -m docs.make.pictures --score    # scores the questions first and writes relevance.json, about a minute

The scores are mini's for the demo's questions about Python's documentation, each with the first passages that BM25
finds for it; mini saw neither in training. A passage counts as an answer if a person has judged it so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.pictures import new_figure, save
from gliclass_rerank import Reranker
from gliclass_rerank.calibration.file import read_calibration
from gliclass_rerank.calibration.fitting import fit_calibrator
from gliclass_rerank.calibration.reliability import Bin, expected_calibration_error, reliability
from gliclass_rerank.demo.evaluate import CANDIDATES, prepare, shown_to_model
from gliclass_rerank.scorers.load import locate

HERE = Path(__file__).parent
SCORES, IMAGES = HERE / "relevance.json", HERE.parent / "images"
BINS = 20
FEWEST = 10  # passages behind a point that is drawn


@dataclass(frozen=True, slots=True)
class Share:
    """Of a twentieth of the unit interval, from ``lower`` on: passages that answer their question, and others."""

    lower: float
    answers: int
    others: int


def main() -> None:
    if "--score" in sys.argv[1:]:
        SCORES.write_text(json.dumps(scored(), indent=1) + "\n", "utf-8")
    report = json.loads(SCORES.read_text("utf-8"))
    told = f"{report['model']} on Python's documentation, {report['questions']} questions"
    draw_calibration(IMAGES / "calibration.png")
    draw_thresholds([Share(**share) for share in report["shares"]], told, IMAGES / "thresholds.png")
    curves = {name: [Bin(**one) for one in half["bins"]] for name, half in report["other half"].items()}
    draw_curves(
        curves, f"{report['model']} on Python's documentation, half of the questions", IMAGES / "reliability.png"
    )


def scored() -> dict[str, object]:
    """Score the questions; and calibrate on every second one, to see what that does for the others."""
    task, reranker = prepare(CANDIDATES), Reranker("mini")
    pairs = [
        (question.query, [shown_to_model(task.passages[i]) for i in found.indices])
        for question, found in zip(task.judged.questions, task.found, strict=True)
    ]
    rankings = reranker.rank_many(pairs)
    ranked = [(place, one) for place, ranking in enumerate(rankings) for one in ranking]
    logits = np.array([one.logit for _, one in ranked])
    shipped = np.array([one.score for _, one in ranked])
    names = [task.passages[task.found[place].indices[one.index]].name for place, one in ranked]
    answers = np.array(
        [name in task.judged.questions[place].relevant for (place, _), name in zip(ranked, names, strict=True)]
    )
    other = np.array([place % 2 == 1 for place, _ in ranked])
    fitted = fit_calibrator(logits[~other], answers[~other]).probabilities(logits).astype(np.float64)
    return {
        "model": reranker.scorer.info.name,
        "revision": reranker.scorer.info.revision,
        "python": ".".join(map(str, sys.version_info[:3])),
        "questions": len(pairs),
        "passages of a question": CANDIDATES,
        "shares": [asdict(share) for share in shared(shipped, answers)],
        "other half": {
            name: {
                "ece": expected_calibration_error(probabilities[other], answers[other], BINS),
                "bins": [asdict(one) for one in reliability(probabilities[other], answers[other], BINS)],
            }
            for name, probabilities in (("as shipped", shipped), ("calibrated on the other half", fitted))
        },
    }


def shared(probabilities: NDArray[np.float64], answers: NDArray[np.bool_]) -> list[Share]:
    """Counts by probability, both of shape (passages,)."""
    return [
        Share(one.lower, right := round(one.frequency * one.count), one.count - right)
        for one in reliability(probabilities, answers, BINS)
    ]


def draw_calibration(file: Path) -> None:
    """The probability that each task of the bundled model makes of a logit."""
    logits = np.linspace(-6, 6, 241)
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.plot(logits, 1 / (1 + np.exp(-logits)), color="tab:gray", linestyle="dotted", label="without a calibration")
    for task, calibrator in read_calibration(locate("mini")[0]).items():
        axes.plot(logits, calibrator.probabilities(logits), label=task)
    axes.axhline(0.5, color="tab:gray", linewidth=0.5)
    axes.set(xlabel="raw logit of mini", ylabel="probability", xlim=(-6, 6), ylim=(0, 1))
    axes.legend(frameon=False)
    save(figure, "", file)


def draw_thresholds(shares: Sequence[Share], title: str, file: Path) -> None:
    """Where answers and others lie, and what a threshold keeps of both."""
    figure = new_figure(6, 6)
    counts, kept = figure.subplots(2, 1, sharex=True)
    edges = [*(share.lower for share in shares), 1.0]
    counts.stairs([share.others for share in shares], edges, color="tab:gray", label="others")
    counts.stairs([share.answers for share in shares], edges, color="tab:blue", label="answers")
    counts.set(ylabel=f"passages, by {1 / BINS:g} of score", yscale="log")
    thresholds = [share.lower for share in shares]
    rates = [precision_and_recall(shares, threshold) for threshold in thresholds]
    kept.plot(thresholds, [precision for precision, _ in rates], color="tab:blue", label="precision")
    kept.plot(thresholds, [recall for _, recall in rates], color="tab:orange", label="recall")
    kept.set(xlabel="score, or threshold", ylabel="share", xlim=(0, 1), ylim=(0, 1))
    for axes in (counts, kept):
        axes.legend(frameon=False)
    save(figure, "", file)


def precision_and_recall(shares: Sequence[Share], threshold: float) -> tuple[float, float]:
    """Of the passages above a bound of the shares: the share of answers, and the share that they are of all answers."""
    kept = [share for share in shares if share.lower >= threshold]
    right = sum(share.answers for share in kept)
    return right / sum(share.answers + share.others for share in kept), right / sum(share.answers for share in shares)


def draw_curves(curves: Mapping[str, Sequence[Bin]], title: str, file: Path) -> None:
    """Observed over promised frequency, but for points of too few passages, and how many are behind each point."""
    figure = new_figure(6, 6)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color="tab:gray", linestyle="dotted", label="what was promised")
    for name, found in curves.items():
        enough = [one for one in found if one.count >= FEWEST]
        promised, observed = [one.mean_probability for one in enough], [one.frequency for one in enough]
        curve.plot(promised, observed, marker="o", markersize=4, label=name)
        counts.plot([one.mean_probability for one in found], [one.count for one in found], marker="o", markersize=4)
    counts.axhline(FEWEST, color="tab:gray", linewidth=0.5)
    curve.set(ylabel="share of answers", xlim=(0, 1), ylim=(0, 1))
    counts.set(xlabel="score", ylabel="passages", yscale="log")
    curve.legend(frameon=False)
    save(figure, title, file)


if __name__ == "__main__":
    main()
