"""Coverage of texts by a vocabulary: replace compatibility forms that it lacks, and detect unreadable texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]

LEAST_READ = 0.25
"""Least share of a text's letters and digits that is read. Of sentences in 45 languages `mini` reads at least 0.9 in
Latin scripts, 0.5 to 0.7 of Chinese and Japanese, 0.36 of Tibetan, and at most 0.21 in all other scripts."""

LONGEST_WORD = 24  # letters and digits; few words are longer than this, but hashes and keys are
FEW_TOKENS = 20
"""A letter that occurs in fewer longer tokens than this is only used for spelling: the vocabulary has no such words."""
CACHED_CHARACTERS = 16_384


class Vocabulary:
    """The tokens of a tokenizer, and the share of a text that they cover.

    Two kinds of tokens count as unread: "unknown" tokens, and words spelled letter by letter because the vocabulary has
    no pieces of their script, as BERT's has letters of Greek, Hindi and Korean but no words. The second kind is
    detected only for WordPiece, which marks the pieces of a word. A tokenizer without an "unknown" token (byte-level)
    reads everything.

    Args:
        model: the part "model" of a ``tokenizer.json``.
        tokens: id of every token.
    """

    def __init__(self, model: Mapping[str, Any], tokens: Mapping[str, int]) -> None:
        self.unknown = _unknown_id(model, tokens)
        prefix = str(model.get("continuing_subword_prefix") or "") if model.get("type") == "WordPiece" else ""
        texts = {id_: token.removeprefix(prefix) for token, id_ in tokens.items()}
        size = max(tokens.values(), default=0) + 1
        self._characters = frozenset().union(*texts.values())
        self._letters = np.zeros(size, np.int32)
        self._is_piece, self._is_letter = np.zeros(size, bool), np.zeros(size, bool)
        if self.unknown is None:
            return
        uses = Counter(character for text in texts.values() if len(text) > 1 for character in set(text))
        for token, id_ in tokens.items():
            text = texts[id_]
            self._letters[id_] = sum(map(str.isalnum, text))
            self._is_piece[id_] = bool(prefix) and token.startswith(prefix)
            self._is_letter[id_] = bool(prefix) and len(text) == 1 and text.isalpha() and not text.isascii()
            self._is_letter[id_] &= uses[text] < FEW_TOKENS
        self._letters[self.unknown] = 0

    def spells(self, text: str) -> bool:
        """Whether each character of a normalised text is in some token."""
        return self._characters.issuperset(text)

    def knows(self, ids: Ids) -> bool:
        """Whether all of these tokens are read."""
        return self.unknown is None or not self._unread(ids).any()

    def reads(self, text: str, ids: Ids) -> bool:
        """Whether enough of a text is read, see `LEAST_READ`. ``ids`` are its tokens."""
        if self.unknown is None or not ((ids == self.unknown).any() or self._is_letter[ids].any()):
            return True
        unread = self._unread(ids)
        if not unread.any():
            return True
        total = sum(map(_letters, text.split()))
        return bool(total and self._letters[ids][~unread].sum() >= LEAST_READ * total)

    def _unread(self, ids: Ids) -> NDArray[np.bool_]:
        unread: NDArray[np.bool_] = ids == self.unknown
        letters = self._is_letter[ids]
        if letters.any():
            pieces = self._is_piece[ids]
            unread |= letters & (pieces | np.append(pieces[1:], False))
        return unread


def _letters(word: str) -> int:
    """Letters and digits of a word. A long ASCII word (a hash, a key, an address) counts as `LONGEST_WORD`."""
    letters = sum(map(str.isalnum, word))
    return min(letters, LONGEST_WORD) if word.isascii() else letters


class CompatibilityForms:
    """Ligatures, full-width and mathematical letters and other forms that a vocabulary lacks, and their plain forms.

    A form is replaced by its NFKC form if the vocabulary knows that and has no token with the form itself. So a text
    that the vocabulary can read keeps its ids. Ligatures, forms of several letters, are replaced even if they are
    known: BERT has tokens for two of them, but no word with one.

    Args:
        vocabulary: of the tokenizer.
        ids: tokenises a text.
        normalise: the tokenizer's own normaliser.
    """

    def __init__(
        self, vocabulary: Vocabulary, ids: Callable[[str], list[int]], normalise: Callable[[str], str]
    ) -> None:
        self._vocabulary, self._ids, self._normalise = vocabulary, ids, normalise
        self._plain = lru_cache(CACHED_CHARACTERS)(self._find_plain)

    def replaced(self, text: str) -> str:
        """The text in plain forms, in most cases the text itself."""
        if text.isascii():  # ASCII has no other forms
            return text
        forms = self._forms(text)
        return text.translate(forms) if forms else text

    def original_spans(self, text: str, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        """Convert code-point ranges of `replaced`, shape (spans, 2), to ranges of the text, in whole characters."""
        forms = {} if text.isascii() else self._forms(text)
        if not forms:
            return spans
        starts = np.cumsum([0, *(len(forms.get(ord(character), character)) for character in text)])
        first = np.searchsorted(starts, spans[:, 0], side="right") - 1
        return np.stack([first, np.searchsorted(starts, spans[:, 1], side="left")], axis=1)

    def _forms(self, text: str) -> dict[int, str]:
        """Replacements in a text, by code point."""
        if self._vocabulary.unknown is None:
            return {}
        return {ord(one): plain for one in set(text) if not one.isascii() and (plain := self._plain(one)) is not None}

    def _find_plain(self, character: str) -> str | None:
        plain = unicodedata.normalize("NFKC", character)
        if plain == character:
            return None
        ids, known, unknown = self._ids(character), self._ids(plain), self._vocabulary.unknown
        if not known or unknown in known or ids == known:
            return None
        is_ligature = character.isalpha() and plain.isalpha() and len(plain) > 1
        # A form may be known inside a word and unknown by itself.
        is_known = unknown not in ids or self._vocabulary.spells(self._normalise(character).strip())
        return plain if is_ligature or not is_known else None


def _unknown_id(model: Mapping[str, Any], tokens: Mapping[str, int]) -> int | None:
    """Id of the tokenizer's "unknown" token, if it has one."""
    if model.get("type") == "Unigram":
        unknown = model.get("unk_id")
        return None if unknown is None else int(unknown)
    return tokens.get(str(model.get("unk_token")))
