"""What a GPU asks of a scorer, on a CPU: a budget from free memory, batches that do not fit, work that overlaps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from conftest import Tiny
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import InputError, ScoreRequest, load_scorer
from gliclass_rerank.errors import DeviceMemoryError
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers import base
from gliclass_rerank.scorers.base import Waiting
from gliclass_rerank.scorers.batch_plan import batch_cost
from gliclass_rerank.scorers.packed import memory
from gliclass_rerank.scorers.prefetch import drain_one_late, prefetch
from gliclass_rerank.scorers.torch import TorchScorer
from gliclass_rerank.types import FloatArray

MANY = 1_000_000  # tokens, more than any test has
REQUESTS = [
    ScoreRequest(f"passage {i}: " + "bread rises because yeast turns sugar into gas " * (1 + i % 5), labels)
    for i in range(24)
    for labels in (("science",), ("law", "cooking", "music"))
]


class SmallDevice(TorchScorer):
    """A scorer on a device that holds passes of ``room`` tokens, and works beside us if it ``overlaps``."""

    def __init__(self, tiny: Tiny, *, room: int = MANY, budget: int = MANY, overlaps: bool = False) -> None:
        folder = tiny("bert-simple").folder
        super().__init__(read_checkpoint(folder), load_scorer(folder, device="cpu").info, max_batch_tokens=budget)
        self.room, self.costs = room, list[int]()
        self._overlaps = overlaps

    def _launch(self, batch: Sequence[EncodedSequence]) -> Waiting:
        self.costs.append(batch_cost([item.cost for item in batch], padded=self._pads))
        if self.costs[-1] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
        return super()._launch(batch)


@pytest.fixture(scope="module")
def expected(tiny: Tiny) -> list[FloatArray]:
    return list(load_scorer(tiny("bert-simple").folder, device="cpu").score(REQUESTS))


def agree(scores: Sequence[FloatArray], expected: Sequence[FloatArray]) -> None:
    assert len(scores) == len(expected)
    for one, other in zip(scores, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("room", [MANY, 1000, 300, 160])
def test_batches_that_do_not_fit_are_divided_unnoticed(
    room: int, overlaps: bool, tiny: Tiny, expected: list[FloatArray]
) -> None:
    scorer = SmallDevice(tiny, room=room, overlaps=overlaps)
    agree(scorer.score(REQUESTS), expected)
    failed = [cost for cost in scorer.costs if cost > room]
    assert bool(failed) == (room < MANY)
    assert scorer.max_batch_tokens == (min(failed) // 2 if failed else MANY)
    assert len(failed) < 10  # one attempt for each halving, not one for each batch
    scorer.costs.clear()
    agree(scorer.score(REQUESTS), expected)
    assert max(scorer.costs) <= room  # it has learned


def test_a_pass_that_does_not_fit_by_itself_is_our_error(tiny: Tiny) -> None:
    scorer = SmallDevice(tiny, room=10)
    with pytest.raises(DeviceMemoryError, match=r"a pass of \d+ tokens .* does not fit .*Tried to allocate 2.00 GiB"):
        scorer.score(REQUESTS)
    scorer.room = MANY  # somebody has freed memory
    assert len(scorer.score(REQUESTS)) == len(REQUESTS)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_device_that_is_full_by_other_words(message: str, tiny: Tiny, expected: list[FloatArray]) -> None:
    class Full(TorchScorer):
        def _padded(self, batch: Sequence[EncodedSequence]) -> torch.Tensor:
            if batch_cost([item.cost for item in batch]) > 300:
                raise RuntimeError(message)
            return super()._padded(batch)

    folder = tiny("bert-simple").folder
    scorer = Full(read_checkpoint(folder), load_scorer(folder, device="cpu").info, max_batch_tokens=MANY)
    agree(scorer.score(REQUESTS), expected)
    assert scorer.max_batch_tokens <= 300


def test_other_errors_of_a_batch_are_not_taken_for_memory(tiny: Tiny) -> None:
    class Broken(SmallDevice):
        def _launch(self, batch: Sequence[EncodedSequence]) -> Waiting:
            raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="device-side assert"):
        Broken(tiny).score(REQUESTS)


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("budget", [1, 200, MANY])
def test_overlapping_changes_no_score(
    budget: int, pads: bool, tiny: Tiny, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CHUNK_REQUESTS", 7)
    monkeypatch.setattr(base, "PACKED_CHUNK_REQUESTS", 5)
    scorer = SmallDevice(tiny, budget=budget, overlaps=True)
    scorer._pads = pads
    agree(scorer.score(REQUESTS), expected)
    assert scorer.score([]) == []
    assert threads() == []


def test_the_next_chunk_is_started_before_the_last_one_is_finished(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Device(SmallDevice):
        def _launch(self, batch: Sequence[EncodedSequence]) -> Waiting:
            events.append("launched")
            launched = super()._launch(batch)

            def wait() -> FloatArray:
                events.append("waited")
                return launched()

            return wait

    monkeypatch.setattr(base, "CHUNK_REQUESTS", 16)
    Device(tiny, overlaps=True).score(REQUESTS[::2])  # 24 requests with one label: two chunks of a batch each
    assert events == ["launched", "launched", "waited", "waited"]


def test_an_error_leaves_no_thread_behind(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHUNK_REQUESTS", 4)
    with pytest.raises(DeviceMemoryError):
        SmallDevice(tiny, room=10, overlaps=True).score(REQUESTS)
    assert threads() == []
    with pytest.raises(InputError):  # the last request's label is longer than the model reads
        SmallDevice(tiny, overlaps=True).score([*REQUESTS, ScoreRequest("a text", ("long label " * 600,))])
    assert threads() == []


def test_one_is_made_ahead_and_no_more() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item * item

    results = prefetch(make, range(6))
    assert next(results) == 0
    time.sleep(0.1)
    assert made == [0, 1]
    assert [*results] == [1, 4, 9, 16, 25]
    assert threads() == []


def test_what_is_finished_is_one_behind_what_is_started() -> None:
    started: list[int] = []

    def start() -> Iterator[int]:
        for item in range(4):
            started.append(item)
            yield item

    assert [(item, len(started)) for item in drain_one_late(start())] == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(drain_one_late([])) == []


@given(
    free=st.integers(0, 2**38), per_token=st.floats(1, 2**24), reserve=st.integers(0, 2**32), share=st.floats(0.01, 1)
)
def test_a_budget_fits_into_its_share_of_the_memory(free: int, per_token: float, reserve: int, share: float) -> None:
    tokens = memory.tokens_that_fit(free, per_token, reserve=reserve, share=share)
    assert memory.MIN_TOKENS <= tokens <= memory.MAX_TOKENS
    assert tokens == memory.MIN_TOKENS or tokens * per_token <= share * (free - reserve) * (1 + 1e-9)
    assert tokens == memory.MAX_TOKENS or (tokens + 1) * per_token > share * (free - reserve) * (1 - 1e-9)


def test_budgets_by_hand() -> None:
    gib = 1024**3
    assert memory.tokens_that_fit(9 * gib, 65536, reserve=gib, share=0.5) == 65536
    assert memory.tokens_that_fit(139 * gib, 65536, reserve=gib, share=0.5) == memory.MAX_TOKENS
    assert memory.tokens_that_fit(gib // 2, 65536, reserve=gib, share=0.5) == memory.MIN_TOKENS


class CountedMemory:
    """Memory of which a pass takes ``per_token`` bytes for each token of its largest batch."""

    def __init__(self, scorer: SmallDevice, per_token: int, free: int) -> None:
        self.scorer, self.per_token, self.left = scorer, per_token, free

    def free(self) -> int:
        return self.left

    def peak_of(self, run: Callable[[], object]) -> int:
        self.scorer.costs.clear()
        run()
        return self.per_token * max(self.scorer.costs)


def test_the_budget_is_what_a_small_pass_shows_to_fit(tiny: Tiny) -> None:
    scorer = SmallDevice(tiny, budget=2048)
    memory.fit_to_memory(scorer, CountedMemory(scorer, per_token=100_000, free=memory.RESERVE + 10**9))
    assert scorer.max_batch_tokens == 10**9 * memory.SHARE / 100_000
    assert max(scorer.costs) == memory.PROBE_TOKENS


def test_a_small_pass_that_does_not_fit_decides(tiny: Tiny) -> None:
    scorer = SmallDevice(tiny, room=3000)
    memory.fit_to_memory(scorer, CountedMemory(scorer, per_token=1, free=memory.RESERVE + 10**9))
    assert scorer.max_batch_tokens == 2048  # 8192 tokens in halves of halves
    with pytest.raises(DeviceMemoryError):
        memory.fit_to_memory(SmallDevice(tiny, room=511), CountedMemory(scorer, per_token=1, free=0))


def test_a_cpu_keeps_its_measured_budget(tiny: Tiny) -> None:
    scorer = load_scorer(tiny("bert-simple").folder, device="cpu")
    assert isinstance(scorer, TorchScorer)
    assert scorer.max_batch_tokens == 1024
    given = load_scorer(tiny("bert-simple").folder, device="cpu", max_batch_tokens=77)
    assert isinstance(given, TorchScorer)
    assert given.max_batch_tokens == 77


def test_a_cpu_does_not_overlap(tiny: Tiny) -> None:
    scorer = load_scorer(tiny("bert-simple").folder, device="cpu")
    assert isinstance(scorer, TorchScorer)
    assert not scorer._overlaps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_full_card_is_noticed_by_nobody(tiny: Tiny) -> None:
    folder = tiny("bert-simple").folder
    scorer = load_scorer(folder, device="cuda", dtype="fp32", max_batch_tokens=MANY)
    assert isinstance(scorer, TorchScorer)
    requests = REQUESTS * 200
    expected = load_scorer(folder, device="cpu").score(requests)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 32 * 1024**2) / total)
        scores = scorer.score(requests)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert scorer.max_batch_tokens < MANY
    for one, other in zip(scores, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gliclass-ahead")]
