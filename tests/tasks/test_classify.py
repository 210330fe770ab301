"""The laws of Classifier on small fakes, its parity with upstream, and upstream's defects that it does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from checkpoints import CORPUS, Built, upstream_inputs, upstream_tokenizer
from conftest import Scorers, Tiny
from fakes import ConstantScorer, OverlapScorer, windows
from gliclass.pipeline import ZeroShotClassificationPipeline, ZeroShotClassificationWithChunkingPipeline
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import (
    Example,
    InputError,
    InvalidTextError,
    NonFiniteError,
    OptionError,
    ScoreRequest,
    TextTooLongError,
)
from gliclass_rerank.calibration.calibrators import PlattCalibrator, TemperatureCalibrator, sigmoid
from gliclass_rerank.tasks.classify import Classification, Classifier, LabelScore
from gliclass_rerank.tasks.nested_labels import DEEPEST, NestedLabels
from gliclass_rerank.types import FloatArray

TOLERANCE = 1e-4
TEXT = "copy a file and sort the list in this folder"
LABELS = ["move a window", "copy a file", "sort a list", "open the door", "copy a file"]
SHARED = [1, 3, 3, 1, 3]  # words with TEXT, of which "a" is one
NESTED = {"act": ["copy", "open"], "thing": {"small": ["file"], "large": ["folder", "window"]}}
NAMES = ["act.copy", "act.open", "thing.small.file", "thing.large.folder", "thing.large.window"]

word = st.sampled_from("copy a file read sort list folder open close move".split())
text = st.lists(word, min_size=1, max_size=8).map(" ".join)
label_lists = st.lists(text, min_size=1, max_size=6)
modes = pytest.mark.parametrize("multi_label", [True, False])


class RecordingScorer(OverlapScorer):
    """Remembers its requests; words of prompts and examples count as words of the text do."""

    def __init__(self, *, window: int | None = None) -> None:
        super().__init__(window=window)
        self.requests: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.requests += requests
        shown = [" ".join([r.prompt, *(e.text for e in r.examples), r.text]) for r in requests]
        return super().score([replace(r, text=words) for r, words in zip(requests, shown, strict=True)])


class PathScorer:
    """Scores the labels by a fixed table, 0 for labels that are not in it."""

    info = ConstantScorer.info

    def __init__(self, logits: dict[str, float]) -> None:
        self._logits = logits

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        return [np.array([self._logits.get(name, 0.0) for name in r.labels], np.float32) for r in requests]


def indices(result: Classification) -> list[int]:
    return [label.index for label in result.labels]


# What holds


def test_the_labels_that_hold_best_first_and_equal_ones_in_the_order_given() -> None:
    result = Classifier(OverlapScorer()).classify(TEXT, LABELS)
    assert [(label.label, label.index) for label in result.labels] == [
        ("copy a file", 1), ("sort a list", 2), ("copy a file", 4),
    ]  # fmt: skip
    assert result.scores == pytest.approx(sigmoid([2 * shared - 3 for shared in SHARED]).tolist())
    assert all(label.score == result.scores[label.index] and label.window is None for label in result.labels)
    assert (result.truncated, result.tree) == (False, None)


def test_single_label_gives_the_best_one_and_the_softmax_of_all() -> None:
    result = Classifier(OverlapScorer()).classify(TEXT, LABELS, multi_label=False)
    weights = np.exp([2 * shared - 3 for shared in SHARED])
    assert result.scores == pytest.approx((weights / weights.sum()).tolist())
    assert indices(result) == [1]


def test_nothing_holds_when_nothing_reaches_the_threshold() -> None:
    assert Classifier(OverlapScorer()).classify("no such words", LABELS).labels == ()
    alone = Classifier(OverlapScorer()).classify("no such words", LABELS, multi_label=False)
    assert len(alone.labels) == 1


def test_a_score_at_the_threshold_holds() -> None:
    assert indices(Classifier(ConstantScorer(0.0)).classify("x", ["a", "b"], threshold=0.5)) == [0, 1]


def test_a_threshold_a_label_and_one_half_for_the_others() -> None:
    classifier = Classifier(PathScorer({"low": -1.0, "high": 1.0}))
    result = classifier.classify("x", ["low", "high", "even"], threshold={"low": 0.2, "high": 0.8})
    assert [label.label for label in result.labels] == ["even", "low"]
    nested = classifier.classify("x", {"a": ["low", "b"]}, threshold={"a.b": 0.6})
    assert [label.label for label in nested.labels] == ["a.low"]


@pytest.mark.parametrize("logit", [-400.0, 400.0])
@modes
def test_extreme_logits_give_probabilities_and_an_order(logit: float, multi_label: bool) -> None:
    classifier = Classifier(PathScorer({"a": logit, "b": logit + 1}))
    result = classifier.classify("x", ["a", "b"], multi_label=multi_label, top_k=2, threshold=0)
    assert indices(result) == [1, 0]
    assert all(0 <= score <= 1 for score in result.scores)


@modes
def test_the_calibrator_for_labels_is_for_multi_label_alone(multi_label: bool) -> None:
    plain, calibrated = OverlapScorer(), OverlapScorer()
    calibration = {"labels": PlattCalibrator(0.5, -1.0), "relevance": TemperatureCalibrator(9.0)}
    calibrated.info = replace(plain.info, calibration=calibration)
    result = Classifier(calibrated).classify(TEXT, LABELS, multi_label=multi_label)
    if multi_label:
        expected = sigmoid([0.5 * (2 * shared - 3) - 1 for shared in SHARED]).tolist()
        assert result.scores == pytest.approx(expected)
    else:
        assert result == Classifier(plain).classify(TEXT, LABELS, multi_label=False)


# Laws


@given(text, label_lists, st.integers(1, 8), st.floats(0, 1), st.booleans())
def test_top_k_is_a_prefix_of_the_full_ranking(
    given_text: str, labels: list[str], top_k: int, threshold: float, multi_label: bool
) -> None:
    classifier = Classifier(OverlapScorer())
    full = classifier.classify(given_text, labels, threshold=threshold, multi_label=multi_label, top_k=len(labels))
    some = classifier.classify(given_text, labels, threshold=threshold, multi_label=multi_label, top_k=top_k)
    assert some.labels == full.labels[:top_k]
    assert some.scores == full.scores
    assert all(one.score >= two.score for one, two in pairwise(full.labels))


@given(text, label_lists, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_leaves_fewer(given_text: str, labels: list[str], one: float, two: float) -> None:
    classifier = Classifier(OverlapScorer())
    low, high = (classifier.classify(given_text, labels, threshold=value) for value in sorted([one, two]))
    assert high.labels == low.labels[: len(high.labels)]
    assert high.scores == low.scores


@given(text, st.lists(text, min_size=1, max_size=6, unique=True), st.randoms(), st.booleans())
def test_the_order_of_the_labels_permutes_the_scores(
    given_text: str, labels: list[str], random: Any, multi_label: bool
) -> None:
    order = list(range(len(labels)))
    random.shuffle(order)
    classifier = Classifier(OverlapScorer())
    straight = classifier.classify(given_text, labels, multi_label=multi_label, top_k=9)
    shuffled = classifier.classify(given_text, [labels[i] for i in order], multi_label=multi_label, top_k=9)
    assert shuffled.scores == pytest.approx([straight.scores[i] for i in order])
    straight_labels = {label.label: label.score for label in straight.labels}
    assert {label.label: label.score for label in shuffled.labels} == pytest.approx(straight_labels)


@given(st.lists(st.tuples(text, label_lists, text), min_size=1, max_size=4), st.booleans())
def test_labels_prompts_and_examples_a_text_equal_separate_calls(
    jobs: list[tuple[str, list[str], str]], multi_label: bool
) -> None:
    scorer = RecordingScorer()
    texts, labels, prompts = (list(column) for column in zip(*jobs, strict=True))
    examples = [[Example(prompt, ("copy",))] for prompt in prompts]
    together = Classifier(scorer).classify(
        texts, labels, prompt=prompts, examples=examples, multi_label=multi_label
    )  # fmt: skip
    assert scorer.calls == [len(texts)]
    assert together == [
        Classifier(scorer).classify(one, own, prompt=prompt, examples=shown, multi_label=multi_label)
        for one, own, prompt, shown in zip(texts, labels, prompts, examples, strict=True)
    ]


@given(text, label_lists, st.booleans())
def test_a_list_of_one_is_the_single_result(given_text: str, labels: list[str], multi_label: bool) -> None:
    classifier = Classifier(OverlapScorer())
    single = classifier.classify(given_text, labels, multi_label=multi_label)
    for texts in ([given_text], (given_text,)):
        assert classifier.classify(texts, labels, multi_label=multi_label) == [single]
    assert classifier.classify(given_text, [labels], multi_label=multi_label, prompt=[""]) == single


def test_the_callers_objects_stay_as_they_are() -> None:
    texts, labels, examples = [TEXT, "sort"], {"act": ["copy", "sort"]}, [{"text": "x", "labels": ["sort"]}]
    Classifier(OverlapScorer()).classify(texts, labels, examples=examples, hierarchical=True)
    assert (texts, labels) == ([TEXT, "sort"], {"act": ["copy", "sort"]})
    assert examples == [{"text": "x", "labels": ["sort"]}]


# Nested labels


def test_nested_labels_are_named_by_their_path_and_scored_in_their_nesting() -> None:
    scorer = RecordingScorer()
    result = Classifier(scorer).classify(TEXT, NESTED, hierarchical=True, top_k=1, threshold=0)
    assert scorer.requests[0].labels == tuple(NAMES)
    a, b, c, d, e = result.scores
    assert result.tree == {
        "act": {"copy": a, "open": b},
        "thing": {"small": {"file": c}, "large": {"folder": d, "window": e}},
    }
    assert result.labels == (LabelScore("act.copy", a, 0),)


def test_a_tree_is_made_on_request_only_and_a_result_with_one_can_be_hashed() -> None:
    classifier = Classifier(OverlapScorer())
    with_tree = classifier.classify(TEXT, NESTED, hierarchical=True)
    without = classifier.classify(TEXT, NESTED)
    assert without.tree is None
    assert (with_tree.labels, with_tree.scores) == (without.labels, without.scores)
    assert len({with_tree, without}) == 2


def test_each_text_may_have_a_nesting_of_its_own() -> None:
    classifier = Classifier(OverlapScorer())
    sets: list[NestedLabels] = [{"act": "copy"}, {"thing": ("file", "list")}]
    first, second = classifier.classify([TEXT, TEXT], sets, hierarchical=True)
    assert first.tree == {"act": {"copy": first.scores[0]}}
    assert second.tree == {"thing": {"file": second.scores[0], "list": second.scores[1]}}


def test_another_separator() -> None:
    scorer = RecordingScorer()
    Classifier(scorer, separator=" > ").classify(TEXT, NESTED)
    assert scorer.requests[0].labels[2] == "thing > small > file"


# Prompts and examples


def test_prompts_and_examples_reach_the_model() -> None:
    scorer, example = RecordingScorer(), Example("move it", ("move",))
    retrieved = {"text": "sort it", "true_labels": ["sort"], "all_labels": ["sort", "copy"]}
    Classifier(scorer).classify(TEXT, LABELS, prompt="By act:", examples=[example], rac=[retrieved])
    assert scorer.requests[0].prompt == "By act:"
    assert scorer.requests[0].examples == (example, Example("sort it", ("sort",)))


def test_retrieved_examples_are_each_texts_own_and_examples_are_for_all() -> None:
    scorer, always = RecordingScorer(), {"text": "move it", "labels": ["move"]}
    found = [Example("sort it", ("sort",)), Example("open it", ("open",))]
    Classifier(scorer).classify(["a", "b", "c"], LABELS, examples=[always], rac=[found, None, found[:1]])
    shown = [[example.text for example in request.examples] for request in scorer.requests]
    assert shown == [["move it", "sort it", "open it"], ["move it"], ["move it", "sort it"]]


def test_none_and_empty_are_no_prompts_and_no_examples() -> None:
    scorer = RecordingScorer()
    Classifier(scorer).classify(["a", "b"], LABELS, prompt=[None, ""], examples=[None, []], rac=[])
    assert all((request.prompt, request.examples) == ("", ()) for request in scorer.requests)


# Long texts

LONG = "copy copy copy copy sort copy x x sort sort sort sort"
WORDS = ["copy", "sort", "x"]


def test_each_label_tells_its_best_window() -> None:
    result = Classifier(OverlapScorer(window=4)).classify(LONG, ["sort copy", "x", "copy"], threshold=0)
    spans = windows(LONG, 4)
    assert {label.label: label.window for label in result.labels} == {
        "sort copy": spans[1], "x": spans[1], "copy": spans[0],
    }  # fmt: skip
    assert not result.truncated


@modes
def test_windows_are_aggregated_by_their_logits(multi_label: bool) -> None:
    rows = np.array([[-1, -3, -3], [-1, -1, -1], [-3, -1, -3]], np.float64)  # copy, sort, x in each window
    classifier = Classifier(OverlapScorer(window=4))
    expected_logits: dict[Any, Any] = {"max": rows.max(axis=0), "mean": rows.mean(axis=0), "first": rows[0]}
    for aggregate, logits in expected_logits.items():
        weights = np.exp(logits)
        expected = sigmoid(logits) if multi_label else weights / weights.sum()
        result = classifier.classify(LONG, WORDS, aggregate=aggregate, multi_label=multi_label)
        assert result.scores == pytest.approx(expected.tolist())


def test_what_was_not_read_is_told() -> None:
    classifier = Classifier(OverlapScorer(window=4))
    cut, whole = classifier.classify([LONG, "copy"], WORDS, long_text="truncate")
    assert (cut.truncated, whole.truncated) == (True, False)
    assert [cut, whole] == classifier.classify([LONG, "copy"], WORDS, aggregate="first")


@pytest.mark.parametrize("aggregate", ["max", "mean", "first"])
def test_a_long_text_is_an_error_on_request(scorers: Scorers, aggregate: Any) -> None:
    classifier = Classifier(scorers("bert-simple", max_length=64))
    with pytest.raises(TextTooLongError):
        classifier.classify("copy a file " * 100, WORDS, aggregate=aggregate, long_text="error")


def test_aggregate_changes_nothing_in_a_text_of_one_window() -> None:
    classifier = Classifier(OverlapScorer(window=4))
    results = [classifier.classify("copy it", WORDS, aggregate=how) for how in ("max", "mean", "first")]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("aggregate", ["max", "mean", "first"])
def test_a_real_model_reads_windows(aggregate: Any, scorers: Scorers) -> None:
    scorer, labels = scorers("bert-simple", max_length=64), ["science", "law"]
    logits: Any = scorer.score([ScoreRequest(" ".join(CORPUS), tuple(labels))])[0]
    assert len(logits.spans) > 5
    expected = {"max": logits.per_window.max(0), "mean": logits.per_window.mean(0), "first": logits.per_window[0]}
    result = Classifier(scorer).classify(" ".join(CORPUS), labels, aggregate=aggregate)
    assert result.scores == pytest.approx(sigmoid(expected[aggregate]).tolist(), abs=1e-5)


# Upstream gives the same


LAYOUTS = ("bert-simple", "bert-text-first", "modernbert-mlp")
PARITY_TEXT = "The court found that the contract was void, since the invoice was never paid."
PARITY_LABELS = ["law", "a question about a payment", "science", "travel"]
PARITY_NESTED = {"topic": ["law", "science"], "tone": {"good": ["positive"], "bad": ["negative", "spam"]}}
PROMPT = "Classify the text by its topic:"
EXAMPLES = [
    {"text": "The violin is played with a bow.", "labels": ["music"]},
    {"text": "Prices rose by two percent.", "labels": ["finance", "politics"]},
]


def upstream(built: Built, *, kind: str = "multi-label") -> Callable[..., Any]:
    pipeline: Callable[..., Any] = ZeroShotClassificationPipeline(
        built.model, upstream_tokenizer(built.folder), 25, 4096, kind, device="cpu", progress_bar=False
    )
    return pipeline


def upstream_scores(pipeline: Callable[..., Any], text: str, **options: Any) -> list[float]:
    """All scores, in the order of `PARITY_LABELS`."""
    (items,) = pipeline(text, PARITY_LABELS, threshold=0.0, **options)
    assert [item["label"] for item in items] == PARITY_LABELS
    return [item["score"] for item in items]


@pytest.mark.parametrize(
    "options", [{}, {"prompt": PROMPT}, {"examples": EXAMPLES}, {"prompt": PROMPT, "examples": EXAMPLES}]
)
@pytest.mark.parametrize("name", LAYOUTS)
def test_multi_label_equals_upstream(name: str, options: dict[str, Any], tiny: Tiny, scorers: Scorers) -> None:
    theirs = upstream_scores(upstream(tiny(name)), PARITY_TEXT, **options)
    ours = Classifier(scorers(name)).classify(PARITY_TEXT, PARITY_LABELS, **options)
    assert ours.scores == pytest.approx(theirs, abs=TOLERANCE)
    assert np.ptp(ours.scores) > 0.01, "this checkpoint scores all labels alike and proves nothing"


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_holds_equals_upstream(name: str, threshold: float, tiny: Tiny, scorers: Scorers) -> None:
    (theirs,) = upstream(tiny(name))(PARITY_TEXT, PARITY_LABELS, threshold=threshold)
    ours = Classifier(scorers(name)).classify(PARITY_TEXT, PARITY_LABELS, threshold=threshold)
    scores = {label.label: label.score for label in ours.labels}
    assert scores == pytest.approx({item["label"]: item["score"] for item in theirs}, abs=TOLERANCE)


@pytest.mark.parametrize("name", LAYOUTS)
def test_single_label_equals_upstream(name: str, tiny: Tiny, scorers: Scorers) -> None:
    (theirs,) = upstream(tiny(name), kind="single-label")(PARITY_TEXT, PARITY_LABELS, prompt=PROMPT)[0]
    (ours,) = Classifier(scorers(name)).classify(PARITY_TEXT, PARITY_LABELS, prompt=PROMPT, multi_label=False).labels
    assert ours.label == theirs["label"]
    assert ours.score == pytest.approx(theirs["score"], abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["multi-label", "single-label"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_hierarchical_output_equals_upstream(name: str, kind: str, tiny: Tiny, scorers: Scorers) -> None:
    (theirs,) = upstream(tiny(name), kind=kind)(PARITY_TEXT, PARITY_NESTED, return_hierarchical=True)
    classifier = Classifier(scorers(name))
    ours = classifier.classify(PARITY_TEXT, PARITY_NESTED, hierarchical=True, multi_label=kind == "multi-label")
    assert flat(ours.tree) == pytest.approx(flat(theirs), abs=TOLERANCE)
    assert list(flat(ours.tree)) == list(flat(theirs))


def flat(tree: Any, above: str = "") -> dict[str, float]:
    if not isinstance(tree, dict):
        return {above: tree}
    return {name: score for key, value in tree.items() for name, score in flat(value, f"{above}/{key}").items()}


# Upstream's defects that are none of ours


def test_defect_no_labels_are_an_index_error(tiny: Tiny, scorers: Scorers) -> None:
    with pytest.raises(IndexError):
        upstream(tiny("bert-simple"))(PARITY_TEXT, [])
    with pytest.raises(InputError, match="labels: expected at least one label, got none"):
        Classifier(scorers("bert-simple")).classify(PARITY_TEXT, [])


def test_defect_duplicate_labels_collapse(tiny: Tiny, scorers: Scorers) -> None:
    (theirs,) = upstream(tiny("bert-simple"))(PARITY_TEXT, ["law", "science", "law"], return_hierarchical=True)
    assert len(theirs) == 2
    ours = Classifier(scorers("bert-simple")).classify(PARITY_TEXT, ["law", "science", "law"], threshold=0)
    assert len(ours.scores) == 3
    assert sorted(indices(ours)) == [0, 1, 2]


def test_defect_paths_that_read_alike_share_a_score(tiny: Tiny, scorers: Scorers) -> None:
    nested = {"a": {"b.c": ["law"]}, "a.b": {"c": ["law"]}}
    (theirs,) = upstream(tiny("bert-simple"))(PARITY_TEXT, nested, return_hierarchical=True)
    assert theirs["a"]["b.c"]["law"] == theirs["a.b"]["c"]["law"]
    ours = Classifier(scorers("bert-simple")).classify(PARITY_TEXT, nested, hierarchical=True)
    assert flat(ours.tree) == {"/a/b.c/law": ours.scores[0], "/a.b/c/law": ours.scores[1]}
    assert ours.scores[0] != ours.scores[1]


def test_defect_a_threshold_takes_the_scores_and_their_places_away(tiny: Tiny, scorers: Scorers) -> None:
    (theirs,) = upstream(tiny("bert-simple"))(PARITY_TEXT, PARITY_LABELS, threshold=1.0)
    assert theirs == []
    ours = Classifier(scorers("bert-simple")).classify(PARITY_TEXT, PARITY_LABELS, threshold=1.0)
    assert (ours.labels, len(ours.scores)) == ((), len(PARITY_LABELS))


def test_defect_single_label_returns_only_the_winner(tiny: Tiny, scorers: Scorers) -> None:
    (theirs,) = upstream(tiny("bert-simple"), kind="single-label")(PARITY_TEXT, PARITY_LABELS)
    assert len(theirs) == 1
    ours = Classifier(scorers("bert-simple")).classify(PARITY_TEXT, PARITY_LABELS, multi_label=False, top_k=3)
    assert len(ours.labels) == 3
    assert sum(ours.scores) == pytest.approx(1)


def test_defect_a_short_list_of_prompts_begins_again(tiny: Tiny, scorers: Scorers) -> None:
    theirs = upstream(tiny("bert-simple"))([PARITY_TEXT] * 2, PARITY_LABELS, prompt=[PROMPT], threshold=0)
    assert theirs[0] == theirs[1]
    with pytest.raises(InputError, match="prompts: expected one for each of the 2 texts, got 1"):
        Classifier(scorers("bert-simple")).classify([PARITY_TEXT] * 2, PARITY_LABELS, prompt=[PROMPT])


def test_defect_texts_without_retrieved_examples_vanish(tiny: Tiny, scorers: Scorers) -> None:
    found = [[{"text": "x", "true_labels": ["law"]}]]
    assert len(upstream(tiny("bert-simple"))([PARITY_TEXT] * 2, PARITY_LABELS, rac_examples=found)) == 1
    with pytest.raises(InputError, match="rac: expected one for each of the 2 texts, got 1"):
        Classifier(scorers("bert-simple")).classify([PARITY_TEXT] * 2, PARITY_LABELS, rac=found)


def test_defect_markers_in_a_text_are_taken_for_labels(tiny: Tiny, scorers: Scorers) -> None:
    """BERT's tokenizer reads spaced brackets as it reads them together, so that upstream can read what we read."""
    built = tiny("bert-text-first")
    marked, spaced = f"<<LABEL>> {PARITY_TEXT}", f"< < label > > {PARITY_TEXT}"
    ids = upstream_inputs(built, ScoreRequest(marked, tuple(PARITY_LABELS)))["input_ids"]
    assert int((ids == built.model.config.class_token_index).sum()) == len(PARITY_LABELS) + 1
    theirs = [upstream_scores(upstream(built), text) for text in (marked, spaced)]
    ours = Classifier(scorers("bert-text-first")).classify(marked, PARITY_LABELS).scores
    assert ours == pytest.approx(theirs[1], abs=TOLERANCE)
    assert ours != pytest.approx(theirs[0], abs=0.01)


