"""Texts become tokens as upstream's do, are read whole, and nothing is cut unannounced."""

from __future__ import annotations

import tracemalloc
import unicodedata
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from checkpoints import CORPUS, POSITIONS, upstream_inputs
from conftest import Scorers, Tiny
from fakes import ConstantScorer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gliclass_rerank import Example, LabelTooLongError, ScoreRequest, TextTooLongError
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.models.encoding import EncodedRequest, InputEncoder, window_bounds
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scoring import labels_share_pass
from gliclass_rerank.types import LongText
from gliclass_rerank.validation import is_blank

# One layout for each way in which texts are tokenised and framed.
LAYOUTS = (
    "bert-simple",
    "bert-text-first",
    "bert-loose-markers",
    "modernbert-mlp",
    "deberta-simple",
    "deberta-weighted-dot",
    "t5-encoder",
    "t5-encoder-text-first",
    "roberta",
    "fused-text-first",
    "fused-first-blank",
    "t5-encoder-decoder-first-blank",
    "bart-encoder-decoder-cls",
    "qwen3-decoder-kv",
)
# Where the text stands behind the labels, so that its tokens are what follows the separator.
TEXT_LAST = ("bert-simple", "modernbert-mlp", "deberta-simple", "t5-encoder", "roberta")
LABELS = ("science", "law and order")
WINDOW = 64

laws = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
# No markers or special tokens (which upstream would parse), nothing that a tokenizer drops.
# No compatibility forms either, which upstream reads as unknown words.
readable = (
    st.text(st.characters(exclude_categories=["C"], exclude_characters="<["), max_size=60)
    .filter(lambda text: unicodedata.normalize("NFKC", text) == unicodedata.normalize("NFC", text))
    .map("word{}".format)
)
pieces = st.sampled_from(["  ", " ", "\n", "\t", "a", "Bread", "é", "😀", "東京", "  x", "."])
spaced = st.lists(pieces, max_size=30).map("".join)
texts = readable | spaced.map("{}word".format) | st.sampled_from(CORPUS)


def encoder_of(tiny: Tiny, name: str, max_length: int | None = None) -> tuple[InputEncoder, TextTokenizer]:
    checkpoint = read_checkpoint(tiny(name).folder, max_length=max_length)
    tokenizer = TextTokenizer(checkpoint.tokenizer_file)
    return InputEncoder(checkpoint, tokenizer), tokenizer


def text_of(encoded: EncodedRequest, tokenizer: TextTokenizer) -> list[NDArray[np.int32]]:
    """The text's own tokens in each pass of a layout of `TEXT_LAST`."""
    return [item.ids[item.separator + 1 : len(item.ids) - len(tokenizer.suffix)] for item in encoded.sequences]


@pytest.mark.parametrize("name", LAYOUTS)
@laws
@given(text=texts, label=texts, prompt=st.just("") | texts, shown=st.just("") | texts)
@example(text=" two  blanks ", label=" label ", prompt="prompt: ", shown="shown  ")
def test_tokens_equal_upstreams_for_texts_without_markers(
    name: str, tiny: Tiny, text: str, label: str, prompt: str, shown: str
) -> None:
    examples = (Example(shown, ("law", "music")),) if not is_blank(shown) else ()
    request = ScoreRequest(text, (label, "law"), prompt=prompt, examples=examples)
    encoder, _ = encoder_of(tiny, name)
    (item,) = encoder.encode([request])[0].sequences
    theirs = upstream_inputs(tiny(name), request)
    assert item.ids.tolist() == theirs["input_ids"][0].tolist()
    if len(item.side):
        assert item.side.tolist() == theirs["class_input_ids"][0].tolist()


