"""Measures of a ranking: by hand, and against ir-measures."""

from __future__ import annotations

from itertools import permutations
from math import log2

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, nDCG

from gliclass_rerank.metrics.ranking import ndcg_at, order_of, reciprocal_rank_at


def test_ndcg_by_hand() -> None:
    ideal = 2 + 1 / log2(3) + 1 / log2(4)
    assert ndcg_at(10, [0, 2, 1], [1, 2, 1]) == pytest.approx((2 / log2(3) + 1 / log2(4)) / ideal)


def test_only_ranks_up_to_the_cutoff_count() -> None:
    assert ndcg_at(2, [0, 0, 2], [2]) == 0
    assert ndcg_at(1, [1, 2], [1, 2]) == 0.5
    assert reciprocal_rank_at(2, [0, 0, 1]) == 0
    assert reciprocal_rank_at(3, [0, 0, 1]) == pytest.approx(1 / 3)


def test_the_ideal_order_is_one_and_nothing_relevant_is_zero() -> None:
    assert ndcg_at(10, [2, 2, 1], [1, 2, 2]) == 1
    assert ndcg_at(10, [0, 0], []) == 0
    assert ndcg_at(10, [], [1]) == 0
    assert reciprocal_rank_at(10, []) == 0


def test_the_grade_that_counts_as_relevant() -> None:
    assert reciprocal_rank_at(10, [1, 2], relevant=2) == 0.5
    assert reciprocal_rank_at(10, [1, 2]) == 1


@given(
    ranked=st.lists(st.integers(0, 3), max_size=25),
    not_found=st.lists(st.integers(1, 3), max_size=15),
    cutoff=st.integers(1, 20),
)
def test_agrees_with_ir_measures(ranked: list[int], not_found: list[int], cutoff: int) -> None:
    # A document for each rank, and one for each judgement that was not found.
    judgements = {f"d{i}": grade for i, grade in enumerate(ranked)} | {f"m{i}": g for i, g in enumerate(not_found)}
    run = {"q": {f"d{i}": float(len(ranked) - i) for i in range(len(ranked))}}
    measures = [nDCG @ cutoff, RR @ cutoff]
    expected = ir_measures.calc_aggregate(measures, {"q": judgements}, run) if ranked else dict.fromkeys(measures, 0.0)
    judged = list(judgements.values())
    assert ndcg_at(cutoff, ranked, judged) == pytest.approx(expected[measures[0]], abs=1e-9)
    assert reciprocal_rank_at(cutoff, ranked) == pytest.approx(expected[measures[1]], abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5), st.integers(1, 5))
def test_ties_count_against_the_model(items: list[tuple[int, int]], cutoff: int) -> None:
    """Of all orders that the scores allow, the one that is measured is the worst by every measure."""
    scores, grades = ([item[side] for item in items] for side in (0, 1))
    measured = [grades[place] for place in order_of(scores, grades)]
    allowed = [order for order in permutations(items) if [s for s, _ in order] == sorted(scores, reverse=True)]
    orders = [[grade for _, grade in order] for order in allowed]
    assert ndcg_at(cutoff, measured, grades) == pytest.approx(min(ndcg_at(cutoff, one, grades) for one in orders))
    assert reciprocal_rank_at(cutoff, measured) == min(reciprocal_rank_at(cutoff, one) for one in orders)


def test_a_constant_score_orders_the_worst_first_however_the_items_come() -> None:
    for grades in permutations([0, 1, 2]):
        assert [grades[place] for place in order_of([0.5] * 3, grades)] == [0, 1, 2]