def test_defect_a_batch_changes_scores(scorers: Scorers) -> None:
    classifier, texts = Classifier(scorers("bert-max-text")), [*CORPUS[:4], " ".join(CORPUS[:4])]
    together = classifier.classify(texts, PARITY_LABELS)
    for result, alone in zip(together, texts, strict=True):
        assert result.scores == pytest.approx(classifier.classify(alone, PARITY_LABELS).scores, abs=1e-5)


def test_defect_the_chunker_counts_characters(tiny: Tiny, scorers: Scorers) -> None:
    """Upstream cuts chunks by characters and then truncates them by tokens: what is cut twice is never read."""
    chunker = chunking(tiny("bert-simple"), max_length=64, text_chunk_size=1000)
    start, rest = "law " * 100, "travel by mountain " * 40
    theirs = [chunker(start + end, ["law", "travel"], return_hierarchical=True)[0] for end in ("", rest[:500])]
    assert theirs[0] == pytest.approx(theirs[1], abs=TOLERANCE)
    classifier = Classifier(scorers("bert-simple", max_length=64))
    result = classifier.classify(start + rest, ["law", "travel"], threshold=0)
    assert not result.truncated
    assert result.scores != pytest.approx(classifier.classify(start, ["law", "travel"]).scores, abs=0.01)
    assert any(label.window and label.window[1] > len(start) for label in result.labels)


