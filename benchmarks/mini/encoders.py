"""The teacher's two sentence encoders, all-MiniLM-L6-v2 and multilingual-e5-small, with their vectors kept on disk.

Each text is encoded once, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks.lib.baselines import SentenceEncoder
from benchmarks.lib.e5 import E5
from gliclass_rerank.training.data.vectors import text_key
from gliclass_rerank.types import FloatArray

Encode = Callable[[Sequence[str]], FloatArray]
TOKENS = 128  # of a text; the rest is cut
CHUNK = 1024  # texts between two writes


class Encoders:
    """The two sentence encoders, with vectors kept in a folder."""

    def __init__(self, folder: Path) -> None:
        minilm, e5 = SentenceEncoder(max_tokens=TOKENS), E5(max_tokens=TOKENS)
        self.minilm = KeptVectors(lambda texts: minilm.encode(texts, ""), folder / "minilm")
        self._e5_query = KeptVectors(lambda texts: e5.encode(texts, prefix="query: "), folder / "e5-query")
        self._e5_passage = KeptVectors(lambda texts: e5.encode(texts, prefix="passage: "), folder / "e5-passage")

    def queries(self, texts: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Vectors of queries by MiniLM and E5, float32, shape (texts, 384) each."""
        return self.minilm(texts), self._e5_query(texts)

    def passages(self, texts: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Vectors of passages by MiniLM and E5, float32, shape (texts, 384) each."""
        return self.minilm(texts), self._e5_passage(texts)


class KeptVectors:
    """An encoder whose vectors are kept in a folder, as float16 and under a hash of their text.

    Args:
        encode: texts to vectors of length 1.
        folder: of the files, one for each `CHUNK` texts. Made if it is missing.
    """

    def __init__(self, encode: Encode, folder: Path) -> None:
        self._encode, self._folder = encode, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, FloatArray] = {}
        for file in sorted(folder.glob("*.npz")):
            with np.load(file) as kept:
                self._known |= zip(kept["keys"].tolist(), kept["vectors"], strict=True)

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of length 1, float32, shape (texts, width)."""
        keys = [text_key(text) for text in texts]
        new = list({key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}.items())
        starts = range(0, len(new), CHUNK)
        for start in track(starts, self._folder.name) if len(starts) > 1 else starts:
            self._add(new[start : start + CHUNK])
        vectors = np.stack([self._known[key] for key in keys]).astype(np.float32)
        unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _add(self, new: Sequence[tuple[str, str]]) -> None:
        keys = [key for key, _ in new]
        vectors = self._encode([text for _, text in new]).astype(np.float16)
        partial = self._folder / "partial"
        with partial.open("wb") as file:
            np.savez(file, keys=np.array(keys), vectors=vectors)
        partial.rename(self._folder / f"{keys[0]}.npz")  # atomic: a whole file or none
        self._known |= zip(keys, vectors, strict=True)
