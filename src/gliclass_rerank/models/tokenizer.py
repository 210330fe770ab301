"""Tokenise text with `tokenizers` alone, so that no text can become a marker."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gliclass_rerank.errors import CheckpointError
from gliclass_rerank.models.vocabulary import CompatibilityForms, Ids, Vocabulary

LABEL, SEP, EXAMPLE = MARKERS = ("<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>")


class TextTokenizer:
    """A checkpoint's ``tokenizer.json`` that reads special tokens and markers in a text as plain characters.

    A tokenizer splits its input at markers and treats every piece by itself, so pieces may be tokenised separately and
    spliced. Only one thing depends on the position of a piece: the pre-tokeniser Metaspace in scheme "first" adds a
    leading blank at the start of the sequence and nowhere else. Hence ``first``.

    Compatibility forms that the vocabulary lacks, such as ligatures, are replaced by their plain forms.

    Attributes:
        prefix, suffix: ids at the start and end of a sequence (for example [CLS] and [SEP]).
    """

    def __init__(self, file: Path) -> None:
        try:
            spec = json.loads(file.read_text("utf-8"))
            self._first = _plain_tokenizer(spec)
            self._inner = _plain_tokenizer(_without_first_blank(spec))
        except Exception as error:  # tokenizers raises bare Exception for unreadable files
            raise CheckpointError(f"{file}: not readable as a fast tokenizer: {error}") from error
        self._marker_ids = {token["content"]: int(token["id"]) for token in spec.get("added_tokens", ())}
        self.prefix, self.suffix = self._special_ids()
        self._vocabulary = Vocabulary(spec["model"], self.vocabulary)
        self._forms = CompatibilityForms(self._vocabulary, self._bare_ids, self._normalised)
        self.knows, self.reads = self._vocabulary.knows, self._vocabulary.reads
        self.ids_of_label = lru_cache(maxsize=4096)(self._label_ids)
        self.reads_label = lru_cache(maxsize=4096)(self._reads_label)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Id of every token, added ones included."""
        return self._first.get_vocab()

    def marker(self, content: str) -> int:
        """Id of an added token such as "<<LABEL>>".

        Raises:
            CheckpointError: the tokenizer has no such token.
        """
        if content not in self._marker_ids:
            raise CheckpointError(f"tokenizer.json has no added token {content}, which this architecture needs")
        return self._marker_ids[content]

    def ids(self, text: str, *, first: bool = False) -> Ids:
        """Ids of a piece of text, int32, shape (tokens,), without special tokens."""
        return self.batch([text], first=first)[0]

    def batch(self, texts: Sequence[str], *, first: bool = False) -> list[Ids]:
        """Ids of many pieces, tokenised on all cores."""
        tokenizer = self._first if first else self._inner
        plain = list(map(self._forms.replaced, texts))
        encodings = tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def offsets(self, text: str, *, first: bool = False) -> NDArray[np.int64]:
        """Code-point range of each token of `ids`, shape (tokens, 2)."""
        tokenizer = self._first if first else self._inner
        encoding = tokenizer.encode(self._forms.replaced(text), add_special_tokens=False)
        return self._forms.original_spans(text, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2))

    def _label_ids(self, label: str) -> tuple[int, ...]:
        return tuple(self.ids(label).tolist())

    def _reads_label(self, label: str) -> bool:
        return self.reads(label, np.array(self.ids_of_label(label), np.int32))

    def _bare_ids(self, text: str) -> list[int]:
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def _normalised(self, text: str) -> str:
        normaliser = self._inner.normalizer
        return text if normaliser is None else str(normaliser.normalize_str(text))

    def _special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        bare = self._first.encode("a", add_special_tokens=False).ids
        framed = self._first.encode("a", add_special_tokens=True).ids
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return tuple(framed[:start]), tuple(framed[start + len(bare) :])
        raise CheckpointError("tokenizer.json: its post-processor changes the text's own tokens")


def _plain_tokenizer(spec: dict[str, Any]) -> Tokenizer:
    """Build a tokenizer without truncation, padding and recognition of special tokens in texts."""
    markers = [token | {"special": True} if token["content"] in MARKERS else token for token in spec["added_tokens"]]
    tokenizer = Tokenizer.from_str(
        json.dumps(spec | {"added_tokens": markers, "truncation": None, "padding": None}, ensure_ascii=False)
    )
    tokenizer.encode_special_tokens = True
    return tokenizer


def _without_first_blank(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification of a tokenizer for pieces that do not start a sequence."""
    pre_tokenizer = copy.deepcopy(spec.get("pre_tokenizer"))
    if pre_tokenizer is not None:
        for part in (pre_tokenizer, *pre_tokenizer.get("pretokenizers", ())):
            if part.get("prepend_scheme") == "first":
                part["prepend_scheme"] = "never"
    return spec | {"pre_tokenizer": pre_tokenizer}
