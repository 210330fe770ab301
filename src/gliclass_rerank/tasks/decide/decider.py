"""Decider: answer typed questions about a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from gliclass_rerank.errors import InputError
from gliclass_rerank.scorers.load import as_scorer
from gliclass_rerank.scoring import Plan, read_together, run
from gliclass_rerank.tasks.decide.answers import Answer, Floats, answer_of
from gliclass_rerank.tasks.decide.questions import Question, check_questions
from gliclass_rerank.tasks.decide.state import Json, text_of
from gliclass_rerank.types import FloatArray, Scorer, ScoreRequest
from gliclass_rerank.unreadable import Places, Unreadable, naming, readable, refuse_unread
from gliclass_rerank.validation import check_choice


class Decider:
    """Answer yes-or-no questions, choices and scores about a text or a JSON value, with probabilities.

    An answer depends only on the state and on its own question: not on names, other questions or their order. A model
    with independent labels reads the state once for all questions. Other models read it once per question, and once per
    option if the options of a question may not fit one pass or are more than 32.

    A state too long for one pass is read in windows. The logit of each possible answer is its largest over the windows.

    Thread-safe.

    Args:
        scorer: a `Scorer`, or an argument of `load_scorer` ("mini", a folder, a hub id).
        unreadable: treatment of a state or question of which the model's vocabulary covers (almost) nothing: "flag"
            answers as usual with ``readable=False``, "error" raises `UnreadableTextError`.

    Raises:
        OptionError: an unknown value of ``unreadable``.
    """

    def __init__(self, scorer: Scorer | str | Path = "mini", *, unreadable: Unreadable = "flag") -> None:
        check_choice(unreadable, get_args(Unreadable), "unreadable")
        self._unreadable = unreadable
        self.scorer: Scorer = as_scorer(scorer)

    def decide(self, state: Json, questions: Mapping[str, Question]) -> dict[str, Answer]:
        """Answer questions about a state.

        Args:
            state: a text, an object or an array, rendered by `gliclass_rerank.tasks.decide.state.text_of`.
            questions: `Noul`, `Choice` or `Score` by name, 1 to 400. The model does not see the names.

        Returns:
            By name, in the order of the questions: `NoulAnswer`, `ChoiceAnswer` or `ScoreAnswer`.

        Raises:
            InputError: a state that cannot be rendered, no questions, too many, or other values.
            LabelTooLongError: an option that does not fit the model.
            UnreadableTextError: see ``unreadable``.
            NonFiniteError: the model returns NaN.
        """
        return run(self.plan(state, questions), self.scorer)

    def decide_many(self, states: Sequence[Json], questions: Mapping[str, Question]) -> list[dict[str, Answer]]:
        """Answer the same questions about each of several states, in common batches.

        The answers equal those of `decide` on each. Arguments and errors are the same.
        """
        return run(self.plan_many(states, questions), self.scorer)

    def plan(self, state: Json, questions: Mapping[str, Question]) -> Plan[dict[str, Answer]]:
        """`decide` as a plan, for callers that score its requests themselves. Arguments and errors are the same."""
        asked = check_questions(questions)
        return self._answers(asked, (yield from self.logits(state, asked)))

    def plan_many(self, states: Sequence[Json], questions: Mapping[str, Question]) -> Plan[list[dict[str, Answer]]]:
        """`decide_many` as a plan. Arguments and errors are the same."""
        if isinstance(states, str | bytes) or not isinstance(states, Sequence):
            raise InputError(f"states: expected a sequence of states, got {type(states).__name__}")
        asked = check_questions(questions)
        texts = {f"state {i}": text_of(state, f"state {i}") for i, state in enumerate(states)}
        return [self._answers(asked, found) for found in (yield from self._logits(texts, asked))]

    def logits(self, state: Json, questions: Mapping[str, Question]) -> Plan[dict[str, tuple[Floats, bool]]]:
        """A plan of the raw logits of each question, one per label, and whether the model could read them all.

        Arguments and errors are those of `decide`.
        """
        (found,) = yield from self._logits({"state": text_of(state, "state")}, check_questions(questions))
        return found

    def _answers(self, asked: Mapping[str, Question], found: Mapping[str, tuple[Floats, bool]]) -> dict[str, Answer]:
        calibration = self.scorer.info.calibration
        return {name: answer_of(question, *found[name], calibration=calibration) for name, question in asked.items()}

    def _logits(
        self, texts: Mapping[str, str], asked: Mapping[str, Question]
    ) -> Plan[list[dict[str, tuple[Floats, bool]]]]:
        """`logits` of each text. The keys of ``texts`` name them in errors."""
        labels = {name: question.labels for name, question in asked.items()}
        groups = dict(zip(asked, self._groups(list(labels.values())), strict=True))
        passes = sorted({one for own in groups.values() for one in own})
        ordered = [ScoreRequest(text, group) for text in texts.values() for group in passes]
        with naming(lambda: _places(texts, labels)):
            rows = yield ordered
            if self._unreadable == "error":
                refuse_unread(ordered, rows)
        read = list(map(_by_label, ordered, rows))
        found = []
        for start in range(0, len(read), len(passes)):
            by_pass = dict(zip(passes, read[start : start + len(passes)], strict=True))
            found.append({name: _told(own, [by_pass[group] for group in groups[name]]) for name, own in labels.items()})
        return found

    def _groups(self, labels: Sequence[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
        """The labels of each question, divided into groups that are read together.

        They are sorted and each there once, so that the order of questions and options has no effect.
        """
        if self.scorer.info.independent_labels:
            every = tuple(sorted({label for own in labels for label in own}))
            return [[every]] * len(labels)
        return [self._passes(tuple(sorted(set(own)))) for own in labels]

    def _passes(self, labels: tuple[str, ...]) -> list[tuple[str, ...]]:
        """All labels in one pass, or each in its own. Any other division would show in the logits."""
        return [labels] if read_together(self.scorer, labels) else [(label,) for label in labels]


def _by_label(request: ScoreRequest, row: FloatArray) -> dict[str, tuple[float, bool]]:
    """The logit of each label, and whether the model could read it and the text."""
    return dict(zip(request.labels, zip(row.tolist(), readable(row).tolist(), strict=True), strict=True))


def _told(labels: Sequence[str], read: Sequence[Mapping[str, tuple[float, bool]]]) -> tuple[Floats, bool]:
    """The logits of a question's labels, out of the passes that it was read in, and whether all were read."""
    known = {label: values for one in read for label, values in one.items()}
    return np.array([known[label][0] for label in labels]), all(known[label][1] for label in labels)


def _places(texts: Mapping[str, str], labels: Mapping[str, Sequence[str]]) -> Places:
    yield from texts.items()
    for name, own in labels.items():
        yield from ((f"question {name!r:.60}, answer {i}", label) for i, label in enumerate(own))
