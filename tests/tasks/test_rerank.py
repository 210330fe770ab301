"""The laws of Reranker, on a scorer that counts shared words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fakes import ConstantScorer, OverlapScorer, windows
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import (
    GLiClassRerankError,
    InputError,
    InvalidTextError,
    ModelError,
    NonFiniteError,
    NoPromptsError,
    OptionError,
    Ranked,
    Reranker,
    ScoreRequest,
)
from gliclass_rerank.tasks import rerank
from gliclass_rerank.types import Direction, FloatArray

QUERY = "copy a file"
PASSAGES = ["rename a folder", "copy a file and its mode", "read a file", "sort a list", "read a file", "no such words"]
SHARED = [1, 3, 2, 1, 2, 0]

word = st.sampled_from("copy a file read sort list folder open close move".split())
text = st.lists(word, min_size=1, max_size=8).map(" ".join)
passage_lists = st.lists(text, max_size=8)


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def indices(ranking: list[Ranked]) -> list[int]:
    return [ranked.index for ranked in ranking]


def test_best_first_and_equal_scores_in_the_order_given() -> None:
    ranking = Reranker(OverlapScorer()).rank(QUERY, PASSAGES)
    assert indices(ranking) == [1, 2, 4, 0, 3, 5]
    for ranked in ranking:
        assert ranked.logit == 2 * SHARED[ranked.index] - 3
        assert ranked.score == pytest.approx(sigmoid(ranked.logit))
        assert (ranked.window, ranked.truncated, dict(ranked.criteria)) == (None, False, {})


@given(text, passage_lists)
def test_a_ranking_is_a_sorted_permutation(query: str, passages: list[str]) -> None:
    ranking = Reranker(OverlapScorer()).rank(query, passages)
    assert sorted(indices(ranking)) == list(range(len(passages)))
    assert all(0 <= ranked.score <= 1 for ranked in ranking)
    keys = [(-ranked.score, ranked.index) for ranked in ranking]
    assert keys == sorted(keys)


@given(text, passage_lists, st.randoms())
def test_the_order_of_the_passages_changes_no_score(query: str, passages: list[str], random: Any) -> None:
    order = list(range(len(passages)))
    random.shuffle(order)
    reranker = Reranker(OverlapScorer())
    straight = {ranked.index: ranked.score for ranked in reranker.rank(query, passages)}
    shuffled = {order[ranked.index]: ranked.score for ranked in reranker.rank(query, [passages[i] for i in order])}
    assert shuffled == straight


@given(text, passage_lists, st.integers(1, 10))
def test_top_n_is_a_prefix(query: str, passages: list[str], top_n: int) -> None:
    reranker = Reranker(OverlapScorer())
    assert reranker.rank(query, passages, top_n=top_n) == reranker.rank(query, passages)[:top_n]


@given(text, passage_lists, st.floats(0, 1))
def test_a_threshold_leaves_out_what_scores_below(query: str, passages: list[str], threshold: float) -> None:
    reranker = Reranker(OverlapScorer())
    kept = [ranked for ranked in reranker.rank(query, passages) if ranked.score >= threshold]
    assert reranker.rank(query, passages, threshold=threshold) == kept


def test_a_score_at_the_threshold_stays() -> None:
    ranking = Reranker(ConstantScorer(0.0)).rank("x", ["a", "b"], threshold=0.5)
    assert indices(ranking) == [0, 1]


def test_the_callers_lists_stay_as_they_are_and_tuples_do_as_well() -> None:
    passages, queries = list(PASSAGES), [QUERY, "sort"]
    reranker = Reranker(OverlapScorer())
    assert reranker.rank(queries, passages) == reranker.rank(tuple(queries), tuple(passages))
    assert (passages, queries) == (PASSAGES, [QUERY, "sort"])


@pytest.mark.parametrize("options", [{}, {"direction": "passage-as-label"}])
def test_no_passages_give_an_empty_ranking(options: dict[str, Any]) -> None:
    reranker = Reranker(OverlapScorer())
    assert reranker.rank(QUERY, [], **options) == []
    assert reranker.rank(QUERY, [], first_stage_scores=[], **options) == []
    assert reranker.rank_many([], **options) == []
    assert reranker.rank_many([(QUERY, []), (QUERY, ["copy"])], **options)[0] == []


# Many queries


@pytest.mark.parametrize("direction", ["passage-as-text", "passage-as-label"])
@pytest.mark.parametrize("fuse", ["max", "mean", "min"])
def test_many_queries_are_fused_by_their_logits(fuse: Any, direction: Any) -> None:
    queries = [QUERY, "sort a list", "words"]
    reranker = Reranker(OverlapScorer())
    each = np.zeros((len(queries), len(PASSAGES)))
    for row, query in zip(each, queries, strict=True):
        for ranked in reranker.rank(query, PASSAGES, direction=direction):
            row[ranked.index] = ranked.logit
    fused = getattr(each, fuse)(axis=0)
    for ranked in reranker.rank(queries, PASSAGES, fuse=fuse, direction=direction):
        assert ranked.logit == pytest.approx(fused[ranked.index])
        assert ranked.score == pytest.approx(sigmoid(fused[ranked.index]))


def test_one_query_in_a_list_is_that_query() -> None:
    reranker = Reranker(OverlapScorer())
    assert reranker.rank([QUERY], PASSAGES) == reranker.rank(QUERY, PASSAGES)


def test_many_queries_take_one_pass_a_passage() -> None:
    scorer = OverlapScorer()
    Reranker(scorer).rank([QUERY, "sort", "words"], PASSAGES, criteria={"folder": 1.0})
    assert scorer.calls == [len(PASSAGES)]


# Criteria


def test_criteria_move_scores_by_the_documented_formula() -> None:
    criteria = {"folder mode": 0.5, "read": -2.0}
    ranking = Reranker(OverlapScorer()).rank(QUERY, PASSAGES, criteria=criteria)
    for ranked in ranking:
        words = set(PASSAGES[ranked.index].split())
        p_up, p_down = (sigmoid(2 * len(words & set(name.split())) - 3) for name in criteria)
        assert ranked.criteria == pytest.approx({"folder mode": p_up, "read": p_down})
        p = sigmoid(2 * SHARED[ranked.index] - 3)
        assert ranked.score == pytest.approx((p + 0.5 * p_up + 2 * (1 - p_down)) / 3.5)
        assert ranked.logit == 2 * SHARED[ranked.index] - 3
    by_sum = sorted(
        ranking, key=lambda r: -(sigmoid(r.logit) + 0.5 * r.criteria["folder mode"] - 2 * r.criteria["read"])
    )
    assert [ranked.score for ranked in by_sum] == pytest.approx([ranked.score for ranked in ranking])


@given(text, passage_lists, st.dictionaries(text, st.floats(-5, 5), max_size=3))
def test_scores_stay_in_the_unit_interval(query: str, passages: list[str], criteria: dict[str, float]) -> None:
    for ranked in Reranker(OverlapScorer()).rank(query, passages, criteria=criteria):
        assert -1e-12 <= ranked.score <= 1 + 1e-12
        assert list(ranked.criteria) == list(criteria)


def test_a_criterion_of_weight_zero_is_judged_and_changes_nothing() -> None:
    reranker = Reranker(OverlapScorer())
    plain = reranker.rank(QUERY, PASSAGES)
    judged = reranker.rank(QUERY, PASSAGES, criteria={"folder": 0.0})
    assert indices(judged) == indices(plain)
    assert [r.score for r in judged] == pytest.approx([r.score for r in plain])
    assert all("folder" in r.criteria for r in judged)


def test_a_criterion_may_be_worded_as_the_query_is() -> None:
    ranking = Reranker(OverlapScorer()).rank(QUERY, PASSAGES, criteria={QUERY: 1.0})
    assert all(ranked.criteria[QUERY] == pytest.approx(sigmoid(ranked.logit)) for ranked in ranking)


# The first stage's scores


@pytest.mark.parametrize(
    "options",
    [
        {"first_stage_scores": None},
        {"first_stage_scores": [7.0] * 6},
        {"first_stage_scores": [3, 1, 4, 1, 5, 9], "first_stage_weight": 0},
    ],
)
def test_a_prior_that_says_nothing_changes_nothing(options: dict[str, Any]) -> None:
    reranker = Reranker(OverlapScorer())
    assert reranker.rank(QUERY, PASSAGES, **options) == reranker.rank(QUERY, PASSAGES)


@pytest.mark.parametrize("score", [0.1, 0.83, 1e-300])  # whose mean need not be itself
def test_equal_priors_change_nothing(score: float) -> None:
    reranker = Reranker(OverlapScorer())
    assert reranker.rank(QUERY, PASSAGES, first_stage_scores=[score] * len(PASSAGES)) == reranker.rank(QUERY, PASSAGES)


def test_a_prior_is_standardised_and_added_to_the_logits() -> None:
    prior = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    z = (prior - prior.mean()) / prior.std()
    for ranked in Reranker(OverlapScorer()).rank(QUERY, PASSAGES, first_stage_scores=prior, first_stage_weight=2):
        assert ranked.logit == 2 * SHARED[ranked.index] - 3
        assert ranked.score == pytest.approx(sigmoid(ranked.logit + 2 * z[ranked.index]))


@given(st.lists(st.integers(0, 50), min_size=6, max_size=6), st.floats(0.01, 100), st.floats(-100, 100))
def test_the_scale_of_a_prior_is_of_no_matter(prior: list[int], scale: float, shift: float) -> None:
    reranker = Reranker(OverlapScorer())
    straight = {r.index: r.score for r in reranker.rank(QUERY, PASSAGES, first_stage_scores=prior)}
    scaled = {
        r.index: r.score for r in reranker.rank(QUERY, PASSAGES, first_stage_scores=[scale * p + shift for p in prior])
    }
    assert scaled == pytest.approx(straight, abs=1e-6)


@given(st.lists(st.integers(-(2**20), 2**20), min_size=6, max_size=6), st.integers(-1000, 1000))
def test_a_prior_of_any_magnitude_counts_as_one_of_order_one(prior: list[int], exponent: int) -> None:
    straight = Reranker(OverlapScorer()).rank(QUERY, PASSAGES, first_stage_scores=prior)
    scaled = Reranker(OverlapScorer()).rank(
        QUERY, PASSAGES, first_stage_scores=np.ldexp(np.array(prior, np.float64), exponent)
    )
    assert scaled == straight


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-170, 1e200, 1.7e307])
def test_a_prior_far_from_one_still_orders(scale: float) -> None:
    prior = [scale * place for place in (6, 5, 4, 3, 2, 1)]
    ranking = Reranker(OverlapScorer()).rank(QUERY, PASSAGES, first_stage_scores=prior, first_stage_weight=15)
    assert indices(ranking) == [0, 1, 2, 3, 4, 5]
    assert all(np.isfinite(ranked.score) for ranked in ranking)


def test_a_heavy_prior_gives_the_first_stages_order() -> None:
    ranking = Reranker(OverlapScorer()).rank(
        QUERY, PASSAGES, first_stage_scores=[6, 5, 4, 3, 2, 1], first_stage_weight=15
    )
    assert indices(ranking) == [0, 1, 2, 3, 4, 5]


def test_the_weight_is_the_models_own_unless_given_and_else_one() -> None:
    prior = [3, 1, 4, 1, 5, 9]
    plain, fitted = Reranker(OverlapScorer()), Reranker(OverlapScorer(first_stage_weight=2.5))
    assert plain.rank(QUERY, PASSAGES, first_stage_scores=prior) == plain.rank(
        QUERY, PASSAGES, first_stage_scores=prior, first_stage_weight=1
    )
    assert fitted.rank(QUERY, PASSAGES, first_stage_scores=prior) == plain.rank(
        QUERY, PASSAGES, first_stage_scores=prior, first_stage_weight=2.5
    )
    assert fitted.rank(QUERY, PASSAGES, first_stage_scores=prior, first_stage_weight=1) == plain.rank(
        QUERY, PASSAGES, first_stage_scores=prior
    )


# Many rankings at a time


@given(st.lists(st.tuples(text | st.lists(text, min_size=1, max_size=3), passage_lists), max_size=4))
def test_rank_many_equals_rank_on_each(pairs: list[tuple[str | list[str], list[str]]]) -> None:
    scorer = OverlapScorer()
    together = Reranker(scorer).rank_many(pairs, top_n=3, criteria={"list": 0.5})
    assert len(scorer.calls) == any(passages for _, passages in pairs)
    assert together == [Reranker(scorer).rank(*pair, top_n=3, criteria={"list": 0.5}) for pair in pairs]


@pytest.mark.parametrize("direction", ["passage-as-text", "passage-as-label"])
def test_a_ranking_of_many_calls_is_that_of_one(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [([QUERY, "another query"], PASSAGES), (QUERY, []), (QUERY, PASSAGES[:3])]
    scorer = OverlapScorer()
    together = Reranker(scorer).rank_many(pairs, direction=direction)
    monkeypatch.setattr(rerank, "CHUNK", 2)
    assert Reranker(scorer).rank_many(pairs, direction=direction) == together
    assert max(scorer.calls[1:]) <= 2 < scorer.calls[0]


class Forgetful(OverlapScorer):
    """Leaves out the last request."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        return super().score(requests)[:-1]


