"""Plans of score requests, and their execution with a `Scorer`.

A task is a `Plan`, a generator: it yields requests, is sent a row of logits for each, and returns its result. The code
before a ``yield`` builds requests, the code after it reads logits. Both are pure. `run` drives a plan with a scorer,
`drive` with any function that scores. Callers that score asynchronously use `resume`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from gliclass_rerank.errors import GLiClassRerankError, ModelError, NonFiniteError, NoVectorsError
from gliclass_rerank.types import NO_VECTOR, Example, FloatArray, Logits, LongText, Scorer, ScoreRequest
from gliclass_rerank.unreadable import Places, naming, numbered, refuse_unread
from gliclass_rerank.validation import check_texts

T = TypeVar("T")
Plan: TypeAlias = Generator[Sequence[ScoreRequest], list[FloatArray], T]
"""A running task. It may empty the list of rows that it is sent. Errors of the scorer are thrown into it, so that it
can name the input that caused them."""

MAX_LABELS_PER_PASS = 32
"""Largest number of labels that are read together, by models whose labels are not independent."""
FRAME = 16  # upper bound of the tokens around a text and its labels, or around an example

Score: TypeAlias = Callable[[Sequence[ScoreRequest]], Iterable[FloatArray]]
"""A function with the contract of `Scorer.score`."""

Answer: TypeAlias = list[FloatArray] | GLiClassRerankError
"""Answer to a plan's requests: a row for each, or an error."""


def resume(plan: Plan[T], answer: Answer | None) -> Sequence[ScoreRequest]:
    """Resume a plan and return the next requests that it yields. An answer of None starts it.

    Raises:
        StopIteration: the plan has ended. Its result is the ``value``.
        GLiClassRerankError: any error of the plan.
    """
    if isinstance(answer, GLiClassRerankError):
        return plan.throw(answer)
    return next(plan) if answer is None else plan.send(answer)


def run(plan: Plan[T], scorer: Scorer) -> T:
    """Drive a plan to its result. ``scorer`` scores every request that it yields.

    Raises:
        GLiClassRerankError: any error of the plan or the scorer; see `score_requests`.
    """
    return drive(plan, scorer.score)


def drive(plan: Plan[T], score: Score) -> T:
    """Drive a plan to its result, as `run` does with ``scorer.score``."""
    answer: Answer | None = None
    while True:
        try:
            requests = resume(plan, answer)
        except StopIteration as ended:
            result: T = ended.value
            return result
        try:
            answer = checked_rows(score(requests), requests) if requests else []
        except GLiClassRerankError as error:
            answer = error
        del requests  # free these before the plan builds the next ones


