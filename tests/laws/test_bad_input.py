"""Input that cannot be scored is an error that says what came and what to do; nothing is scored by half."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from conftest import Scorers

from gliclass_rerank import (
    Example,
    GLiClassRerankError,
    InputError,
    InvalidTextError,
    Logits,
    OptionError,
    ScoreRequest,
)

GOOD: dict[str, Any] = {"text": "Bread rises.", "labels": ("science",)}


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ("", "expected some text"),
        (" \n\t\u3000", "expected some text"),
        ("\u200b\ufeff", "expected some text"),
        (None, "NoneType"),
        (7, "int"),
        (b"bytes", "bytes"),
        (["list"], "list"),
        ("a\0b", "NUL character at position 1"),
        ("ab\ud800", "lone surrogate.* at position 2"),
    ],
)
def test_a_bad_text_or_label_is_named(bad: object, complaint: str) -> None:
    with pytest.raises(InvalidTextError, match=f"^text: .*{complaint}"):
        ScoreRequest(**GOOD | {"text": bad})
    with pytest.raises(InvalidTextError, match=f"^label 1: .*{complaint}"):
        ScoreRequest(**GOOD | {"labels": ("law", bad)})
    with pytest.raises(InvalidTextError, match=f"^example text: .*{complaint}"):
        ScoreRequest(**GOOD, examples=({"text": bad, "labels": ["law"]},))  # type: ignore[arg-type]
    if bad not in ("", " \n\t\u3000", "\u200b\ufeff"):  # a prompt may be empty
        with pytest.raises(InvalidTextError, match=f"^prompt: .*{complaint}"):
            ScoreRequest(**GOOD, prompt=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [(), [], "abc", None, 3, {"law": 1}, {"law"}, iter(["law"])])
def test_labels_are_a_sequence_of_at_least_one(labels: object) -> None:
    with pytest.raises(InputError, match="labels: expected"):
        ScoreRequest(**GOOD | {"labels": labels})


@pytest.mark.parametrize("example", ["text", {"text": "a"}, ("text", ["law"]), None])
def test_an_example_is_a_text_with_labels(example: object) -> None:
    with pytest.raises(InputError, match="example"):
        ScoreRequest(**GOOD, examples=(example,))  # type: ignore[arg-type]


def test_what_is_equivalent_becomes_equal() -> None:
    plain = ScoreRequest("Bread rises.", ["science"], examples=[{"text": "x", "labels": ["law"]}])  # type: ignore[arg-type]
    assert plain == ScoreRequest("Bread rises.", ("science",), examples=(Example("x", ("law",)),))
    assert hash(plain) == hash(ScoreRequest("Bread rises.", ("science",), examples=(Example("x", ("law",)),)))


@pytest.mark.parametrize("value", ["cut", "", None, True])
def test_an_unknown_way_with_long_texts(value: object) -> None:
    with pytest.raises(OptionError, match="long_text: expected one of 'window', 'truncate', 'error'"):
        ScoreRequest(**GOOD, long_text=value)  # type: ignore[arg-type]


def test_examples_for_a_bi_encoder_are_refused_not_ignored(scorers: Scorers) -> None:
    with pytest.raises(InputError, match="reads no examples"):
        scorers("bi-encoder").score([ScoreRequest(**GOOD, examples=(Example("x", ("law",)),))])


def test_one_bad_request_fails_the_call_and_leaves_the_scorer_usable(scorers: Scorers) -> None:
    scorer = scorers("bert-simple")
    good = ScoreRequest(**GOOD)
    before = scorer.score([good])[0].tolist()
    with pytest.raises(GLiClassRerankError):
        scorer.score([good, ScoreRequest("Bread rises.", ("science " * 600,))])
    assert scorer.score([good])[0].tolist() == before


def test_no_requests_give_no_scores(scorers: Scorers) -> None:
    assert scorers("bert-simple").score([]) == []
    assert scorers("bert-simple").score(()) == []


def test_results_are_finite_float32_and_survive_pickling(scorers: Scorers) -> None:
    scorer = scorers("bert-simple", max_length=64)
    (logits,) = scorer.score([ScoreRequest("Bread rises. " * 60, ("science", "law"), long_text="window")])
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert logits.tolist() == logits.per_window.max(axis=0).tolist()
    again: Logits = pickle.loads(pickle.dumps(logits))
    assert again.tolist() == logits.tolist()
    assert again.spans == logits.spans
    assert again.per_window.tolist() == logits.per_window.tolist()
    assert not np.exp(logits).spans, "what is derived is an ordinary result without the memory of windows"  # type: ignore[attr-defined]
