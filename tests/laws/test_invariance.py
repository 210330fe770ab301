"""A pair scores the same alone, in any batch and in any order; markers in a text are only characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from checkpoints import CORPUS, MARKERS
from conftest import Exported, Scorers, Tiny, needs_mini
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gliclass_rerank import Example, Logits, ScoreRequest, load_scorer
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.models.encoding import EncodedSequence, InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.load import LoadedScorer
from gliclass_rerank.types import FloatArray

TOLERANCE = 1e-5
laws = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])

TORCH_LAYOUTS = (
    "bert-average-text",
    "bert-prompts-segments",
    "bert-max-text",
    "bert-lstm-text",
    "bert-hopfield",
    "bert-calibrated",
    "modernbert-segments",
    "deberta-cross-attn",
    "bi-encoder-avg",
    "fused-text-first",
    "t5-encoder-decoder-text",
    "bart-encoder-decoder-cls",
    "qwen3-decoder-kv-recurrent",
)
ONNX_LAYOUTS = ("bert-prompts-segments", "bert-max-text", "modernbert-mlp", "deberta-cross-attn")
MARKER_LAYOUTS = (
    "bert-simple",
    "bert-text-first",
    "bert-loose-markers",
    "modernbert-mlp",
    "deberta-simple",
    "fused",
    "t5-encoder-decoder-first-blank",
    "qwen3-decoder-kv",
)

WORDS = sorted({word for line in CORPUS for word in line.split()})
# The leading word keeps a text from being nothing but what a tokenizer drops.
unicode_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).map("word ".__add__)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=120).map(" ".join) | unicode_texts
label_sets = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=5)


@st.composite
def requests(draw: st.DrawFn, *, examples: bool = True) -> ScoreRequest:
    shown = (Example("The violin is played with a bow.", ("music",)),)
    return ScoreRequest(
        draw(texts),
        tuple(draw(label_sets)),
        prompt=draw(st.sampled_from(["", "Sort by topic:"])),
        examples=draw(st.sampled_from([(), shown] if examples else [()])),
    )


def close(ours: FloatArray, theirs: FloatArray) -> bool:
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def assert_batch_invariant(scorers: Sequence[LoadedScorer], batch: list[ScoreRequest], data: st.DataObject) -> None:
    """``scorers`` differ in their batch sizes only."""
    order = data.draw(st.permutations(range(len(batch))))
    alone = [scorers[0].score([request])[0] for request in batch]
    for scorer in scorers:
        together = scorer.score(batch)
        shuffled = scorer.score([batch[i] for i in order])
        assert [row.shape for row in together] == [(len(request.labels),) for request in batch]
        assert all(close(a, b) for a, b in zip(alone, together, strict=True))
        assert all(close(alone[i], row) for i, row in zip(order, shuffled, strict=True))


@pytest.mark.parametrize("name", TORCH_LAYOUTS)
@laws
@given(data=st.data())
def test_torch_scores_do_not_depend_on_the_batch(name: str, scorers: Scorers, data: st.DataObject) -> None:
    examples = name != "bi-encoder-avg"  # which reads none
    batch = data.draw(st.lists(requests(examples=examples), min_size=1, max_size=6))
    assert_batch_invariant([scorers(name, max_batch_tokens=size) for size in (1, 200, 1 << 14)], batch, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONNX_LAYOUTS)
@laws
@given(data=st.data())
def test_onnx_scores_do_not_depend_on_the_batch(name: str, scorers: Scorers, data: st.DataObject) -> None:
    batch = data.draw(st.lists(requests(), min_size=1, max_size=6))
    assert_batch_invariant([scorers(name, "onnx", max_batch_tokens=size) for size in (1, 200, 1 << 14)], batch, data)


@pytest.fixture(scope="module")
def mini_by_batch_size() -> list[LoadedScorer]:
    return [load_scorer("mini", max_batch_tokens=size) for size in (1, 300, 4096)]


@needs_mini
@laws
@given(data=st.data())
def test_mini_scores_do_not_depend_on_the_batch(mini_by_batch_size: list[LoadedScorer], data: st.DataObject) -> None:
    batch = data.draw(st.lists(requests(), min_size=1, max_size=5))
    assert_batch_invariant(mini_by_batch_size, batch, data)


@pytest.mark.parametrize("name", ["bert-max-text", "deberta-cross-attn", "t5-encoder-decoder"])
def test_a_long_text_scores_the_same_in_any_company(name: str, scorers: Scorers) -> None:
    scorer = scorers(name, max_length=96)
    long = ScoreRequest(" ".join(CORPUS), ("science", "law and order"))
    short = [ScoreRequest(text, ("science", "law and order")) for text in CORPUS[:3]]
    alone = scorer.score([long])[0]
    among = scorer.score([short[0], long, *short[1:], long])
    assert len(alone.spans) > 1
    assert all(close(alone.per_window, among[i].per_window) and alone.spans == among[i].spans for i in (1, 4))


@laws
@given(labels=label_sets, text=texts)
def test_duplicate_labels_keep_their_places(scorers: Scorers, labels: list[str], text: str) -> None:
    doubled = ScoreRequest(text, (*labels, *labels))
    joint, apart = scorers("bert-simple"), scorers("bi-encoder")
    assert joint.score([doubled])[0].shape == (2 * len(labels),)
    # Where labels are encoded apart, each place has the score of its label.
    (once,), (twice,) = apart.score([ScoreRequest(text, tuple(labels))]), apart.score([doubled])
    assert close(twice, np.concatenate([once, once]))


def test_equal_requests_get_equal_scores_and_no_request_gets_none(scorers: Scorers) -> None:
    request = ScoreRequest("Bread rises because yeast turns sugar into gas.", ("science", "science", "law"))
    first, second = scorers("bert-average-text").score([request, request])
    assert first.tolist() == second.tolist()
    assert scorers("bert-average-text").score([]) == []


marked = st.lists(st.sampled_from([*MARKERS, *WORDS[:40]]), min_size=1, max_size=12).map(
    lambda parts: f"word {' '.join(parts)}{parts[0]}"
)


@pytest.mark.parametrize("name", MARKER_LAYOUTS)
@laws
@given(data=st.data())
def test_no_field_can_put_a_marker_into_the_sequence(name: str, tiny: Tiny, data: st.DataObject) -> None:
    request = ScoreRequest(
        data.draw(marked),
        tuple(data.draw(st.lists(marked, min_size=1, max_size=3))),
        prompt=data.draw(marked | st.just("")),
        examples=tuple(Example(data.draw(marked), (data.draw(marked),)) for _ in range(data.draw(st.integers(0, 2)))),
    )
    encoder, ids = encoder_of(tiny, name)
    (item,) = encoder.encode([request])[0].sequences
    sequence = [*item.ids, *item.side]
    separators = 2 if name == "qwen3-decoder-kv" else 1
    assert sequence.count(ids["<<LABEL>>"]) == len(request.labels)
    assert sequence.count(ids["<<SEP>>"]) == separators + bool(request.examples)
    assert sequence.count(ids["<<EXAMPLE>>"]) == len(request.examples)
    assert all(token == ids["<<LABEL>>"] for token in labelled_tokens(item))


def test_a_marker_in_a_text_reads_like_the_same_characters(scorers: Scorers) -> None:
    """BERT's tokenizer splits at punctuation, so blanks between the characters of a marker change no token."""
    written = ["<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>"]
    spaced = ["< < label > >", "< < sep > >", "< < example > >"]
    for scorer in (scorers("bert-simple"), scorers("bert-loose-markers"), scorers("bert-average-text")):
        for a, b in zip(written, spaced, strict=True):
            with_marker, with_blanks = scorer.score([
                ScoreRequest(f"1 {x} 2", (f"3 {x}", "4"), prompt=f"5 {x}", examples=(Example(f"6 {x}", (f"7 {x}",)),))
                for x in (a, b)
            ])  # fmt: skip
            assert with_marker.tolist() == with_blanks.tolist()


