"""Evaluate decisions: accuracy, Brier score and calibration error on public sets of questions.

    gliclass-rerank bench decisions --data DATA [--questions 300] [--model mini --model FOLDER]

DATA has ``train/decisions``, ``eval/routing`` and ``eval/labels``. A model answers each question with `Decider`. The
Brier score is the squared distance between the probabilities of all answers and the true answer, from 0 to 2. The
calibration error compares the probability of the likeliest answer with how often it is true, in 15 bins. The baseline
is the answer nearest to the state by cosine of all-MiniLM-L6-v2, whose probabilities are the softmax of the cosines,
times the scale of its training loss. Intervals are bootstrap intervals of 95%.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.decisions.sets import SETS, Decision, DecisionSet, read_sets
from benchmarks.lib.baselines import DENSE, SentenceEncoder
from benchmarks.lib.eval_data import SEED, data_folder
from benchmarks.lib.machine import cpu
from benchmarks.lib.measures import interval
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from gliclass_rerank import ChoiceAnswer, Decider, NoulAnswer, Scorer
from gliclass_rerank.calibration.reliability import expected_calibration_error
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.tasks.decide.answers import Answer
from gliclass_rerank.tasks.decide.questions import Choice

SCALE = 20.0  # of cosines in sentence-transformers' MultipleNegativesRankingLoss
MEAN, NAME = "mean", "question"
Floats = NDArray[np.float64]
Figure = TypeVar("Figure")
Contestant = Callable[[DecisionSet], list[Floats]]
"""Function from a set to the probabilities of each question's answers."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers to a set, arrays of shape (questions,).

    Attributes:
        right: whether the likeliest answer is the true one.
        probability: of the likeliest answer, in [0, 1].
        brier: squared distance to the true answer, in [0, 2].
    """

    right: NDArray[np.bool_]
    probability: Floats
    brier: Floats


MEASURES: Mapping[str, Callable[[Answered], float]] = {
    "accuracy": lambda one: float(one.right.mean()),
    "brier": lambda one: float(one.brier.mean()),
    "ece": lambda one: expected_calibration_error(np.minimum(one.probability, 1), one.right),
}
"""Accuracy and calibration error in [0, 1], Brier score in [0, 2]."""


def main() -> None:
    parser = evaluation_parser(__doc__)
    parser.add_argument("--questions", type=int, default=300, help="maximum per set; 300 by default")
    options = parser.parse_args()
    sets = read_sets(data_folder(options.data), options.questions, options.sets)
    torch.set_num_threads(options.threads)
    models = load_models(options.model or ["mini"], options.threads)
    contestants = {} if options.no_dense else {DENSE: by_cosine(SentenceEncoder(options.cache))}
    contestants |= {name: by_model(name, scorer) for name, scorer in models.items()}
    answered = {
        name: {of: answered_by(contestant, one) for of, one in sets.items()} for name, contestant in contestants.items()
    }
    results = {name: with_mean(of, outcomes_of) for name, of in answered.items()}
    intervals = {name: with_mean(of, intervals_of) for name, of in answered.items()}
    show(results)
    if options.no_write:
        return
    report = header(models) | {"threads": options.threads, "seed": SEED}
    report["not in the data"] = [path for path in SETS if path.rpartition("/")[2] not in sets]
    report["sets"] = {name: one.described() for name, one in sets.items()}
    file = write(report | {"results": results, "intervals": intervals}, "decisions", options.out)
    values = {name: {of: row["accuracy"] for of, row in rows.items()} for name, rows in results.items()}
    ends = {name: {of: row["accuracy"] for of, row in rows.items()} for name, rows in intervals.items()}
    draw_bars(values, "accuracy", f"up to {options.questions} questions, {cpu()}", file.with_suffix(".png"), ends)


def by_model(name: str, scorer: Scorer) -> Contestant:
    decider = Decider(scorer)

    def answer(one: DecisionSet) -> list[Floats]:
        shown = track(one.decisions, f"{one.name}, {name}", console=Console(stderr=True), transient=True)
        return [probabilities_of(decider.decide(asked.state, {NAME: asked.question})[NAME]) for asked in shown]

    return answer


def probabilities_of(answer: Answer) -> Floats:
    """Probabilities of all answers, in the order of the question's labels."""
    if isinstance(answer, NoulAnswer):
        return np.array([answer.probability, 1 - answer.probability])
    return np.array(list(answer.probabilities.values() if isinstance(answer, ChoiceAnswer) else answer.probabilities))


def by_cosine(encoder: SentenceEncoder) -> Contestant:
    def answer(one: DecisionSet) -> list[Floats]:
        texts = list(dict.fromkeys(text for asked in one.decisions for text in (asked.state, *told(asked))))
        vectors = dict(zip(texts, encoder.encode(texts, f"{one.name}-decisions"), strict=True))
        return [
            softmax(SCALE * (np.stack([vectors[text] for text in told(asked)]) @ vectors[asked.state]))
            for asked in one.decisions
        ]

    return answer


def told(asked: Decision) -> tuple[str, ...]:
    """The answers as texts: plain names of options, and what the models read of other questions."""
    question = asked.question
    return tuple(question.options) if isinstance(question, Choice) else question.labels


def softmax(logits: NDArray[np.floating]) -> Floats:
    shares: Floats = np.exp(logits.astype(np.float64) - float(logits.max()))
    shares /= shares.sum()
    return shares


def answered_by(contestant: Contestant, one: DecisionSet) -> Answered:
    rows, gold = contestant(one), [asked.gold for asked in one.decisions]
    pairs = list(zip(rows, gold, strict=True))
    return Answered(
        np.array([int(row.argmax()) == true for row, true in pairs]),
        np.array([row.max() for row in rows]),
        np.array([float((row**2).sum() - 2 * row[true] + 1) for row, true in pairs]),
    )


def outcomes_of(parts: Sequence[Answered]) -> dict[str, float]:
    """Each measure, as the mean over sets."""
    return {name: fmean(map(measure, parts)) for name, measure in MEASURES.items()}


def intervals_of(parts: Sequence[Answered]) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of each measure. The questions of each set are drawn anew."""
    sizes = [len(one.right) for one in parts]

    def ends(measure: Callable[[Answered], float]) -> tuple[float, float]:
        return interval(lambda places: fmean(map(measure, map(drawn, parts, places))), sizes)

    return {name: ends(measure) for name, measure in MEASURES.items()}


def drawn(one: Answered, places: NDArray[np.intp]) -> Answered:
    return Answered(one.right[places], one.probability[places], one.brier[places])


def with_mean(
    answered: Mapping[str, Answered], measure: Callable[[Sequence[Answered]], dict[str, Figure]]
) -> dict[str, dict[str, Figure]]:
    """Figures by set, and "mean" over the sets."""
    return {name: measure([one]) for name, one in answered.items()} | {MEAN: measure(list(answered.values()))}


def show(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    titles = {"accuracy": "Accuracy", "brier": "Brier score", "ece": "Calibration error"}
    for key, title in titles.items():
        rows = {of: [row[of][key] for row in results.values()] for of in next(iter(results.values()))}
        print_table(table(title, list(results), rows))


if __name__ == "__main__":
    main()