def test_defect_an_overlap_as_large_as_a_chunk_loops_for_ever(scorers: Scorers) -> None:
    """Ours is a part of the window, whatever that is: the smallest model that works gets to the end of the text."""
    scorer, read = scorers("bert-simple", max_length=28), " ".join(CORPUS)
    spans = scorer.score([ScoreRequest(read, ("law",))])[0].spans
    assert all(one[0] < two[0] <= one[1] for one, two in pairwise(spans))
    assert spans[-1][1] == len(read)
    assert Classifier(scorer).classify(read, ["law"], threshold=0).labels[0].window in spans


def test_defect_prompts_of_short_texts_slip_beside_a_long_one(tiny: Tiny, scorers: Scorers) -> None:
    """Upstream's chunker counts prompts among the short texts only, so that the second text gets the first's."""
    chunker = chunking(tiny("bert-simple"), text_chunk_size=50)
    prompts = ["A long text about law:", PROMPT]
    pair = [PARITY_TEXT, "A question."]
    second = chunker(pair, ["law", "travel"], prompt=prompts, return_hierarchical=True)[1]
    assert second == chunker(pair[1:], ["law", "travel"], prompt=prompts[:1], return_hierarchical=True)[0]
    classifier = Classifier(scorers("bert-simple"))
    ours = classifier.classify(pair, ["law", "travel"], prompt=prompts)
    alone = classifier.classify(pair[1], ["law", "travel"], prompt=PROMPT)
    assert ours[1].scores == pytest.approx(alone.scores, abs=1e-5)
    assert ours[1].scores != pytest.approx(list(second.values()), abs=1e-3)


