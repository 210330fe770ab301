"""Public sets as decisions: yes or no about a text, one of many intents or sentiments, a level of sentiment.

The questions of StrategyQA and CondaQA are those of the texts that `benchmarks.mini.data` holds back from training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lib.eval_data import OUT_OF_SCOPE, legible, read_labels, read_lines, sample
from benchmarks.mini.sets import part_of
from gliclass_rerank import Choice, Noul, Score
from gliclass_rerank.tasks.decide.questions import Question

LEVELS = ("very negative", "negative", "neutral", "positive", "very positive")
YES, NO = 0, 1


@dataclass(frozen=True, slots=True)
class Decision:
    """A state, a question about it, and the position of the true answer among the question's labels."""

    state: str
    question: Question
    gold: int


@dataclass(frozen=True, slots=True)
class DecisionSet:
    """A sample of decisions. ``total`` is the number of decisions it was drawn from."""

    name: str
    decisions: tuple[Decision, ...]
    total: int

    def described(self) -> dict[str, object]:
        """Type, questions and options, for the report."""
        question = self.decisions[0].question
        kind, options = type(question).__name__.lower(), len(question.labels)
        return {"type": kind, "questions": len(self.decisions), "of": self.total, "options": options}


def noul_set(folder: Path, at_most: int) -> DecisionSet:
    """Questions about a text, answered with yes or no."""
    found = [
        Decision(record["text"], Noul(record["question"]), YES if record["answer"] else NO)
        for record in read_lines(folder / "noul.jsonl.gz")
        if legible(record["text"]) and legible(record["question"]) and part_of(record["text"]) != "train"
    ]
    return DecisionSet(folder.name, tuple(sample(found, at_most, folder.name)), len(found))


def choice_set(instructions: str) -> Callable[[Path, int], DecisionSet]:
    """A reader of texts whose label is one of the set's names. Texts out of scope are left out."""

    def read(folder: Path, at_most: int) -> DecisionSet:
        labelled = read_labels(folder, at_most)
        names = [name for name in labelled.labels if name != OUT_OF_SCOPE]
        question = Choice(instructions, names)
        pairs = zip(labelled.texts, labelled.gold, strict=True)
        decisions = [Decision(text, question, names.index(name)) for text, name in pairs if name != OUT_OF_SCOPE]
        return DecisionSet(folder.name, tuple(decisions), labelled.total)

    return read


def score_set(folder: Path, at_most: int) -> DecisionSet:
    """Sentences with a level of sentiment."""
    labelled = read_labels(folder, at_most)
    question = Score("How positive is the opinion?", LEVELS)
    pairs = zip(labelled.texts, labelled.gold, strict=True)
    decisions = tuple(Decision(text, question, LEVELS.index(name)) for text, name in pairs)
    return DecisionSet(folder.name, decisions, labelled.total)


SETS: Mapping[str, Callable[[Path, int], DecisionSet]] = {
    "train/decisions/strategyqa": noul_set,
    "train/decisions/condaqa_dev": noul_set,
    "eval/routing/banking77": choice_set("What does the customer ask about?"),
    "eval/routing/clinc150": choice_set("What does the user want?"),
    "eval/routing/snips": choice_set("What does the user want?"),
    "eval/labels/financial_phrasebank": choice_set("What is the sentiment for an investor?"),
    "eval/labels/sst5": score_set,
}
"""Folders below the data, and how to read them."""


def read_sets(data: Path, at_most: int, names: list[str] | None = None) -> dict[str, DecisionSet]:
    """The sets that are in the data, by name. Exits if one of ``names`` is missing, or all are."""
    there = {Path(path).name: (data / path, read) for path, read in SETS.items() if (data / path).is_dir()}
    missing = sorted(set(names or ()) - set(there))
    if missing or not there:
        known = ", ".join(Path(path).name for path in SETS)
        raise SystemExit(f"no set {', '.join(missing) or 'of decisions'} in {data}; sets are {known}")
    return {name: read(folder, at_most) for name, (folder, read) in there.items() if names is None or name in names}
