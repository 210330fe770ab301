"""A scorer made and used before a fork works in the child."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import MINI, Scorers, needs_mini
from fakes import INFO, OverlapScorer
from fastapi import Request
from forks import in_child, needs_fork
from gliclass_rerank_service import BatchingScorer
from noisy_service import NoisyScorer, Service, assert_same
from openai_server import ChatServer
from serving import GatedScorer, running
from tiny_chat import tiny_chat

from gliclass_rerank import ModelError, Reranker, Scorer, ScoreRequest, load_scorer
from gliclass_rerank.forks import PerProcess
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.scorers.torch import TorchScorer

pytestmark = [needs_fork, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

REQUESTS = [ScoreRequest(f"salt comes from the sea {i}", ("sea salt", "bread")) for i in range(12)]


@contextmanager
def held_elsewhere(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock on another thread."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        held.wait()
        try:
            yield
        finally:
            done.set()


def assert_scores_in_a_child(scorer: Scorer) -> None:
    here = scorer.score(REQUESTS)
    there = in_child(lambda: scorer.score(REQUESTS))
    np.testing.assert_allclose(np.stack(there), np.stack(here), atol=1e-5)
    np.testing.assert_allclose(np.stack(scorer.score(REQUESTS)), np.stack(here), atol=1e-5)


@needs_mini
def test_onnx_in_many_batches() -> None:
    assert_scores_in_a_child(load_scorer(MINI, backend="onnx", threads=2, max_batch_tokens=64))


@needs_mini
def test_a_task() -> None:
    reranker = Reranker("mini")
    passages = [request.text for request in REQUESTS]
    assert in_child(lambda: reranker.rank("salt", passages)) == reranker.rank("salt", passages)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@needs_mini
@pytest.mark.usefixtures("two_threads")
def test_torch_whose_threads_stay_in_the_parent() -> None:
    scorer = load_scorer(MINI, backend="torch", threads=2)
    long = [replace(request, text=request.text * 20) for request in REQUESTS[:8]]
    here = scorer.score(long)
    there, threads = in_child(lambda: (scorer.score(long), torch.get_num_threads()))
    np.testing.assert_allclose(np.stack(there), np.stack(here), atol=1e-4)
    assert (threads, torch.get_num_threads()) == (1, 2)


def test_a_label_cache_that_another_thread_had_locked(scorers: Scorers) -> None:
    scorer = scorers("bi-encoder")
    assert isinstance(scorer, TorchScorer)
    with held_elsewhere(scorer._label_embeddings._lock.get()):
        assert len(in_child(lambda: scorer.score(REQUESTS))) == len(REQUESTS)


def test_a_gpu_is_refused_in_the_child_by_name(scorers: Scorers) -> None:
    loaded = scorers("bert-simple")
    assert isinstance(loaded, TorchScorer)
    # No GPU is needed to be refused: another device than "cpu" has threads and memory that only the parent has.
    scorer = TorchScorer(loaded._checkpoint, replace(loaded.info, device="meta"), max_batch_tokens=512)
    with pytest.raises(ModelError, match="'meta' cannot be used in a forked process; start processes by 'spawn'"):
        in_child(lambda: scorer.score(REQUESTS))


def test_a_service() -> None:
    with running(Service(NoisyScorer(), max_client_batch_size=3).app) as url:
        scorer = load_scorer(url)
        assert_scores_in_a_child(scorer)
        expected = NoisyScorer().score(REQUESTS)
        with ThreadPoolExecutor(1) as pool:  # both at a time: a connection that they shared would mix up answers
            here = pool.submit(lambda: [scorer.score(REQUESTS) for _ in range(8)])
            there = in_child(lambda: [scorer.score(REQUESTS) for _ in range(8)])
        for rows in (*here.result(), *there):
            assert_same(rows, expected)


def test_a_server_of_others() -> None:
    server = ChatServer(tiny_chat())
    with running(server.app) as url:
        assert_scores_in_a_child(load_scorer(f"openai+{url}/v1"))


def test_a_model_that_another_thread_was_loading() -> None:
    service, gate, entered = Service(OverlapScorer()), threading.Event(), threading.Event()

    def waits(_: Request) -> None:
        entered.set()
        assert gate.wait(60)

    with running(service.app) as url, ThreadPoolExecutor(1) as pool:
        service.faults = [waits]
        lazy = LazyScorer(url)
        loading = pool.submit(lambda: lazy.info)
        assert entered.wait(60)
        try:
            assert in_child(lambda: lazy.info.name) == INFO.name
        finally:
            gate.set()
        assert loading.result().name == INFO.name


def test_a_batching_scorer() -> None:
    inner = GatedScorer()
    with BatchingScorer(inner) as scorer:
        assert_scores_in_a_child(scorer)
        inner.gate.clear()
        waiting = scorer.submit(REQUESTS)
        inner.entered.wait(60)

        def alone() -> int:
            inner.gate.set()
            scorer.score(REQUESTS[:1])
            return scorer.stats().requests

        assert in_child(alone) == 1
        inner.gate.set()
        assert len(waiting.result()) == len(REQUESTS)


def test_a_closed_batching_scorer_stays_closed() -> None:
    from gliclass_rerank_service.queue.errors import ClosedError

    scorer = BatchingScorer(OverlapScorer())
    scorer.close()
    with pytest.raises(ClosedError):
        in_child(lambda: scorer.score(REQUESTS))


def test_a_value_is_made_once_a_process_whoever_asks() -> None:
    made: list[int] = []
    value = PerProcess(lambda: made.append(os.getpid()))
    assert made == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: value.get(), range(64)))
    assert made == [os.getpid()]

    def asked_twice() -> list[int]:
        value.get()
        value.get()
        return [*made, os.getpid()]

    parent, child, child_itself = in_child(asked_twice)
    assert parent == os.getpid() != child == child_itself
    assert made == [os.getpid()]
