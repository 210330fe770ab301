"""Laws of the two functions that group work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank.scorers.batch_plan import batch_cost, chunked, plan_batches

items = st.lists(st.tuples(st.integers(1, 600), st.integers(1, 3)), max_size=80)


@given(items=items, budget=st.integers(1, 2000), padded=st.booleans())
def test_every_item_is_in_one_batch(items: list[tuple[int, int]], budget: int, padded: bool) -> None:
    plan = plan_batches(*columns(items), max_tokens=budget, padded=padded)
    assert sorted(index for batch in plan for index in batch) == list(range(len(items)))
    assert all(plan)


@given(items=items, budget=st.integers(1, 2000), padded=st.booleans())
def test_batches_keep_to_the_budget_and_to_one_kind(items: list[tuple[int, int]], budget: int, padded: bool) -> None:
    lengths, kinds = columns(items)
    for batch in plan_batches(lengths, kinds, max_tokens=budget, padded=padded):
        assert len({kinds[index] for index in batch}) == 1
        assert len(batch) == 1 or batch_cost([lengths[index] for index in batch], padded=padded) <= budget


@given(items=items, budget=st.integers(1, 2000), padded=st.booleans())
def test_neighbours_in_length_share_batches(items: list[tuple[int, int]], budget: int, padded: bool) -> None:
    """Within a kind, no item of one batch is longer than any of an earlier one: little is padded."""
    lengths, kinds = columns(items)
    shortest: dict[int, int] = {}
    for batch in plan_batches(lengths, kinds, max_tokens=budget, padded=padded):
        kind = kinds[batch[0]]
        assert max(lengths[index] for index in batch) <= shortest.get(kind, max(lengths))
        shortest[kind] = min(lengths[index] for index in batch)


@given(items=items, budget=st.integers(1, 2000))
def test_what_is_packed_takes_no_more_batches(items: list[tuple[int, int]], budget: int) -> None:
    lengths, kinds = columns(items)
    packed, padded = (plan_batches(lengths, kinds, max_tokens=budget, padded=padded) for padded in (False, True))
    assert len(packed) <= len(padded)


def test_a_batch_costs_its_padding_unless_it_is_packed() -> None:
    assert (batch_cost([5, 3, 1]), batch_cost([5, 3, 1], padded=False)) == (15, 9)
    assert plan_batches([5, 3, 1], [0, 0, 0], max_tokens=9) == [[0], [1, 2]]
    assert plan_batches([5, 3, 1], [0, 0, 0], max_tokens=9, padded=False) == [[0, 1, 2]]


@given(sizes=st.lists(st.integers(0, 50), max_size=60), most=st.integers(1, 10), size=st.integers(1, 120))
def test_chunks_in_order_give_back_the_stream(sizes: list[int], most: int, size: int) -> None:
    chunks = list(chunked(list(enumerate(sizes)), sizes, max_items=most, max_size=size))
    assert [item for chunk in chunks for item in chunk] == list(enumerate(sizes))
    assert all(0 < len(chunk) <= most for chunk in chunks)
    assert all(len(chunk) == 1 or sum(cost for _, cost in chunk) <= size for chunk in chunks)


def columns(items: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [length for length, _ in items], [kind for _, kind in items]
