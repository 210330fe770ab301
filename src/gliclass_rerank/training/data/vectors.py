"""A teacher's vectors of texts, in one file: what the trained model's own vectors of these texts should be."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.errors import InputError
from gliclass_rerank.types import FloatArray


class TextVectors:
    """Vectors by text.

    Args:
        keys: `text_key` of each text.
        vectors: of length 1, float16 or float32, shape (texts, D).
    """

    def __init__(self, keys: Sequence[str], vectors: NDArray[np.floating]) -> None:
        self._places = {key: i for i, key in enumerate(keys)}
        self._vectors = vectors

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self._vectors.shape[1])

    def of(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts, float32, shape (texts, D). The row of an unknown text is NaN."""
        found = np.full((len(texts), self.width), np.nan, np.float32)
        for row, text in zip(found, texts, strict=True):
            if (place := self._places.get(text_key(text))) is not None:
                row[:] = self._vectors[place]
        return found


def text_key(text: str) -> str:
    """Name of a text in a file of vectors: 32 hex digits."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save_vectors(file: Path, texts: Sequence[str], vectors: FloatArray) -> None:
    """Write the vectors of texts, shape (texts, D), as float16."""
    with file.open("wb") as out:  # np.savez would add ".npz" to another name
        np.savez(out, keys=np.array([text_key(text) for text in texts]), vectors=vectors.astype(np.float16))


def read_vectors(file: Path) -> TextVectors:
    """Read a file that `save_vectors` wrote.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            keys, vectors = stored["keys"].tolist(), stored["vectors"]
        if vectors.shape[:1] != (len(keys),) or vectors.ndim != 2:
            raise ValueError(f"{len(keys)} keys and an array of shape {vectors.shape}")
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(f"{file}: expected vectors written by save_vectors, got {error}") from error
    return TextVectors(keys, vectors)
