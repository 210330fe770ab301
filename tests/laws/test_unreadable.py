"""Text that cannot be read: blanks have one meaning, compatibility forms are read, unknown words are told."""

from __future__ import annotations

import json
import pickle
import shutil
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MINI, Scorers, Tiny, needs_mini
from fakes import INFO
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gliclass_rerank import (
    Classifier,
    FactChecker,
    InvalidTextError,
    Logits,
    Reranker,
    Route,
    Router,
    Scorer,
    ScoreRequest,
    UnreadableTextError,
    load_scorer,
)
from gliclass_rerank.models.tokenizer import MARKERS, TextTokenizer
from gliclass_rerank.types import FloatArray
from gliclass_rerank.validation import is_blank

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
PLAIN, LIGATURES = "The first office is in Berlin.", "The ﬁrst oﬃce is in Berlin."
FULL_WIDTH = "Ｔｈｅ ｆｉｒｓｔ ｏｆｆｉｃｅ ｉｓ ｉｎ Ｂｅｒｌｉｎ."
AMHARIC, OTHER_AMHARIC = "ድመት በባህር ውስጥ ይዘምራል።", "ፓሪስ የፈረንሳይ ዋና ከተማ ናት።"
# "A cat sings in the sea." and "Paris is the capital of France."
UNKNOWN = {
    "Amharic": (AMHARIC, OTHER_AMHARIC),
    "Burmese": ("ကြောင်သည် ပင်လယ်ထဲတွင် သီချင်းဆိုသည်။", "ပါရီသည် ပြင်သစ်နိုင်ငံ၏ မြို့တော်ဖြစ်သည်။"),
    "Thai": ("แมวร้องเพลงในทะเล", "ปารีสเป็นเมืองหลวงของฝรั่งเศส"),
    "Korean": ("고양이가 바다에서 노래한다.", "파리는 프랑스의 수도이다."),
    "Hindi": ("बिल्ली समुद्र में गाती है।", "पेरिस फ्रांस की राजधानी है।"),
    "Greek": ("Μια γάτα τραγουδά στη θάλασσα.", "Το Παρίσι είναι η πρωτεύουσα της Γαλλίας."),
    "Tamil": ("பூனை கடலில் பாடுகிறது.", "பாரிஸ் பிரான்சின் தலைநகரம்."),
    "Telugu, where only the full stop is known": ("పిల్లి పాడుతుంది.", "హైదరాబాద్ తెలంగాణ రాజధాని."),
    "Thai with a number": ("แมวร้องเพลงในทะเล 24", "ปารีสเป็นเมืองหลวงและเมืองที่ใหญ่ที่สุดของประเทศฝรั่งเศส 2024"),
}
KNOWN = {
    "English": "The Danube rises in Germany and flows to the Black Sea.",
    "German": "Die Straße führt über die Brücke zur größten Stadt der Schweiz.",
    "French": "L’élève a oublié son cœur à la bibliothèque.",
    "Turkish": "İstanbul Boğazı üzerinde üç köprü vardır, ışık güzel.",
    "Vietnamese": "Hà Nội là thủ đô của nước Việt Nam.",
    "Icelandic": "Höfuðborg Íslands er Reykjavík, þar búa margir.",
    "code": "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "an odd name": "The letter ꙮ appears in one manuscript of Ẽ̷ǂǃXóõ.",
    "a foreign word": "The word for Paris in Amharic is ፓሪስ.",
    "emoji in a sentence": "Great job 😀🎉",
    "formula": "5 μm at 3 Ω",
    "punctuation": "— ... !",
    "an identifier": "X7K9Q2-ÄÖ",
    "a key in a sentence": "The token is valid for an hour. Example: " + "a1B2" * 90,
    "an address": "See https://example.com/page?token=" + "a1B2" * 40 + " for the rest of the text.",
    "Chinese": "北京是中华人民共和国的首都。",
}