def test_a_marker_in_one_label_changes_no_other_score_where_labels_are_apart(scorers: Scorers) -> None:
    scorer = scorers("bi-encoder")
    plain, marker = (
        scorer.score([ScoreRequest("Prices rose by two percent.", ("law", label, "finance"))])[0]
        for label in ("sports", "sports<<LABEL>>music<<SEP>>")
    )
    assert close(plain[[0, 2]], marker[[0, 2]])


PAIRS = (
    ("How do I reset my password?", "To reset your password, open Settings, choose Security and follow the link."),
    ("When was the bridge built?", "Construction of the suspension bridge began in 1933 and ended four years later."),
    ("symptoms of iron deficiency", "People who lack iron often feel tired, look pale and get short of breath."),
    ("Which planet has the most moons?", "Astronomers have counted more than 140 moons around Saturn."),
    ("how to boil eggs", "Place the eggs in boiling water for nine minutes, then cool them under cold water."),
    ("refund policy for late deliveries", "If a parcel arrives a week late, we return the full price on request."),
    ("What causes tides?", "The gravity of the moon pulls the oceans towards it twice a day."),
    ("python read csv file", "csv.reader returns an object that iterates over the lines of a file as lists."),
    ("Who wrote the opera Carmen?", "Georges Bizet composed Carmen in 1875; he died three months after its premiere."),
    ("effects of inflation on savings", "Money in a savings account buys less each year when prices rise faster."),
)


@needs_mini
def test_mini_int8_agrees_with_fp32() -> None:
    small, wide = load_scorer("mini"), load_scorer("mini", backend="torch")
    assert (small.info.dtype, wide.info.dtype) == ("int8", "fp32")
    pairs = [ScoreRequest(passage, (query,)) for query, _ in PAIRS for _, passage in PAIRS]
    ours, theirs = (probabilities(scorer.score(pairs)) for scorer in (small, wide))
    assert np.abs(ours - theirs).max() <= 2e-2
    clearly = np.subtract.outer(theirs, theirs) > 0.1
    assert clearly.any()
    assert (np.subtract.outer(ours, ours)[clearly] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert-average-text", "modernbert-mlp", "deberta-cross-attn"])
@laws
@given(data=st.data())
def test_int8_scores_do_not_depend_on_the_batch(name: str, exported: Exported, data: st.DataObject) -> None:
    folder = exported(name, "int8")
    batch = data.draw(st.lists(requests(), min_size=1, max_size=5))
    assert_batch_invariant([load_scorer(folder, max_batch_tokens=size) for size in (1, 300, 1 << 14)], batch, data)


def encoder_of(tiny: Tiny, name: str) -> tuple[InputEncoder, dict[str, int]]:
    checkpoint = read_checkpoint(tiny(name).folder)
    tokenizer = TextTokenizer(checkpoint.tokenizer_file)
    return InputEncoder(checkpoint, tokenizer), {marker: tokenizer.marker(marker) for marker in MARKERS}


def labelled_tokens(item: EncodedSequence) -> list[int]:
    """The tokens at which the spans of the labels start."""
    sequence = item.side if len(item.side) else item.ids
    return [int(sequence[start]) for start, _ in item.label_spans]


def probabilities(logits: Sequence[Logits]) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.concatenate(logits))), np.float32)