def chunking(built: Built, *, text_chunk_size: int, max_length: int = 4096) -> Callable[..., Any]:
    pipeline: Callable[..., Any] = ZeroShotClassificationWithChunkingPipeline(
        built.model, upstream_tokenizer(built.folder), max_length=max_length, device="cpu", progress_bar=False,
        text_chunk_size=text_chunk_size, text_chunk_overlap=10,
    )  # fmt: skip
    return pipeline


# Bad input


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (None, InputError, "text: expected a string or a sequence of strings, got NoneType"),
        (3, InputError, "text: expected a string or a sequence of strings, got int"),
        (b"x", InputError, "text: expected a string or a sequence of strings, got bytes"),
        ([], InputError, "texts: expected at least one, got none"),
        ("", InvalidTextError, "^text: expected some text"),
        (["x", " "], InvalidTextError, "^text 1: expected some text"),
        (["x", None], InvalidTextError, "^text 1: expected a string, got NoneType"),
        ("a\0b", InvalidTextError, "^text: NUL character at position 1"),
    ],
)
def test_bad_texts(texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Classifier(OverlapScorer()).classify(texts, LABELS)


LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([], InputError, "^labels: expected at least one label, got none"),
        ({}, InputError, "^labels: expected at least one label, got none"),
        ("law", InputError, "^labels: expected a sequence of strings or a mapping of such, got str; put it in a list"),
        (None, InputError, "^labels: expected a sequence of strings or a mapping of such, got NoneType"),
        ({"law"}, InputError, "^labels: expected a sequence .*, got set"),
        (["law", ""], InvalidTextError, "^labels, label 1: expected some text"),
        (["law", 3], InvalidTextError, "^labels, label 1: expected a string, got int"),
        (["law", ["science"]], InvalidTextError, "^labels, label 1: expected a string, got list"),
        ([[]], InputError, "^labels of text 0: expected at least one label"),
        ([["law"], ["science"]], InputError, "^labels: expected one for the text, got 2"),
        ({"topic": []}, InputError, r"^labels\['topic'\]: expected at least one label, got none"),
        ({"topic": {}}, InputError, r"^labels\['topic'\]: expected at least one label, got none"),
        ({"topic": ""}, InvalidTextError, r"^labels\['topic'\], label: expected some text"),
        ({"topic": None}, InputError, r"^labels\['topic'\]: expected a sequence .*, got NoneType"),
        ({"topic": ["law", 3]}, InvalidTextError, r"^labels\['topic'\], label 1: expected a string, got int"),
        ({"topic": ["law", {"x": ["y"]}]}, InvalidTextError, r"^labels\['topic'\], label 1: .* string, got dict"),
        ({"a": {"b": [" "]}}, InvalidTextError, r"^labels\['a'\]\['b'\], label 0: expected some text"),
        ({3: ["law"]}, InvalidTextError, "^labels, key: expected a string, got int"),
        ({"": ["law"]}, InvalidTextError, "^labels, key: expected some text"),
        (LOOP, InputError, f"expected at most {DEEPEST} levels; does the mapping contain itself?"),
    ],
)  # fmt: skip
def test_bad_labels(labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Classifier(OverlapScorer()).classify("x", labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.1}, r"^threshold: expected a finite number in \[0, 1\], got 1.1"),
        ({"threshold": -0.1}, "^threshold: expected a finite number"),
        ({"threshold": None}, "^threshold: expected a finite number"),
        ({"threshold": float("nan")}, "^threshold: expected a finite number"),
        ({"threshold": {"copy": 2}}, r"^threshold of 'copy': expected a finite number in \[0, 1\], got 2"),
        ({"threshold": {"copi": 0.5}}, "^threshold: 'copi' is none of the labels; .*'copy' for instance"),
        ({"top_k": 0}, "^top_k: expected a positive number or None, got 0"),
        ({"top_k": True}, "^top_k: expected a positive number"),
        ({"top_k": 1.0}, "^top_k: expected a positive number"),
        ({"multi_label": "single-label"}, "^multi_label: expected True or False, got 'single-label'"),
        ({"hierarchical": 1}, "^hierarchical: expected True or False, got 1"),
        ({"hierarchical": True}, "^hierarchical: expected nested labels, .* got flat labels; nest them"),
        ({"aggregate": "sum"}, "^aggregate: expected one of 'max', 'mean', 'first', got 'sum'"),
        ({"long_text": "cut"}, "^long_text: expected one of"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Classifier(OverlapScorer()).classify("x", ["copy", "sort"], **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt": ["x"]}, InputError, "^prompts: expected one for each of the 2 texts, got 1"),
        ({"prompt": ["x", 3]}, InvalidTextError, "^prompt 1: expected a string, got int"),
        ({"prompt": 3}, InvalidTextError, "^prompt: expected a string, got int"),
        ({"labels": [["x"]] * 3}, InputError, "^labels: expected one for each of the 2 texts, got 3"),
        ({"labels": [{"a": ["x"]}, ["x"]], "hierarchical": True}, OptionError, "got flat labels of text 1"),
        ({"examples": [[], [], []]}, InputError, "^examples: expected one for each of the 2 texts, got 3"),
        (
            {"examples": EXAMPLES[0]},
            InputError,
            "^examples: expected a sequence of examples, or one per text, got dict",
        ),
        ({"examples": ["x"]}, InputError, "^examples, 0: expected Example"),
        ({"examples": [EXAMPLES[0], None]}, InputError, "^examples, 1: expected Example"),
        ({"examples": [[], [{"text": "x"}]]}, InputError, "^examples of text 1, 0: expected Example"),
        ({"examples": [{"text": "x", "labels": "law"}]}, InputError, "^example labels: expected a sequence"),
        ({"rac": [EXAMPLES[0]]}, InputError, "^rac: expected a sequence of examples for each of the 2 texts, got one"),
        ({"rac": "x"}, InputError, "^rac: expected a sequence of examples, or one per text, got str"),
    ],
)
def test_bad_things_beside_two_texts(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Classifier(OverlapScorer()).classify(**{"text_or_texts": ["x", "y"], "labels": ["copy"]} | options)


def test_a_tree_has_no_room_for_a_duplicate() -> None:
    classifier, twice = Classifier(OverlapScorer()), {"topic": {"act": ["copy", "copy"]}}
    assert len(classifier.classify("copy", twice).scores) == 2
    with pytest.raises(InputError, match="labels: 'copy' is twice below 'topic / act', and a tree has room for one"):
        classifier.classify("copy", twice, hierarchical=True)


def test_a_text_too_long_is_an_error_on_request(scorers: Scorers) -> None:
    with pytest.raises(InputError, match="tokens"):
        Classifier(scorers("bert-simple", max_length=64)).classify(" ".join(CORPUS), ["law"], long_text="error")


@modes
@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers(logit: float, multi_label: bool) -> None:
    with pytest.raises(NonFiniteError, match="not finite"):
        Classifier(ConstantScorer(logit)).classify("x", ["a"], multi_label=multi_label)


def test_a_separator_is_a_string() -> None:
    with pytest.raises(InvalidTextError, match="separator: expected a string, got NoneType"):
        Classifier(OverlapScorer(), separator=None)  # type: ignore[arg-type]