@cache
def _plain() -> Tokenizer:
    """The tokenizer of `mini` as upstream has it."""
    return Tokenizer.from_file(str(MINI / "tokenizer.json"))


@cache
def _ours() -> TextTokenizer:
    return TextTokenizer(MINI / "tokenizer.json")


@cache
def _mini(backend: Any) -> Scorer:
    return load_scorer("mini", backend=backend)


@pytest.fixture(scope="module")
def mini() -> Scorer:
    return _mini("onnx")


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return _ours()


# Blanks


@needs_mini
def test_every_character_is_blank_if_the_tokenizer_leaves_nothing_of_it() -> None:
    """A blank one leaves nothing; or, where it is a mark newer than the tokenizer's Unicode, a token for "unknown"."""
    plain = _plain()
    unknown = plain.token_to_id("[UNK]")
    visible = [one for one in CHARACTERS if not is_blank(one)]
    blank = sorted(set(CHARACTERS) - set(visible))
    assert len(blank) > 100_000
    for start in range(0, len(visible), 20_000):
        part = visible[start : start + 20_000]
        offsets = plain.encode(" ".join(part), add_special_tokens=False).offsets
        assert {first // 2 for first, _ in offsets} == set(range(len(part)))
    for start in range(0, len(blank), 20_000):
        assert set(plain.encode(" ".join(blank[start : start + 20_000]), add_special_tokens=False).ids) <= {unknown}


@needs_mini
@given(
    st.text(
        st.one_of(st.characters(categories=["Cc", "Cf", "Mn", "Zs", "Co"]), st.characters(exclude_categories=["Cs"]))
    )
)
def test_a_text_is_blank_if_the_tokenizer_leaves_nothing_of_it(text: str) -> None:
    plain = _plain()
    ids = plain.encode(text, add_special_tokens=False).ids
    assert is_blank(text) == all(map(is_blank, text))
    if not ids:
        assert is_blank(text)
    if is_blank(text):
        assert set(ids) <= {plain.token_to_id("[UNK]")}


BLANKS = ["", " ", "\u200b", "\ufeff", "\u00ad\n", "\ue000", "\u0301", "\ufffd", "\u2060\u200e", "\x01"]


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("name", ["bert-simple", "bi-encoder", "bart-encoder-decoder"])
def test_a_blank_is_refused_where_it_stands_whatever_the_tokenizer(blank: str, name: str, scorers: Scorers) -> None:
    scorer = scorers(name)
    for call, place in (
        (lambda: Reranker(scorer).rank("berlin", ["Berlin", blank]), "passage 1"),
        (lambda: Reranker(scorer).rank(blank, ["Berlin"]), "query"),
        (lambda: Reranker(scorer).rank(["berlin", blank], ["Berlin"]), "query 1"),
        (lambda: FactChecker(scorer).check("Bread rises.", ["Bread rises.", blank]), "evidence 1"),
        (lambda: Classifier(scorer).classify(["Bread", blank], ["food"]), "text 1"),
        (lambda: Router([Route("a", "food")], scorer).route_many(["bread", blank]), "query 1"),
        (lambda: ScoreRequest("Bread", ("food", blank)), "label 1"),
    ):
        with pytest.raises(InvalidTextError, match=f"^{place}: expected some text") as told:
            call()
        assert "leave it out" not in str(told.value), "a query cannot be left out"


@pytest.fixture(scope="module")
def deaf(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """A checkpoint whose tokenizer leaves nothing of "~~", which is not blank."""
    folder = tmp_path_factory.mktemp("deaf") / "bert"
    shutil.copytree(tiny("bert-simple").folder, folder)
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    dropping = {"type": "Replace", "pattern": {"String": "~~"}, "content": ""}
    spec["normalizer"] = {"type": "Sequence", "normalizers": [dropping, spec["normalizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    return load_scorer(folder, backend="torch")


def test_what_a_tokenizer_leaves_nothing_of_is_named_by_its_place(deaf: Scorer) -> None:
    for call, place in (
        (lambda: deaf.score([ScoreRequest("x", ("y",))] * 3 + [ScoreRequest("~~", ("y",))]), "text of request 3"),
        (lambda: deaf.score([ScoreRequest("x", ("y", "~~"))]), "label 1 of request 0"),
        (lambda: deaf.score([ScoreRequest("~~" * 3000, ("y",), prompt="sort")]), "text of request 0"),
        (lambda: Reranker(deaf).rank("berlin", ["Berlin", "~~"]), "passage 1"),
        (lambda: Reranker(deaf).rank("~~", ["Berlin"]), "query"),
        (lambda: Reranker(deaf).rank_many([("a", ["b"]), ("a", ["b", "~~"])]), "pair 1, passage 1"),
        (lambda: Reranker(deaf).rank("berlin", ["Berlin", "~~"], direction="passage-as-label"), "passage 1"),
        (lambda: Reranker(deaf).rank("berlin", ["Berlin"], criteria={"~~": 1.0}), "criterion '~~'"),
        (lambda: FactChecker(deaf).check("Bread rises.", ["Bread.", "~~"]), "evidence 1"),
        (lambda: Classifier(deaf).classify(["Bread", "~~"], ["food"]), "text 1"),
        (lambda: Classifier(deaf).classify("Bread", ["food", "~~"]), "label 1"),
        (lambda: Router([Route("a", "food")], deaf).route_many(["bread", "~~"]), "query 1"),
        (lambda: Router([Route("~~")], deaf).route("bread"), "route '~~'"),
        (lambda: Router([Route("a", examples=("~~",))], deaf).route("bread"), "example of 'a'"),
    ):
        with pytest.raises(UnreadableTextError, match=f"^{place}: '~~.*leaves nothing of it") as told:
            call()
        again = pickle.loads(pickle.dumps(told.value))
        assert (str(again), again.place, again.text) == (str(told.value), told.value.place, told.value.text)


# Compatibility forms


@needs_mini
def test_ligatures_and_full_width_letters_score_like_the_plain_ones(mini: Scorer) -> None:
    labels = ("where is the first office?", "sport")
    plain, *others = (
        row.tolist() for row in mini.score([ScoreRequest(text, labels) for text in (PLAIN, LIGATURES, FULL_WIDTH)])
    )
    assert others == [plain, plain]
    of_label = [
        mini.score([ScoreRequest("Berlin is big.", (text,))])[0].tolist() for text in (PLAIN, LIGATURES, FULL_WIDTH)
    ]
    assert of_label[1:] == [of_label[0]] * 2


@needs_mini
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_the_vocabulary_knows_keeps_its_ids(text: str) -> None:
    """But for ligatures: that is what parity with upstream rests on."""
    plain = _plain()
    ids = plain.encode(text, add_special_tokens=False).ids
    has_ligature = any(one.isalpha() and len(unicodedata.normalize("NFKC", one)) > 1 for one in text)
    if plain.token_to_id("[UNK]") not in ids and not has_ligature and not any(mark in text for mark in MARKERS):
        assert _ours().ids(text).tolist() == ids


@pytest.mark.parametrize("name", ["bart-encoder-decoder", "modernbert-mlp"])
def test_a_tokenizer_that_knows_every_byte_reads_the_text_as_it_is(name: str, tiny: Tiny) -> None:
    file = tiny(name).folder / "tokenizer.json"
    plain, ours = Tokenizer.from_file(str(file)), TextTokenizer(file)
    for text in (LIGATURES, FULL_WIDTH, AMHARIC):
        assert ours.ids(text, first=True).tolist() == plain.encode(text, add_special_tokens=False).ids
        assert ours.reads(text, ours.ids(text))


FORMS = st.sampled_from([*"ﬁﬀﬃＡｂ𝐱①㎏℡½xé中², ", "word", "\u200b"])


@needs_mini
@given(st.lists(FORMS, min_size=1).map("".join))
def test_offsets_are_whole_characters_of_the_original(text: str) -> None:
    tokenizer = _ours()
    ids, offsets = tokenizer.ids(text), tokenizer.offsets(text)
    assert len(ids) == len(offsets)
    covered: set[int] = set()
    for (start, end), token in zip(offsets.tolist(), ids.tolist(), strict=True):
        assert 0 <= start < end <= len(text)
        assert token in tokenizer.ids(text[start:end]) or end - start < len(text), "the piece has the token"
        covered |= set(range(start, end))
    assert all(position in covered or is_blank(one) for position, one in enumerate(text))


@needs_mini
def test_windows_of_a_long_text_with_ligatures_slice_its_words(mini: Scorer) -> None:
    filler = "The oﬃcer ﬁled a ﬂawed report about ﬁnance. " * 60
    text = f"{filler}The ﬁrst oﬃce is in Berlin. {filler}"
    (row,) = mini.score([ScoreRequest(text, ("where is the first office?",))])
    assert isinstance(row, Logits)
    assert len(row.spans) >= 3
    assert row.spans[0][0] == 0
    assert row.spans[-1][1] == len(text.rstrip())
    best = slice(*row.spans[int(row.per_window[:, 0].argmax())])
    assert "ﬁrst oﬃce" in text[best]


@needs_mini
def test_a_full_width_marker_is_text(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.ids("＜＜ＬＡＢＥＬ＞＞")
    assert tokenizer.marker("<<LABEL>>") not in ids
    assert ids.tolist() == tokenizer.ids("<<LABEL>>").tolist()


# Unknown words


@needs_mini
@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("language", UNKNOWN)
def test_what_cannot_be_read_is_neither_supported_nor_refuted(language: str, backend: str) -> None:
    claim, evidence = UNKNOWN[language]
    scorer = _mini(backend)
    for answer, passages in ((claim, [evidence]), (claim, [PLAIN]), (PLAIN, [evidence])):
        report = FactChecker(scorer, threshold=0.0, refute_threshold=0.0).check(answer, passages)
        (found,) = report.claims
        assert (found.verdict, found.readable, found.support, found.refute) == ("not_enough_info", False, 0.0, 0.0)
        assert not report.passed


@needs_mini
@pytest.mark.parametrize("kind", KNOWN)
def test_what_can_be_read_is_not_flagged(kind: str, mini: Scorer) -> None:
    """Also beside an unreadable passage, which changes nothing."""
    text = KNOWN[kind]
    (row,) = mini.score([ScoreRequest(text, (text, "sport"))])
    assert isinstance(row, Logits)
    assert (row.unread_text, row.unread_labels) == (False, ())
    assert Reranker(mini).rank(text, [text])[0].readable


@needs_mini
def test_a_claim_is_judged_by_the_passages_that_can_be_read(mini: Scorer) -> None:
    checker = FactChecker(mini)
    (alone,) = checker.check(PLAIN, [PLAIN]).claims
    (among,) = checker.check(PLAIN, [AMHARIC, PLAIN, OTHER_AMHARIC]).claims
    assert (among.support, among.refute) == pytest.approx((alone.support, alone.refute), abs=1e-5)
    assert among.verdict == alone.verdict
    assert (among.evidence, among.readable) == (1, True)


@needs_mini
def test_results_say_what_could_not_be_read(mini: Scorer) -> None:
    reranker = Reranker(mini)
    for direction in ("passage-as-text", "passage-as-label"):
        found = {one.index: one.readable for one in reranker.rank("berlin", ["Berlin", AMHARIC], direction=direction)}
        assert found == {0: True, 1: False}
        assert not any(one.readable for one in reranker.rank(AMHARIC, ["Berlin", "Paris"], direction=direction))
    assert not reranker.rank("berlin", ["Berlin"], criteria={AMHARIC: 1.0})[0].readable
    router = Router([Route("billing", "invoices", examples=("😀",)), Route("tech", "errors")], mini)
    assert [one.readable for one in router.route_many(["my invoice is wrong", AMHARIC])] == [True, False]
    good, bad = Classifier(mini).classify([PLAIN, AMHARIC], ["office", "sport"])
    assert (good.readable, bad.readable) == (True, False)
    assert not Classifier(mini).classify(PLAIN, ["office", AMHARIC]).readable
    (prompted,) = mini.score([ScoreRequest(AMHARIC, ("office",), prompt="Tell what this text is about, in a word")])
    assert isinstance(prompted, Logits)
    assert prompted.unread_text, "a prompt that is known does not hide a text that is not"


@needs_mini
def test_an_error_where_it_is_asked_for_names_the_place(mini: Scorer) -> None:
    for call, place in (
        (lambda: Reranker(mini).rank("berlin", ["Berlin", AMHARIC], unreadable="error"), "passage 1"),
        (lambda: Reranker(mini).rank(AMHARIC, ["Berlin"], unreadable="error"), "query"),
        (
            lambda: Reranker(mini).rank_many([("a city", ["Berlin"])] * 2 + [("a", [AMHARIC])], unreadable="error"),
            "pair 2, passage 0",
        ),
        (lambda: FactChecker(mini, unreadable="error").check(PLAIN, [PLAIN, AMHARIC]), "evidence 1"),
        (lambda: FactChecker(mini, unreadable="error").check(f"{PLAIN} {AMHARIC}", [PLAIN]), "claim 1"),
        (lambda: Classifier(mini).classify(["Bread", AMHARIC], ["food"], unreadable="error"), "text 1"),
        (lambda: Classifier(mini).classify("Bread", ["food", AMHARIC], unreadable="error"), "label 1"),
        (lambda: Router([Route("a"), Route("b")], mini, unreadable="error").route_many(["bread", AMHARIC]), "query 1"),
        (lambda: Router([Route("a"), Route(AMHARIC)], mini, unreadable="error").route("bread"), f"route '{AMHARIC}'"),
    ):
        with pytest.raises(UnreadableTextError, match=f"^{place}: .*vocabulary does not know its words"):
            call()
    assert Reranker(mini).rank("berlin", ["Berlin"], unreadable="error")[0].readable


def test_logits_that_could_not_be_read_survive_pickling_and_leave_nothing_in_what_is_derived() -> None:
    row = Logits.over_windows(np.ones((1, 3), np.float32), [(0, 4)], unread_text=True, unread_labels=(2,))
    again = pickle.loads(pickle.dumps(row))
    assert (again.unread_text, again.unread_labels) == (True, (2,))
    assert (row[:1].unread_text, row[:1].unread_labels) == (False, ())  # type: ignore[attr-defined]


class Plain:
    """A scorer of one's own, whose rows are arrays without any memory."""

    info = INFO

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        return [np.full(len(request.labels), 5.0, np.float32) for request in requests]


def test_a_scorer_that_does_not_tell_reads_everything() -> None:
    (claim,) = FactChecker(Plain(), unreadable="error").check(AMHARIC, [OTHER_AMHARIC]).claims
    assert (claim.verdict, claim.readable) == ("supported", True)


def test_a_label_encoder_reads_labels_by_its_own_vocabulary(tiny: Tiny, scorers: Scorers) -> None:
    """In this checkpoint a WordPiece tokenizer reads texts, and a Unigram one labels."""
    folder: Path = tiny("bi-encoder").folder
    labels = TextTokenizer(folder / "label_tokenizer" / "tokenizer.json")
    label = next(one for one in (AMHARIC, "ᐃᓄᒃᑎᑐᑦ") if not labels.reads(one, labels.ids(one)))
    (row,) = scorers("bi-encoder").score([ScoreRequest("Bread rises.", ("science", label))])
    assert row.unread_labels == (1,)
