"""What trains the bundled model: nothing of an evaluation set, and records that the trainer takes."""

from __future__ import annotations

import gzip
import json
import os
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.mini import choices, sets
from benchmarks.mini import data as mini_data
from benchmarks.mini.claims import corrupt, facts, plain
from benchmarks.quality.contradictions import FILE as CONTRADICTIONS
from gliclass_rerank.training.config import read_config
from gliclass_rerank.training.data.records import read_records
from gliclass_rerank.training.data.vectors import read_vectors
from gliclass_rerank.types import FloatArray

MINI_FOLDER = Path(mini_data.__file__).parent
WORDS = "river law music bread court energy market school engine garden winter doctor planet novel bridge".split()


def put(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All sets that the recipe names, small; each shares a text with an evaluation set, spelled differently."""
    rng = random.Random(3)

    def words(count: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(count))

    def sentences(i: int) -> str:
        return f"The {words(4)} was built in {1900 + i}. All of the {words(5)} can be seen from Paris {i}."

    root = tmp_path / "data"
    put(root / "eval/retrieval/one/queries.jsonl", [{"id": "1", "text": "Forbidden query?"}])
    put(root / "eval/retrieval/one/corpus.jsonl.gz", [{"id": "1", "title": "", "text": "The forbidden passage." * 200}])
    put(root / "eval/fact/one/nli.jsonl.gz", [{"premise": "p", "hypothesis": "A forbidden claim", "label": "nei"}])
    put(root / "eval/labels/one/test.jsonl.gz", [{"text": "forbidden   text", "label": "x"}])
    for name in mini_data.PAIRS:
        rows = [{"query": f"{words(4)} {i}", "positive": f"{words(3)}. {sentences(i)}"} for i in range(60)]
        rows += [{"query": "forbidden QUERY", "positive": "fine"}]
        rows += [{"query": "fine", "positive": "the forbidden passage!" * 200, "title": "t"}]
        put(root / f"train/pairs/{name}/pairs.jsonl.gz", rows)
    for name in facts.FACTS:
        labels = ("supported", "refuted", "nei")
        premises = [json.dumps({"name": words(4)}) if name == "infotabs" else words(15) for _ in range(40)]
        told = [{"premise": premises[i], "hypothesis": f"{words(5)} {i}", "label": labels[i % 3]} for i in range(40)]
        told += [{"premise": words(9), "hypothesis": "a forbidden claim.", "label": "nei"}]
        put(root / f"train/fact/{name}/nli.jsonl.gz", told)
    for name in choices.LABELS:
        key = "labels" if name == "cooking_tags" else "label"
        texts = [{"text": words(6), key: [WORDS[i]] if key == "labels" else WORDS[i]} for i in range(10)]
        put(root / f"train/labels/{name}/train.jsonl.gz", [*texts, {"text": "Forbidden text!", **{key: texts[0][key]}}])
        (root / f"train/labels/{name}/labels.json").write_text(json.dumps(WORDS), "utf-8")
    for name in choices.YES_OR_NO:
        asked = [{"text": f"{words(5)} {i}", "question": f"Is it {i}?", "answer": i % 2 == 0} for i in range(20)]
        put(root / f"train/decisions/{name}/noul.jsonl.gz", [*asked, {**asked[0], "text": "forbidden text"}])
    return root


class HashedWords:
    """Stands for a sentence encoder: the sum of a random vector for each word."""

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.stack([sum(self._vector(word) for word in ("", *text.split())) for text in texts])
        unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit

    @staticmethod
    def _vector(word: str) -> NDArray[np.float64]:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=384)


class FakeEncoders:
    def __init__(self, _: Path) -> None:
        self.minilm = HashedWords()

    def queries(self, texts: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        return self.minilm(texts), self.minilm(texts)

    passages = queries


def texts_of(file: Path) -> set[str]:
    """Every query, passage, claim and text of a file, normalised."""
    found: set[str] = set()
    for row in sets.read(file):
        values = [row.get(key) for key in ("query", "positive", "premise", "hypothesis", "text")]
        for key in ("negatives", "queries", "passages"):
            values += row.get(key, ())
        found |= {sets.normalised(value) for value in values if value}
        if file.name.startswith(("claims", "changed")):
            found |= {sets.normalised(label) for label in row["all_labels"]}
    return found


def test_nothing_of_an_evaluation_set_is_trained_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini_data, "Encoders", FakeEncoders)
    monkeypatch.setattr(mini_data, "PLAIN", 100)
    monkeypatch.setattr("sys.argv", ["mini_data.py", "--data", str(data), "--out", str(tmp_path / "out")])
    mini_data.main()
    seen = sets.evaluation_texts(data / "eval")
    assert "forbidden query" in seen
    files = sorted((tmp_path / "out").glob("*.*.jsonl"))
    kinds = {file.name.partition(".")[0] for file in files}
    assert kinds == {"ranking", "texts", "fact", "claims", "changed", "plain", "labels"}
    for file in files:
        assert read_records(file)
        texts = texts_of(file)
        assert not texts & seen, file.name
        assert not any("forbidden" in text for text in texts), file.name
    vectors = read_vectors(tmp_path / "out" / "vectors.npz")
    for name in ("ranking.train.jsonl", "texts.train.jsonl"):
        for row in sets.read(tmp_path / "out" / name):
            assert np.isfinite(vectors.of([*row.get("passages", ()), *([row["text"]] if "text" in row else ())])).all()


def test_the_recipe_is_a_configuration_of_these_files() -> None:
    config = read_config(MINI_FOLDER / "mini.toml")
    kinds = {source.file.name.partition(".")[0] for source in config.train}
    assert kinds == {"ranking", "texts", "claims", "changed", "plain", "labels"}
    assert not any("dev" in source.file.name for source in config.train)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GLICLASS_RERANK_DATA"), reason="GLICLASS_RERANK_DATA names no data")
def test_prepared_files_share_nothing_with_the_evaluation_sets() -> None:
    """Of the real data, as far as it is at hand: build/mini/data was made from it by mini_data.py."""
    files = sorted((MINI_FOLDER.parents[1] / "build" / "mini" / "data").glob("*.*.jsonl"))
    if not files:
        pytest.skip("build/mini/data is empty: run benchmarks/mini/data.py first")
    seen = sets.evaluation_texts(Path(os.environ["GLICLASS_RERANK_DATA"]) / "eval")
    assert len(seen) > 1000
    for file in files:
        assert not texts_of(file) & seen, file.name


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("The tower is 330 metres high.", corrupt.number),
        ("It was founded in 1998.", corrupt.number),
        ("The store opens on Monday in March.", corrupt.date),
        ("All employees must complete the training.", corrupt.opposite),
        ("Guests can comment on the page.", corrupt.negation),
        ("Guests are not allowed to edit.", corrupt.negation),
        ("In 2006 Google bought YouTube for a lot.", corrupt.swap),
    ],
)
def test_a_rule_changes_a_sentence_and_nothing_else(sentence: str, rule: corrupt.Rule) -> None:
    for seed in range(20):
        changed = rule(sentence, random.Random(seed), ())
        assert changed
        assert changed != sentence
        kept = set(sentence.split()) & set(changed.split())
        assert len(kept) >= len(sentence.split()) - 2


def test_a_sentence_without_anything_to_change_stays() -> None:
    assert corrupt.corrupted("Nothing here matches", random.Random(0)) is None


def test_claims_from_a_passage_are_true_of_it_unless_one_of_the_two_was_changed() -> None:
    passage = "The tower in Paris was built in 1889. All visitors can see the river from there. It is 330 metres high."
    for seed in range(30):
        for record in facts.from_passages([passage], random.Random(seed)):
            claims = [label for label in record["all_labels"] if not label.startswith("It is false that ")]
            for claim in claims:
                assert (claim in record["true_labels"]) == (claim in record["text"])
                assert (f"It is false that {claim}" in record["true_labels"]) != (claim in record["text"])


@pytest.mark.parametrize("kind", plain.KINDS)
def test_plain_statements_contradict_what_they_do_not_support(kind: Callable[[random.Random], plain.Plain]) -> None:
    rng = random.Random(5)
    for _ in range(300):
        told = kind(rng)
        assert told.supported
        assert told.refuted
        assert not {told.evidence, *told.supported} & {*told.refuted}
        assert all(
            text[0] == text[0].upper() and text[-1] == "." for text in (told.evidence, *told.supported, *told.refuted)
        )


def test_plain_statements_are_none_of_those_that_test_the_model() -> None:
    asked = [json.loads(line) for line in CONTRADICTIONS.read_text("utf-8").splitlines()]
    texts = {text for one in asked for key, text in one.items() if key != "kind"}
    for record in plain.plain_claims(2000, random.Random(1)):
        assert record["true_labels"]
        assert not texts & {record["text"], *record["all_labels"]}
