"""FactChecker: judge each claim of an answer by evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.calibration.calibrators import calibrated, sigmoid
from gliclass_rerank.errors import InputError, LabelTooLongError, OptionError
from gliclass_rerank.scorers.load import as_scorer
from gliclass_rerank.scoring import Plan, run
from gliclass_rerank.tasks.fact_check.claims import (
    Verdict,
    claim_labels,
    claims_something,
    divide_claim,
    has_claim,
    verdict_of,
)
from gliclass_rerank.tasks.fact_check.removal import remove_sentences
from gliclass_rerank.tasks.fact_check.sentences import Sentence, SplitText, split
from gliclass_rerank.types import FloatArray, Logits, ModelInfo, Scorer, ScoreRequest, Span
from gliclass_rerank.unreadable import Places, Unreadable, naming, numbered, readable, refuse_unread
from gliclass_rerank.validation import check_choice, check_number, check_text, check_texts

SUPPORTED: tuple[Verdict, ...] = ("supported",)
MIN_PART = 8  # characters; if the model cannot read a label this long, LabelTooLongError is raised
SIDES = ("support", "refutation")  # tasks of a model's calibration, in the order of `claim_labels`


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """Verdict on one claim.

    Attributes:
        text: the claim, ``answer[start:end]``.
        start, end: half-open range of code points in the answer.
        verdict: "supported", "refuted" or "not_enough_info".
        support: probability that the evidence supports it, in [0, 1]: the largest over the passages.
        refute: probability that the evidence refutes it, in [0, 1], likewise. The two need not sum to 1.
        evidence: index of the deciding passage: for a refuted claim the one that refutes most, else the one that
            supports most.
        window: code points of the deciding window of that passage if it is too long for one pass, else None.
        readable: the model's vocabulary covers words of the claim and of a passage. If False, the verdict is
            "not_enough_info" and support and refute are 0.
        parts: number of parts in which a claim too long for the model was read, else 1. Its support is that of its
            least supported part, its refutation that of its most refuted part. A part that cannot be read has no
            support.
    """

    text: str
    start: int
    end: int
    verdict: Verdict
    support: float
    refute: float
    evidence: int
    window: Span | None = None
    readable: bool = True
    parts: int = 1


@dataclass(frozen=True, slots=True)
class FactReport:
    """The verdicts on all claims of an answer, in its order. Empty if it claims nothing."""

    claims: tuple[ClaimVerdict, ...]

    @property
    def supported(self) -> float:
        """Fraction of the claims that are supported, in [0, 1]; 1 if the answer claims nothing."""
        return sum(claim.verdict == "supported" for claim in self.claims) / len(self.claims) if self.claims else 1.0

    @property
    def passed(self) -> bool:
        """Whether every claim is supported; True for an answer that claims nothing."""
        return all(claim.verdict == "supported" for claim in self.claims)

    def renumbered(self, places: Sequence[int]) -> FactReport:
        """The same report for a longer list of evidence, in which passage i has the place ``places[i]``."""
        return FactReport(tuple(replace(claim, evidence=places[claim.evidence]) for claim in self.claims))

    def filter(self, answer: str, *, keep: Collection[Verdict] = SUPPORTED) -> str:
        """Filter the checked answer like `FactChecker.filter`, without judging it again.

        Raises:
            InputError: another answer than the one that was checked.
            OptionError: no verdicts in ``keep``.
        """
        check_verdicts(keep)
        if any(answer[claim.start : claim.end] != claim.text for claim in self.claims):
            raise InputError("answer: expected the one that was checked, got another; check it first")
        removed = {claim.start for claim in self.claims if claim.verdict not in keep}
        parts = split(answer)
        return remove_sentences(parts, [one for one in parts.sentences if one.start in removed])


class FactChecker:
    """Judge each sentence of an answer by evidence: all claims and their denials in one pass per passage.

    A claim is supported if support >= ``threshold`` and support >= refute, and refuted if refute >=
    ``refute_threshold`` and refute > support. Otherwise there is not enough information. Support and refutation are the
    probabilities of the claim and of its denial (`claims.DENIAL`), each the largest over all windows of all passages.
    They are calibrated if the model has calibrators (tasks "support" and "refutation"), else sigmoids of the logits.

    Args:
        scorer: a `Scorer`, or an argument of `load_scorer` ("mini", a folder, a hub id).
        threshold: least support of a supported claim, in [0, 1].
        refute_threshold: least refutation of a refuted claim, in [0, 1].
        only_claims: skip sentences that claim nothing: questions, greetings, requests, headings, announcements (rules
            in `claims.claims_something`). They appear in no report, and `filter` keeps them.
        unreadable: treatment of a claim or a passage of which the model's vocabulary covers (almost) nothing. "flag"
            judges the claim by the passages that can be read; without any, the verdict is "not_enough_info" with
            ``readable=False``. "error" raises `UnreadableTextError`.

    Raises:
        OptionError: a threshold outside [0, 1], an unknown value of ``unreadable``.
    """

    def __init__(
        self,
        scorer: Scorer | str | Path = "mini",
        *,
        threshold: float = 0.5,
        refute_threshold: float = 0.5,
        only_claims: bool = False,
        unreadable: Unreadable = "flag",
    ) -> None:
        check_choice(unreadable, get_args(Unreadable), "unreadable")
        self._unreadable = unreadable
        self._threshold = check_number(threshold, "threshold", low=0, high=1)
        self._refute_threshold = check_number(refute_threshold, "refute_threshold", low=0, high=1)
        self._only_claims = only_claims
        self.scorer: Scorer = as_scorer(scorer)

    def check(self, answer: str, evidence: str | Sequence[str]) -> FactReport:
        """Judge the claims of an answer.

        Args:
            answer: its sentences are the claims, including fenced code and table rows. Sentences without letters are
                skipped. Claims are read without citation marks and markup. A claim too long for the model is read in
                parts.
            evidence: a passage or several, in any order. Long ones are read in overlapping windows.

        Returns:
            A verdict per claim, with code points of ``answer`` and an index into ``evidence`` (0 for a string).

        Raises:
            InputError: an empty answer, no evidence, an empty passage, characters that no tokenizer reads.
            NonFiniteError: the model returns NaN.
        """
        return self.check_many([(answer, evidence)])[0]

    def check_many(self, pairs: Iterable[tuple[str, str | Sequence[str]]]) -> list[FactReport]:
        """Judge many answers as one batch. The reports equal those of `check` on each.

        Args:
            pairs: (answer, evidence), as for `check`, whose errors are raised here too.
        """
        return run(self.plan(pairs), self.scorer)

    def plan(self, pairs: Iterable[tuple[str, str | Sequence[str]]]) -> Plan[list[FactReport]]:
        """`check_many` as a plan, for callers that score its requests themselves. Arguments and errors are the same."""
        jobs = [_job(pair, self._only_claims) for pair in pairs]
        try:
            return (yield from self._reports(jobs))
        except LabelTooLongError:
            reports = []
            for job in jobs:
                reports.append((yield from self._report_in_parts(job)))
            return reports

    def filter(self, answer: str, evidence: str | Sequence[str], *, keep: Collection[Verdict] = SUPPORTED) -> str:
        """Return the answer without the sentences whose verdict is not among ``keep``.

        The white space after a removed sentence is removed too (the white space before it at the end of a line or of
        the answer). A list marker is removed with all sentences of its item, a table's header with its last row. Fenced
        code is removed as a whole, as is a pair of tags or of emphasis without text left in it. The rest is unchanged:
        an answer whose claims are all kept is returned as it is, and one of which nothing is kept as "". Filtering the
        result again changes nothing, unless sentences that have become neighbours read as one, or the model judges a
        claim differently with fewer others.

        Args:
            answer, evidence: as for `check`, whose errors are raised here too.
            keep: verdicts; ("supported", "not_enough_info") removes only refuted sentences.

        A small model mistakes some contradictions for support: with "mini", "Guests can edit." is kept given "Guests
        can comment but cannot edit.". The remaining text is not proved.

        Raises:
            OptionError: no verdicts in ``keep``.
        """
        check_verdicts(keep)
        return self.check(answer, evidence).filter(answer, keep=keep)

    def _reports(self, jobs: Sequence[_Job]) -> Plan[list[FactReport]]:
        requests = [job.requests() for job in jobs]
        every = [request for group in requests for request in group]
        with naming(lambda: _places(jobs)):
            rows = yield every
            if self._unreadable == "error":
                refuse_unread(every, rows)
        scored = iter(rows)
        return [self._report(job, [next(scored) for _ in group]) for job, group in zip(jobs, requests, strict=True)]

    def _report_in_parts(self, job: _Job) -> Plan[FactReport]:
        """Divide claims longer than half of the longest one into parts, then a quarter, until the model reads them."""
        while True:
            try:
                return (yield from self._reports([job]))[0]
            except LabelTooLongError:
                if (size := job.longest_part // 2) < MIN_PART:
                    raise
            job = job.divided(size)

    def _report(self, job: _Job, logits: Sequence[FloatArray]) -> FactReport:
        if not job.claims:
            return FactReport(())
        scores = np.stack([np.asarray(row) for row in logits]).reshape(len(logits), -1, 2)  # (passages, parts, sides)
        # A part is judged only by passages that can be read together with it, if there are any.
        read = np.stack([readable(row)[::2] for row in logits])  # (passages, parts)
        can_judge: NDArray[np.bool_] = np.atleast_1d(read.any(axis=0))
        scores = np.where((read | ~can_judge)[:, :, None], scores, -np.inf)
        # Logits order passages whose probabilities are equal by rounding or by a flat calibration.
        deciding, best = scores.argmax(axis=0), scores.max(axis=0)
        sides = _probabilities(best, self.scorer.info)
        best[~can_judge], sides[~can_judge] = -np.inf, 0.0
        found = []
        first = 0
        for claim, parts in zip(job.claims, job.parts, strict=True):
            own = best[first : first + len(parts)]
            weakest = first + own[:, 0].argmin(), first + own[:, 1].argmax()  # least supported, most refuted part
            support, refute = (float(sides[part, side]) for side, part in enumerate(weakest))
            verdict = verdict_of(support, refute, self._threshold, self._refute_threshold)
            is_read = bool(can_judge[first : first + len(parts)].any())
            if not is_read:
                verdict = "not_enough_info"
            side = int(verdict == "refuted")
            part = int(weakest[side])
            passage = int(deciding[part, side])
            window = _best_window(logits[passage], 2 * part + side)
            text = job.answer[claim.start : claim.end]
            found.append(
                ClaimVerdict(
                    text, claim.start, claim.end, verdict, support, refute, passage, window, is_read, len(parts)
                )
            )
            first += len(parts)
        return FactReport(tuple(found))


def check_verdicts(keep: object) -> None:
    """Raise `OptionError` unless ``keep`` is a collection of verdicts."""
    if isinstance(keep, str) or not isinstance(keep, Collection):
        raise OptionError(f"keep: expected a sequence of verdicts, got {keep!r:.60}")
    for verdict in keep:
        check_choice(verdict, get_args(Verdict), "keep")


@dataclass(frozen=True, slots=True)
class _Job:
    """One answer, its claims, the parts of each claim, and its evidence, all checked."""

    answer: str
    claims: Sequence[Sentence]
    parts: Sequence[Sequence[str]]
    evidence: Sequence[str]

    @property
    def longest_part(self) -> int:
        return max(len(part) for parts in self.parts for part in parts)

    def divided(self, size: int) -> _Job:
        """A copy with parts of at most ``size`` characters."""
        return replace(
            self, parts=[[one for part in parts for one in divide_claim(part, size)] for parts in self.parts]
        )

    def requests(self) -> list[ScoreRequest]:
        """One request per passage, with all claims; none without claims."""
        labels = tuple(label for parts in self.parts for part in parts for label in claim_labels(part))
        return [ScoreRequest(passage, labels) for passage in self.evidence] if labels else []


def _job(pair: object, only_claims: bool) -> _Job:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise InputError(f"pairs: expected (answer, evidence) each, got {pair!r:.60}")
    answer, evidence = check_text(pair[0], "answer"), check_texts(pair[1], "evidence", plural="evidence", or_one=True)
    if not evidence:
        raise InputError("evidence: expected at least one passage, got none")
    parts = split(answer)
    texts = {one: text for one in parts.sentences if _is_claim(parts, one, text := parts.plain(one), only_claims)}
    return _Job(answer, tuple(texts), [[text] for text in texts.values()], evidence)


def _places(jobs: Sequence[_Job]) -> Places:
    for job in jobs:
        yield from numbered("evidence", job.evidence)
        for i, parts in enumerate(job.parts):
            yield from ((f"claim {i}", label) for part in parts for label in claim_labels(part))


def _is_claim(parts: SplitText, sentence: Sentence, text: str, only_claims: bool) -> bool:
    if not has_claim(text):
        return False
    return (
        not only_claims or sentence.block is not None or claims_something(text, is_heading=parts.is_heading(sentence))
    )


def _probabilities(logits: FloatArray, info: ModelInfo) -> NDArray[np.float64]:
    """Probabilities in [0, 1] of raw logits, both of shape (parts, sides)."""
    sides = [calibrated(logits[:, side], info.calibration.get(task)) for side, task in enumerate(SIDES)]
    return sigmoid(np.stack(sides, axis=1))


def _best_window(logits: FloatArray, label: int) -> Span | None:
    """Code points of the window with a label's largest logit, for a text that was read in several windows."""
    if not isinstance(logits, Logits) or len(logits.spans) < 2:
        return None
    return logits.spans[int(logits.per_window[:, label].argmax())]
