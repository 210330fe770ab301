"""Ask a scorer, and check its answer: the one place where tasks meet a `Scorer`, which may be a user's own."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from gliclass_rerank.errors import ModelError, NonFiniteError
from gliclass_rerank.types import Example, FloatArray, Logits, Scorer, ScoreRequest
from gliclass_rerank.unreadable import Unreadable, refuse_unread

FRAME = 16  # tokens around a text and its labels, or around an example; more than any layout has


def score_requests(
    scorer: Scorer, requests: Sequence[ScoreRequest], *, unreadable: Unreadable = "flag"
) -> list[FloatArray]:
    """Return the scorer's logits: a row for each request, finite, shape (labels,); `Logits` stay what they are.

    Args:
        unreadable: "error" refuses texts and labels that the model cannot read.

    Raises:
        ModelError: more or fewer rows than requests, or a row of another shape.
        NonFiniteError: a logit is NaN or infinite.
        UnreadableTextError: see ``unreadable``.
    """
    answer: object = scorer.score(requests)
    if not isinstance(answer, Iterable):
        raise ModelError(f"the scorer: expected a sequence of logits, got {type(answer).__name__}")
    rows = list(answer)
    if len(rows) != len(requests):  # the next rows would be taken for those of other texts
        raise ModelError(f"the scorer: expected logits for each of {len(requests)} requests, got {len(rows)}")
    pairs = enumerate(zip(rows, requests, strict=True))
    checked = [_checked(row, len(request.labels), i) for i, (row, request) in pairs]
    if unreadable == "error":
        refuse_unread(requests, checked)
    return checked


def labels_share_pass(scorer: Scorer, labels: Sequence[str], examples: Sequence[Example] = ()) -> bool:
    """Whether a scorer surely reads these labels in one pass, beside a text of any length and these examples.

    A scorer that knows its tokens says so by a method of this name, as all do that hold a model. Of others only
    ``info.max_length`` is known: each byte of a label, and of its compatibility form, is taken for a token.
    """
    told = getattr(scorer, "labels_share_pass", None)
    if callable(told):
        return bool(told(labels, examples))
    shown = [part for example in examples for part in (example.text, *example.labels)]
    room = scorer.info.max_length - FRAME * (1 + len(examples)) - sum(map(_most_tokens, shown))
    return sum(map(_most_tokens, labels)) <= room // 2


def _most_tokens(text: str) -> int:
    """Tokens of a text at most, with a marker and a blank in front of it."""
    return 2 + max(len(text.encode()), len(unicodedata.normalize("NFKC", text).encode()))


def _checked(row: object, labels: int, place: int) -> FloatArray:
    where = f"the scorer, request {place}"
    logits = _array(row, where)
    if logits.shape != (labels,):
        raise ModelError(f"{where}: expected shape ({labels},), got {logits.shape}")
    read: FloatArray = logits
    if isinstance(logits, Logits) and logits.spans:
        read = logits.per_window  # the largest logit may hide one that is not finite
        if read.shape != (len(logits.spans), labels):
            raise ModelError(
                f"{where}: expected shape ({len(logits.spans)}, {labels}) over its windows, got {read.shape}"
            )
    finite = np.isfinite(read)
    if not finite.all():
        first = tuple(np.argwhere(~finite)[0].tolist())
        raise NonFiniteError(f"{where}: logit {first[-1]} is {read[first]}, not finite; the model is broken")
    return logits


def _array(row: object, where: str) -> FloatArray:
    try:
        array = np.asanyarray(row)
    except ValueError as error:  # rows of rows of several lengths
        raise ModelError(f"{where}: expected numbers, got a {type(row).__name__}") from error
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{where}: expected numbers, got {array.dtype}")
    return array