@given(tokens=st.integers(1, 100_000), size=st.integers(4, 1024), share=st.integers(0, 64))
def test_windows_cover_and_overlap(tokens: int, size: int, share: int) -> None:
    overlap = min(share, size // 4)
    bounds = window_bounds(tokens, size, overlap)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == tokens
    assert all(0 < end - start <= size for start, end in bounds)
    assert all(b[0] <= a[1] - overlap and b[0] > a[0] for a, b in pairwise(bounds))
    # No more windows than the overlap makes necessary.
    assert (len(bounds) - 1) * (size - overlap) < max(tokens - overlap, 1)


@pytest.mark.parametrize("name", TEXT_LAST)
@laws
@given(parts=st.lists(texts, min_size=20, max_size=60))
def test_windows_read_every_token_of_the_text(name: str, tiny: Tiny, parts: list[str]) -> None:
    encoder, tokenizer = encoder_of(tiny, name, WINDOW)
    text = " ".join(parts)
    (encoded,) = encoder.encode([ScoreRequest(text, LABELS)])
    whole = tokenizer.ids(text).tolist()
    read = 0
    for window in text_of(encoded, tokenizer):
        start = next(i for i in range(read, -1, -1) if whole[i : i + len(window)] == window.tolist())
        read = max(read, start + len(window))
    assert read == len(whole)
    assert not encoded.truncated
    assert all(len(item.ids) <= WINDOW for item in encoded.sequences)
    starts, ends = zip(*encoded.spans, strict=True)
    assert list(starts) == sorted(starts)
    assert not text[: starts[0]].strip()
    assert not text[ends[-1] :].strip()
    assert all(not text[end:start].strip() for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.parametrize("name", TEXT_LAST)
@pytest.mark.parametrize("letter", ["a", "é", "😀", "東"])
def test_spans_slice_back_to_the_text(name: str, letter: str, tiny: Tiny) -> None:
    """Of words that all have as many tokens, a window's share of the words is its share of the tokens."""
    encoder, tokenizer = encoder_of(tiny, name, WINDOW)
    text = " ".join([letter] * 300)
    (encoded,) = encoder.encode([ScoreRequest(text, LABELS)])
    each = len(tokenizer.ids(text)) / 300
    assert len(encoded.spans) > 1
    for (start, end), window in zip(encoded.spans, text_of(encoded, tokenizer), strict=True):
        assert set(text[start:end]) <= {letter, " "}
        assert abs(text[start:end].count(letter) - len(window) / each) < 2  # a window may end within a letter's bytes
    overlap = len(text_of(encoded, tokenizer)[0]) // 4
    for (_, end), (start, _) in pairwise(encoded.spans):
        assert text[start:end].count(letter) * each > overlap - 2 * each


def test_a_text_that_fits_is_one_window_over_all_of_it(tiny: Tiny) -> None:
    encoder, _ = encoder_of(tiny, "bert-simple")
    (encoded,) = encoder.encode([ScoreRequest(" Bread rises. \n", LABELS)])
    assert encoded.spans == ((0, 15),)
    assert not encoded.truncated


@pytest.mark.parametrize("name", LAYOUTS)
def test_truncation_is_announced_and_reads_the_beginning(name: str, tiny: Tiny) -> None:
    encoder, _ = encoder_of(tiny, name, WINDOW)
    long, short = " ".join(CORPUS), "Bread rises."
    cut, whole, fits = encoder.encode(
        [
            ScoreRequest(long, LABELS, long_text="truncate"),
            ScoreRequest(long, LABELS),
            ScoreRequest(short, LABELS, long_text="truncate"),
        ]
    )
    assert cut.truncated
    assert len(cut.sequences) == len(cut.spans) == 1
    assert cut.spans[0][0] == 0
    assert not whole.truncated
    assert len(whole.sequences) > 1
    assert not fits.truncated


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_long_text_is_an_error_on_request(name: str, tiny: Tiny) -> None:
    encoder, _ = encoder_of(tiny, name, WINDOW)
    with pytest.raises(TextTooLongError, match="fit beside its labels"):
        encoder.encode([ScoreRequest(" ".join(CORPUS), LABELS, long_text="error")])
    assert encoder.encode([ScoreRequest("Bread rises.", LABELS, long_text="error")])


@pytest.mark.parametrize("name", ["bert-simple", "bert-text-first", "modernbert-mlp", "qwen3-decoder-kv"])
def test_more_labels_than_fit_are_no_error_of_a_short_text_and_cut_nothing(name: str, tiny: Tiny) -> None:
    """The direction passage-as-label: a query that fits, and more passages than one pass holds."""
    encoder, _ = encoder_of(tiny, name, WINDOW)
    labels = tuple(f"label number {i}" for i in range(80))
    ways: tuple[LongText, ...] = ("error", "truncate")
    for encoded in encoder.encode([ScoreRequest("Bread rises.", labels, long_text=way) for way in ways]):
        assert len(encoded.spans) == 1
        assert len(encoded.sequences) > 1
        assert not encoded.truncated


@pytest.mark.parametrize("name", ["bert-simple", "bert-text-first", "modernbert-mlp", "fused", "qwen3-decoder-kv"])
@pytest.mark.parametrize("text", ["Bread rises.", " ".join(CORPUS)])
def test_more_labels_than_fit_are_split_and_all_come_back_in_order(name: str, text: str, tiny: Tiny) -> None:
    encoder, _ = encoder_of(tiny, name, WINDOW)
    labels = tuple(f"label number {i}" for i in range(80))
    (encoded,) = encoder.encode([ScoreRequest(text, labels)])
    groups = len(encoded.sequences) // len(encoded.spans)
    assert groups > 1
    for window in range(len(encoded.spans)):
        passes = encoded.sequences[window * groups : (window + 1) * groups]
        assert tuple(label for item in passes for label in item.labels) == labels
        assert all(len(item.label_spans) == len(item.labels) for item in passes)
    assert all(len(item.ids) <= WINDOW for item in encoded.sequences)
    numbered = [np.arange(len(item.labels), dtype=np.float32) for item in encoded.sequences]
    assembled = encoded.assemble(numbered, {})
    assert assembled.shape == (80,)
    assert assembled.per_window.shape == (len(encoded.spans), 80)


@pytest.mark.parametrize("text", ["Bread rises.", " ".join(CORPUS)])
def test_more_labels_than_were_trained_are_divided_evenly(text: str, tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny("bert-simple").folder)
    checkpoint = replace(checkpoint, options=replace(checkpoint.options, max_labels=8))
    encoder = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))
    for count, sizes in ((8, [8]), (9, [5, 4]), (20, [7, 7, 6])):
        labels = tuple(f"label {i}" for i in range(count))
        (encoded,) = encoder.encode([ScoreRequest(text, labels)])
        first_window = encoded.sequences[: len(encoded.sequences) // len(encoded.spans)]
        assert [len(item.labels) for item in first_window] == sizes
        assert tuple(label for item in first_window for label in item.labels) == labels


scripts = st.sampled_from(["账单发票退款支付订单", "0123456789abcdef", "😀🎉🚗", "invoice refund ", "ﬁ½ﷺéß東"])
label_lists = st.lists(
    scripts.flatmap(lambda script: st.text(script, min_size=1, max_size=12)).map("a{}".format), min_size=1, max_size=14
)


@laws
@given(st.data())
@pytest.mark.parametrize("name", [*LAYOUTS, "bi-encoder"])
def test_labels_share_a_pass_beside_every_text_or_are_divided_beside_some(name: str, tiny: Tiny, data: Any) -> None:
    labels, repeats = data.draw(label_lists), data.draw(st.integers(0, 40))
    encoder, _ = encoder_of(tiny, name, WINDOW)
    shared = encoder.labels_share_pass(labels)
    groups = []
    for text in ("word " * (repeats + 1), "word " * 200):
        try:
            (encoded,) = encoder.encode([ScoreRequest(text, tuple(labels))])
        except LabelTooLongError:
            assert not shared
            return
        groups.append(len(encoded.sequences) // len(encoded.spans))
    assert groups == [1, 1] if shared else groups[1] > 1

    class Foreign(ConstantScorer):
        info = replace(ConstantScorer.info, max_length=WINDOW)

    assert shared or not labels_share_pass(Foreign(0.0), labels)


@pytest.mark.parametrize("name", ["t5-encoder-decoder-first-blank", "bart-encoder-decoder-cls"])
def test_labels_of_an_encoder_decoder_are_divided_as_others_are(name: str, tiny: Tiny, scorers: Scorers) -> None:
    labels = tuple(f"label {i}" for i in range(400))
    for text in ("Bread rises.", " ".join(CORPUS)):
        encoder, _ = encoder_of(tiny, name, POSITIONS)
        (encoded,) = encoder.encode([ScoreRequest(text, labels)])
        assert all(len(item.side) <= POSITIONS for item in encoded.sequences)
        first_window = encoded.sequences[: len(encoded.sequences) // len(encoded.spans)]
        assert len(first_window) > 1
        assert tuple(label for item in first_window for label in item.labels) == labels
    scorer = scorers(name, max_length=POSITIONS)
    (logits,) = scorer.score([ScoreRequest("Bread rises.", labels)])
    groups = [item.labels for item in encoder.encode([ScoreRequest("Bread rises.", labels)])[0].sequences]
    apart = scorer.score([ScoreRequest("Bread rises.", group) for group in groups])
    np.testing.assert_allclose(logits, np.concatenate(apart), atol=1e-5)
    with pytest.raises(LabelTooLongError, match="label 'enormous label"):
        encoder.encode([ScoreRequest("Bread rises.", ("law", "enormous label " * 400))])


@pytest.mark.parametrize("name", ["bi-encoder", "bi-encoder-avg"])
def test_labels_of_a_bi_encoder_take_no_room(name: str, tiny: Tiny) -> None:
    encoder, _ = encoder_of(tiny, name, WINDOW)
    (encoded,) = encoder.encode([ScoreRequest("Bread rises.", tuple(f"label {i}" for i in range(200)))])
    assert len(encoded.sequences) == 1


def test_a_split_of_labels_scores_every_label(scorers: Scorers) -> None:
    scorer = scorers("bi-encoder-avg"), scorers("bert-simple", max_length=WINDOW)
    labels = tuple(f"label number {i}" for i in range(80))
    for each in scorer:
        (logits,) = each.score([ScoreRequest("Bread rises because yeast turns sugar into gas.", labels)])
        assert logits.shape == (80,)
        assert np.unique(logits).size > 40


@pytest.mark.parametrize("name", ["bert-simple", "bert-text-first", "deberta-simple", "qwen3-decoder-kv"])
@pytest.mark.parametrize("text", ["Bread rises.", " ".join(CORPUS)])
def test_a_label_that_does_not_fit_is_an_error_that_names_it(name: str, text: str, tiny: Tiny) -> None:
    encoder, _ = encoder_of(tiny, name, WINDOW)
    with pytest.raises(LabelTooLongError, match="enormous label"):
        encoder.encode([ScoreRequest(text, ("law", "enormous label " * 40, "music"))])


@pytest.mark.parametrize("name", LAYOUTS)
def test_prompt_and_examples_that_leave_no_room_are_an_error(name: str, tiny: Tiny) -> None:
    encoder, _ = encoder_of(tiny, name, WINDOW)
    with pytest.raises(LabelTooLongError):
        encoder.encode([ScoreRequest("Bread rises.", LABELS, prompt="a very long prompt " * 40)])
    with pytest.raises(LabelTooLongError):
        encoder.encode([ScoreRequest("Bread rises.", LABELS, examples=(Example("long " * 200, ("law",)),))])


def test_the_label_tokenizer_bounds_a_bi_encoders_labels(scorers: Scorers) -> None:
    with pytest.raises(LabelTooLongError, match="label encoder"):
        scorers("bi-encoder").score([ScoreRequest("Bread rises.", ("enormous label " * 400,))])


def test_a_megabyte_is_read_whole_in_modest_memory(tiny: Tiny) -> None:
    encoder, tokenizer = encoder_of(tiny, "bert-simple")
    line = "Prices rose by two percent in March. "
    text = line * (1_000_000 // len(line))
    tracemalloc.start()
    (encoded,) = encoder.encode([ScoreRequest(text, LABELS)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tokens, size = len(tokenizer.ids(text)), len(text_of(encoded, tokenizer)[0])
    assert len(encoded.sequences) == len(encoded.spans) == len(window_bounds(tokens, size, 64))
    assert encoded.spans[0][0] == 0
    assert encoded.spans[-1][1] == len(text.rstrip())
    assert peak < 300e6