def score_requests(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
    """Return the scorer's logits: a finite row of shape (labels,) for each request. `Logits` keep their type.

    Raises:
        ModelError: another number of rows than of requests, or a row of another shape.
        NonFiniteError: a logit is NaN or infinite.
    """
    return checked_rows(scorer.score(requests), requests) if requests else []


def checked_rows(answer: object, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
    """Check a scorer's result for these requests and return it as rows of logits. See `score_requests` for errors."""
    if not isinstance(answer, Iterable):
        raise ModelError(f"the scorer: expected a sequence of logits, got {type(answer).__name__}")
    rows = list(answer)
    if len(rows) != len(requests):  # rows could not be assigned to texts
        raise ModelError(f"the scorer: expected logits for each of {len(requests)} requests, got {len(rows)}")
    for i, (row, request) in enumerate(zip(rows, requests, strict=True)):
        shape = len(row.spans) if isinstance(row, Logits) else 0, len(request.labels)
        if not shape[0] or row.per_window.shape != shape or not np.isfinite(row.per_window).all():
            rows[i] = _checked(row, len(request.labels), i)
        if request.vector:
            _check_vector(row, i)
    return rows


def embed(scorer: Scorer, texts: Sequence[str]) -> FloatArray:
    """Vectors of texts, float32 of shape (texts, D), rows of length 1. See `Logits.vector`.

    Raises:
        NoVectorsError: the scorer's model has none (``info.embeds``).
        InputError: no text, or one that cannot be encoded.
        UnreadableTextError: a text of which the vocabulary covers (almost) nothing.
    """
    if not scorer.info.embeds:
        raise NoVectorsError(scorer.info.name)
    checked = check_texts(texts, "text", at_least_one=True)
    return np.stack(run(vectors_plan(checked, lambda: numbered("text", checked)), scorer))


def vectors_plan(
    texts: Sequence[str], places: Callable[[], Places], *, long_text: LongText = "window"
) -> Plan[list[FloatArray]]:
    """A plan of the vectors of texts, float32 of shape (D,) each, for a model that embeds.

    Args:
        texts: checked by `check_texts`.
        places: their names in errors.
        long_text: see `ScoreRequest`.

    Raises:
        UnreadableTextError: a text of which the vocabulary covers (almost) nothing.
    """
    requests = [ScoreRequest.of_checked(text, (), long_text=long_text, vector=True) for text in texts]
    with naming(places):
        rows = yield requests
        refuse_unread(requests, rows)
    return [vector_of(row) for row in rows]


def vector_of(row: FloatArray) -> FloatArray:
    """The vector of a request's text, float32 of shape (D,). The request must have asked for it."""
    assert isinstance(row, Logits)
    return row.vector


def read_together(scorer: Scorer, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
    """Whether labels that see each other are read in one pass: few, and with room for a text of any length."""
    return len(labels) == 1 or (len(labels) <= MAX_LABELS_PER_PASS and labels_share_pass(scorer, labels, examples))


def labels_share_pass(scorer: Scorer, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
    """Whether a scorer certainly reads these labels in one pass, with a text of any length and these examples.

    A scorer with a method of this name, like all that hold a model, decides itself. For others only ``info.max_length``
    is known, so each byte of a label, and of its compatibility form, counts as a token.
    """
    told = getattr(scorer, "labels_share_pass", None)
    if callable(told):
        return bool(told(labels, examples))
    shown = [part for example in examples for part in (example.text, *example.labels)]
    room = scorer.info.max_length - FRAME * (1 + len(examples)) - sum(map(_most_tokens, shown))
    return sum(map(_most_tokens, labels)) <= room // 2


def _most_tokens(text: str) -> int:
    """Upper bound of a text's tokens, with a marker and a blank before it."""
    return 2 + max(len(text.encode()), len(unicodedata.normalize("NFKC", text).encode()))


def _checked(row: object, labels: int, place: int) -> FloatArray:
    where = f"the scorer, request {place}"
    logits = _array(row, where)
    if logits.shape != (labels,):
        raise ModelError(f"{where}: expected shape ({labels},), got {logits.shape}")
    read: FloatArray = logits
    if isinstance(logits, Logits) and logits.spans:
        read = logits.per_window  # a maximum over windows may hide a logit that is not finite
        if read.shape != (len(logits.spans), labels):
            raise ModelError(
                f"{where}: expected shape ({len(logits.spans)}, {labels}) over its windows, got {read.shape}"
            )
    finite = np.isfinite(read)
    if not finite.all():
        first = tuple(np.argwhere(~finite)[0].tolist())
        raise NonFiniteError(f"{where}: logit {first[-1]} is {read[first]}, not finite; the model is broken")
    return logits


def _check_vector(row: object, place: int) -> None:
    vector = row.vector if isinstance(row, Logits) else NO_VECTOR
    if vector.ndim != 1 or not vector.size:
        raise ModelError(f"the scorer, request {place}: expected Logits with the vector of the text, got none")
    if not np.isfinite(vector).all():
        raise NonFiniteError(f"the scorer, request {place}: its vector is not finite; the model is broken")


def _array(row: object, where: str) -> FloatArray:
    try:
        array = np.asanyarray(row)
    except ValueError as error:  # rows of rows of several lengths
        raise ModelError(f"{where}: expected numbers, got a {type(row).__name__}") from error
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{where}: expected numbers, got {array.dtype}")
    return array