def test_a_scorer_that_leaves_something_out_is_refused() -> None:
    with pytest.raises(ModelError, match="expected logits for each of 6 requests, got 5"):
        Reranker(Forgetful()).rank(QUERY, PASSAGES)


def test_rank_many_takes_a_prior_for_each_and_any_iterable() -> None:
    reranker, prior = Reranker(OverlapScorer()), [3, 1, 4, 1, 5, 9]
    both = reranker.rank_many(iter([(QUERY, PASSAGES), ("sort", PASSAGES)]), first_stage_scores=[prior, None])
    assert both == [reranker.rank(QUERY, PASSAGES, first_stage_scores=prior), reranker.rank("sort", PASSAGES)]


# Long passages


LONG = "open a window then copy a file here and sort a list at the end"


def test_the_best_window_is_told() -> None:
    ranked = Reranker(OverlapScorer(window=4)).rank(QUERY, [LONG, "copy"])[0]
    start, end = ranked.window or (0, 0)
    assert "copy a file" in LONG[start:end]
    assert (start, end) in windows(LONG, 4)
    assert not ranked.truncated


def test_a_passage_read_in_one_pass_has_no_window() -> None:
    assert Reranker(OverlapScorer(window=4)).rank(QUERY, ["copy a file"])[0].window is None


