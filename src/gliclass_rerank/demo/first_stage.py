"""The demo's first stage: BM25 over words, with identifiers split into words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import bm25s
import numpy as np
from numpy.typing import NDArray

# shutil.copy2 -> shutil copy 2; getUserName -> get User Name; HTTPServer -> HTTP Server
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Results of the first stage for one query, best first.

    Attributes:
        indices: positions in the collection.
        scores: float32 BM25 scores, shape (candidates,).
    """

    indices: tuple[int, ...]
    scores: NDArray[np.float32]


class FirstStage:
    """BM25 with Lucene's formula (k1 = 1.5, b = 0.75), over a collection held in memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._bm25 = bm25s.BM25(method="lucene", backend="numpy")
        self._bm25.index([words(text) for text in texts], show_progress=False)
        self._count = len(texts)

    def candidates(self, query: str, count: int) -> Candidates:
        """Return the ``count`` best passages. Equal scores keep the collection's order."""
        known = [word for word in words(query) if word in self._bm25.vocab_dict]
        scores = self._bm25.get_scores(known) if known else np.zeros(self._count, np.float32)
        order = np.argsort(-scores, kind="stable")[:count]
        return Candidates(tuple(order.tolist()), scores[order])


def words(text: str) -> list[str]:
    """Split a text into lower-case words. Identifiers are split at dots, underscores, digits and changes of case."""
    return [word.lower() for word in WORD.findall(text)]
