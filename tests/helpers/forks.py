"""Work done in a forked process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
SECONDS = 60.0

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this platform cannot fork"
)


def in_child(work: Callable[[], T]) -> T:
    """Return what ``work`` returns in a forked process, or raise what it raises there; fail if it never ends."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            outcome: T | Exception = work()
        except Exception as error:
            outcome = error
        sender.send(outcome)

    child = context.Process(target=run)
    child.start()
    sender.close()
    try:
        assert receiver.poll(SECONDS), f"the child gave no answer within {SECONDS:g} s"
        outcome = receiver.recv()
    finally:
        child.kill()
        child.join()
    if isinstance(outcome, Exception):
        raise outcome
    result: T = outcome
    return result