def test_the_window_is_the_best_for_the_queries_and_not_for_the_criteria() -> None:
    scorer = OverlapScorer(window=4)
    ranked = Reranker(scorer).rank(QUERY, [LONG], criteria={"sort list at the end": 1.0})[0]
    start, end = ranked.window or (0, 0)
    assert "copy" in LONG[start:end]


def test_a_criterion_that_fits_another_window_better_does_not_move_it() -> None:
    queries = ["copy a file"]
    plain = Reranker(OverlapScorer(window=4)).rank(queries, [LONG])[0]
    ranked = Reranker(OverlapScorer(window=4)).rank(queries, [LONG], criteria={"and sort a list": 1.0})[0]
    assert ranked.window == plain.window
    start, end = ranked.window or (0, 0)
    assert LONG[start:end].strip() == "copy a file here"


def test_the_window_with_min_answers_all_queries_as_well_as_one_window_can() -> None:
    passage = "copy copy copy copy sort copy x x sort sort sort sort"
    ranked = Reranker(OverlapScorer(window=4)).rank(["copy", "sort"], [passage], fuse="min")[0]
    start, end = ranked.window or (0, 0)
    assert set(passage[start:end].split()) >= {"copy", "sort"}


def test_what_was_not_read_is_told() -> None:
    long, short = sorted(
        Reranker(OverlapScorer(window=4)).rank(QUERY, [LONG, "copy"], long_text="truncate"), key=lambda r: r.index
    )
    assert (long.truncated, short.truncated) == (True, False)
    assert long.window is None


