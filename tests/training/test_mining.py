"""Hard negatives: never an answer, never twice, near ones first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gliclass_rerank import InputError, OptionError
from gliclass_rerank.cli.main import main
from gliclass_rerank.training.data.mining import Embed, mine
from gliclass_rerank.training.data.records import RankingRecord, as_dict, read_records

PASSAGES = tuple(f"{animal} {verb} in the {place}" for animal in ("cats", "dogs", "fish") for verb in ("sleep", "eat")
                 for place in ("house", "garden", "river"))  # fmt: skip
WORDS = sorted({word for passage in PASSAGES for word in passage.split()})
# Numbered, since the answers of one query are no negatives of it.
RECORDS = [RankingRecord(f"{i} where do {p.split()[0]} {p.split()[1]}", (p,)) for i, p in enumerate(PASSAGES)]


def bag_of_words(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array([[text.split().count(word) for word in WORDS] for text in texts], np.float32)


@pytest.mark.parametrize("embed", [None, bag_of_words])
def test_negatives_are_no_answers_and_come_once(embed: Embed | None) -> None:
    own = RankingRecord("fish eat", (PASSAGES[12],), ("a negative of its own",))
    mined = mine([*RECORDS, own], ["an unrelated passage"], embed=embed, negatives=4, nearest=10)
    assert len(mined) == len(RECORDS) + 1
    for before, after in zip([*RECORDS, own], mined, strict=True):
        assert (after.query, after.positives) == (before.query, before.positives)
        assert after.negatives[: len(before.negatives)] == before.negatives
        assert len(after.negatives) == len(set(after.negatives)) == 4
        assert not set(after.negatives) & set(after.positives)


@pytest.mark.parametrize("embed", [None, bag_of_words])
def test_the_nearest_come_first(embed: Embed | None) -> None:
    (mined, *_) = mine(RECORDS, embed=embed, negatives=4, nearest=4)
    animal, verb = PASSAGES[0].split()[:2]
    assert all(animal in passage and verb in passage for passage in mined.negatives[:2])


def test_a_margin_keeps_likely_answers_out() -> None:
    strict = mine(RECORDS, embed=bag_of_words, negatives=4, nearest=10, margin=0.4)
    for record in strict:
        animal, verb = record.positives[0].split()[:2]
        assert not any(animal in passage and verb in passage for passage in record.negatives)
        # Of two words one is shared, which is half of the answer's similarity and below the 0.6 that 0.4 leaves.
        assert len(record.negatives) == 4
        assert all(animal in passage or verb in passage for passage in record.negatives[:2])


@pytest.mark.parametrize(("margin", "found"), [(0.0, 17), (0.4, 15), (0.5, 6), (0.6, 6)])
def test_a_passage_must_stay_below_the_margin(margin: float, found: int) -> None:
    """Besides the answer there are 2 passages of its similarity 2, 9 of 1 and 6 of 0; half of 2 is not below 1."""
    mined = mine(RECORDS, embed=bag_of_words, negatives=17, nearest=17, margin=margin)
    assert {len(record.negatives) for record in mined} == {found}


@pytest.mark.parametrize("embed", [None, bag_of_words])
def test_mining_again_adds_what_is_missing_and_repeats_nothing(embed: Embed | None) -> None:
    once = mine(RECORDS, embed=embed, negatives=3, nearest=6)
    assert mine(once, embed=embed, negatives=3, nearest=6) == mine(once, embed=embed, negatives=2, nearest=6) == once
    for before, after in zip(once, mine(once, embed=embed, negatives=6, nearest=6), strict=True):
        assert after.negatives[:3] == before.negatives
        assert len(set(after.negatives)) == len(after.negatives) == 6


# The same query in three records, one of which words it otherwise and has another's answer as a negative.
QUERY = "how do I reset my password"
ANSWERS = ("Reset your password from the login page.", "To reset a password, click forgot password.", "Ask my admin.")
SHARED = [
    RankingRecord(QUERY, ANSWERS[:1]),
    RankingRecord(QUERY, ANSWERS[1:2], ("a negative of its own",)),
    RankingRecord(f"{QUERY.upper()} ", ANSWERS[2:], (f" {ANSWERS[0].lower()}", "another negative")),
    RankingRecord("when are invoices sent", ("Invoices are sent monthly.",)),
]
FURTHER = ["reset  your password from the\nLOGIN page.", "Parking costs two euros.", "parking costs two euros."]


@pytest.mark.parametrize("embed", [None, lambda texts: np.ones((len(texts), 1), np.float32)])
def test_an_answer_of_the_same_query_elsewhere_is_no_negative(embed: Embed | None) -> None:
    mined = mine(SHARED, FURTHER, embed=embed, negatives=20, nearest=20)
    for record in mined[:3]:
        assert sorted(record.negatives) == sorted(
            {"a negative of its own", "another negative", "Invoices are sent monthly.", "Parking costs two euros."}
        )
    assert mined[1].negatives[0] == "a negative of its own"
    assert set(ANSWERS) < set(mined[3].negatives)


def test_the_same_seed_mines_the_same() -> None:
    assert mine(RECORDS, negatives=4, seed=1) == mine(RECORDS, negatives=4, seed=1)
    assert mine(RECORDS, negatives=4, seed=1) != mine(RECORDS, negatives=4, seed=2)


def test_the_command_line_writes_records_that_training_reads(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(as_dict(record)) + "\n" for record in RECORDS), "utf-8")
    further = tmp_path / "passages.jsonl"
    further.write_text(json.dumps({"text": "cats sleep on the roof"}) + "\n", "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["mine", str(records), "--out", str(tmp_path / "new" / "mined.jsonl"), "--passages", str(further)])
    assert ended.value.code == 0
    assert read_records(tmp_path / "new" / "mined.jsonl") == list(mine(RECORDS, ["cats sleep on the roof"]))


def test_the_command_line_says_what_it_leaves_out_and_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = tmp_path / "records.jsonl"
    fact = {"premise": "p", "hypothesis": "h", "label": "nei"}
    records.write_text("".join(json.dumps(row) + "\n" for row in [*map(as_dict, RECORDS), fact]), "utf-8")
    for further, message in (
        (["--passages", str(tmp_path / "none")], "none: cannot be read"),
        ([], "1 records are no"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["mine", str(records), "--out", str(tmp_path / "mined.jsonl"), *further])
        assert (ended.value.code == 0) == (not further)
        assert message in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_mined_is_refused() -> None:
    with pytest.raises(InputError, match="at least one record"):
        mine([])
    with pytest.raises(OptionError, match="nearest >= negatives"):
        mine(RECORDS, negatives=9, nearest=3)