# Directions


def test_with_passages_as_labels_a_query_is_one_request() -> None:
    scorer = OverlapScorer(direction="passage-as-label")
    ranking = Reranker(scorer).rank([QUERY, "sort"], PASSAGES)
    assert scorer.calls == [2]
    assert indices(ranking)[0] == 1
    assert all((ranked.window, ranked.truncated) == (None, False) for ranked in ranking)


def test_the_direction_is_the_models_unless_given() -> None:
    scorer = OverlapScorer(direction="passage-as-label")
    Reranker(scorer).rank(QUERY, PASSAGES, direction="passage-as-text")
    assert scorer.calls == [len(PASSAGES)]


def test_passages_as_labels_keep_duplicates_apart() -> None:
    ranking = Reranker(OverlapScorer()).rank(QUERY, PASSAGES, direction="passage-as-label")
    assert indices(ranking) == [1, 2, 4, 0, 3, 5]


def test_criteria_need_passages_as_texts() -> None:
    with pytest.raises(OptionError, match="criteria: they need direction="):
        Reranker(OverlapScorer()).rank(QUERY, PASSAGES, criteria={"x": 1.0}, direction="passage-as-label")


# Bad input


class Lines:
    """No sequence."""


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("", InvalidTextError, "query: expected some text"),
        (" \n", InvalidTextError, "query: expected some text"),
        ([], InputError, "query: expected at least one"),
        (["x", ""], InvalidTextError, "query 1: expected some text"),
        (None, InputError, "query: expected a string or a sequence of strings, got NoneType"),
        (3, InputError, "query: expected a string or a sequence of strings, got int"),
        ([3], InvalidTextError, "query: expected a string, got int"),
        ("a\0b", InvalidTextError, "query: NUL character at position 1"),
        ("a\udc80", InvalidTextError, "query: lone surrogate .* at position 1"),
    ],
)
def test_bad_queries(query: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Reranker(OverlapScorer()).rank(query, PASSAGES)


@pytest.mark.parametrize(
    ("passages", "error", "message"),
    [
        ("one string", InputError, "passages: expected a sequence of strings, got str"),
        (None, InputError, "passages: expected a sequence of strings, got NoneType"),
        (Lines(), InputError, "passages: expected a sequence of strings, got Lines"),
        (["x", ""], InvalidTextError, "passage 1: expected some text"),
        (["x", "\t"], InvalidTextError, "passage 1: expected some text"),
        (["x", None], InvalidTextError, "passage 1: expected a string, got NoneType"),
        (["x", b"y"], InvalidTextError, "passage 1: expected a string, got bytes"),
        (["a\0"], InvalidTextError, "passage 0: NUL"),
        (["\ud800"], InvalidTextError, "passage 0: lone surrogate"),
    ],
)
def test_bad_passages(passages: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Reranker(OverlapScorer()).rank(QUERY, passages)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_n": 0}, OptionError, "top_n"),
        ({"top_n": -1}, OptionError, "top_n"),
        ({"top_n": 1.5}, OptionError, "top_n"),
        ({"threshold": 1.1}, OptionError, "threshold"),
        ({"threshold": -0.1}, OptionError, "threshold"),
        ({"threshold": float("nan")}, OptionError, "threshold"),
        ({"fuse": "sum"}, OptionError, "fuse: expected one of 'max', 'mean', 'min', got 'sum'"),
        ({"long_text": "cut"}, OptionError, "long_text"),
        ({"direction": "both"}, OptionError, "direction"),
        ({"criteria": {"x": float("nan")}}, OptionError, "criterion 'x': expected a finite number"),
        ({"criteria": {"x": float("inf")}}, OptionError, "criterion 'x'"),
        ({"criteria": {"": 1.0}}, InvalidTextError, "criterion"),
        ({"first_stage_weight": -1}, OptionError, "first_stage_weight"),
        ({"first_stage_weight": float("nan")}, OptionError, "first_stage_weight"),
        ({"first_stage_scores": [1.0]}, InputError, "first_stage_scores: expected 6 finite scores"),
        ({"first_stage_scores": 1.0}, InputError, "first_stage_scores: expected 6 finite scores"),
        ({"first_stage_scores": [[1.0] * 6]}, InputError, "first_stage_scores: expected 6 finite scores"),
        (
            {"first_stage_scores": [1.0]},
            InputError,
            r"first_stage_scores: expected 6 finite scores, one per passage, got shape \(1,\)",
        ),
        ({"first_stage_scores": [float("nan")] * 6}, InputError, "first_stage_scores: expected 6 finite scores"),
        (
            {"first_stage_scores": [0, 1, float("nan"), 3, 4, 5]},
            InputError,
            "first_stage_scores: expected 6 finite scores, got nan at index 2",
        ),
        (
            {"first_stage_scores": [0, 1, 2, 3, 4, float("-inf")]},
            InputError,
            "first_stage_scores: expected 6 finite scores, got -inf at index 5",
        ),
        (
            {"first_stage_scores": [0, 1, 2, 3, 4, 10**400]},
            InputError,
            "first_stage_scores: expected 6 numbers, one per passage, got",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Reranker(OverlapScorer()).rank(QUERY, PASSAGES, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"criteria": {"x": "1"}},
        {"criteria": {"x": None}},
        {"criteria": ["x"]},
        {"threshold": "0.5"},
        {"top_n": True},
        {"top_n": "3"},
        {"first_stage_scores": ["a"] * 6},
        {"first_stage_weight": "1"},
        {"fuse": ["max"]},
    ],
)
def test_options_of_another_type_are_our_error_too(options: dict[str, Any]) -> None:
    with pytest.raises(GLiClassRerankError):
        Reranker(OverlapScorer()).rank(QUERY, PASSAGES, **options)


@pytest.mark.parametrize("pair", [("q",), ("q", ["a"], 1), 5, "qp"])
def test_what_is_no_pair_is_refused(pair: Any) -> None:
    with pytest.raises(InputError, match=r"pairs: expected \(query, passages\) each, got"):
        Reranker(OverlapScorer()).rank_many([pair])


def test_priors_are_one_for_each_query() -> None:
    with pytest.raises(InputError, match="first_stage_scores: expected one for each of the 1 queries, got 2"):
        Reranker(OverlapScorer()).rank_many([(QUERY, PASSAGES)], first_stage_scores=[None, None])


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_refused(logit: float) -> None:
    with pytest.raises(NonFiniteError):
        Reranker(ConstantScorer(logit)).rank(QUERY, PASSAGES)


def test_where_scores_have_run_out_of_digits_the_prior_still_counts() -> None:
    """Both scores are 1: the order is that of logit and prior together, not of the logit alone."""

    class Given:
        info = ConstantScorer.info

        def score(self, requests: Any) -> list[Any]:
            return [np.array([float(request.text)], np.float32) for request in requests]

    ranking = Reranker(Given()).rank("x", ["60", "50"], first_stage_scores=[0, 1], first_stage_weight=10)
    assert [ranked.score for ranked in ranking] == [1.0, 1.0]
    assert indices(ranking) == [1, 0]


@pytest.mark.parametrize("logits", [[40.0, 45.0], [-45.0, -40.0], [-800.0, -790.0]])
def test_extreme_logits_keep_their_order(logits: list[float]) -> None:
    class Given:
        info = ConstantScorer.info

        def score(self, requests: Any) -> list[Any]:
            return [np.array([logits[int(request.text)]], np.float32) for request in requests]

    assert indices(Reranker(Given()).rank("x", ["0", "1"])) == [1, 0]


# Instructions


class Recording(OverlapScorer):
    """Keeps its requests."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        self.asked += requests
        return super().score(requests)


@pytest.mark.parametrize("direction", ["passage-as-text", "passage-as-label"])
def test_an_instruction_is_the_prompt_of_each_request(direction: Direction) -> None:
    scorer = Recording(prompts=True)
    Reranker(scorer).rank([QUERY, "read a file"], PASSAGES, instruction="prefer lists", direction=direction)
    assert {request.prompt for request in scorer.asked} == {"prefer lists"}
    assert scorer.asked == [
        ScoreRequest(one.text, one.labels, "prefer lists", long_text=one.long_text) for one in scorer.asked
    ]


def test_an_instruction_changes_the_scores_and_none_is_an_empty_prompt() -> None:
    reranker = Reranker(OverlapScorer(prompts=True))
    plain, told = reranker.rank(QUERY, PASSAGES), reranker.rank(QUERY, PASSAGES, instruction="copy")
    assert [hit.score for hit in plain] != [hit.score for hit in told]
    assert plain == Reranker(OverlapScorer()).rank(QUERY, PASSAGES, instruction=None)


@given(passages=passage_lists, instruction=text)
def test_rank_many_takes_the_instruction_for_each_pair(passages: list[str], instruction: str) -> None:
    reranker = Reranker(OverlapScorer(prompts=True, window=2))
    alone = reranker.rank(QUERY, passages, instruction=instruction)
    assert reranker.rank_many([(QUERY, passages)] * 2, instruction=instruction) == [alone, alone]


def test_a_model_without_prompts_refuses_an_instruction_by_name() -> None:
    scorer = OverlapScorer()
    with pytest.raises(NoPromptsError, match="instruction: expected none, got one, and overlap was not trained"):
        Reranker(scorer).rank(QUERY, PASSAGES, instruction="prefer lists")
    assert scorer.calls == []


@pytest.mark.parametrize("instruction", ["", " ", 1, "a\0b", ["prefer lists"]])
def test_an_instruction_is_a_text(instruction: Any) -> None:
    with pytest.raises(InvalidTextError, match=r"^instruction: "):
        Reranker(OverlapScorer(prompts=True)).rank(QUERY, PASSAGES, instruction=instruction)
