"""The figures of the bundled model's card are those of the results that it cites, which are all of one model."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lib.results import RESULTS, read

ROOT = Path(__file__).parents[2]
CARD = ROOT / "src" / "gliclass_rerank" / "bundled" / "mini" / "MODEL_CARD.md"
TEXT = CARD.read_text("utf-8")
# Names of the card for names of the results.
CONTESTANTS = {"both, by reciprocal ranks": "hybrid", "mini with BM25 (`first_stage_scores=`)": "mini + BM25"}
SHORTENED = ("trec_dl19", "averitec", "scifact")  # sets by the beginning of their names
ELEVEN = "mean of the eleven"

Table = dict[str, dict[str, str]]


def table_after(heading: str) -> Table:
    """The cells of the table whose first line holds ``heading``, by row and column."""
    lines = TEXT[TEXT.rindex("\n", 0, TEXT.index(heading)) + 1 :].splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *body = rows
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def cited(name: str) -> dict[str, Any]:
    """The results of a benchmark that the card cites."""
    (file,) = set(re.findall(rf"`benchmarks/results/([\w-]+/{name}\.json)`", TEXT))
    return read(RESULTS / file)


def of_set(results: dict[str, Any], name: str) -> Any:
    """A set's measures, by its name or by what the card has shortened it to."""
    found = [key for key in results if key == name or (name in SHORTENED and key.startswith(name))]
    return results[found[0]]


def test_retrieval_is_what_its_file_tells() -> None:
    table = table_after("| | BM25 | all-MiniLM-L6-v2 | both")
    results = cited("retrieval")["results"]
    peer = cited("retrieval-cross-encoder")["results"]["cross-encoder"]
    eleven = [name for name in table if table[name]["CrossEncoder"] and name != ELEVEN]
    assert len(eleven) == 11
    for row, cells in table.items():
        for column, cell in cells.items():
            sets = peer if column == "CrossEncoder" else results[CONTESTANTS.get(column, column)]
            if column == "CrossEncoder" and row not in (*eleven, ELEVEN):
                assert cell == ""
                continue
            names = eleven if row == ELEVEN else [row]
            expected = statistics.fmean(of_set(sets, name)["ndcg@10"] for name in names)
            assert cell == f"{expected:.3f}", (row, column)


@pytest.mark.parametrize(
    ("heading", "name", "measure"),
    [
        ("| supported or not, balanced accuracy", "fact-check", "balanced_accuracy"),
        ("| macro F1 | CR", "zero-shot", "macro_f1"),
    ],
)
def test_a_table_of_contestants_is_what_its_file_tells(heading: str, name: str, measure: str) -> None:
    results = cited(name)["results"]
    for row, cells in table_after(heading).items():
        sets = results[row.removesuffix(", cosine").removesuffix(", nearest")]
        assert cells == {column: f"{of_set(sets, column)[measure]:.3f}" for column in cells}


def test_routing_is_what_its_file_tells() -> None:
    results = cited("routing")["results"]
    table = table_after("| accuracy | snips | clinc150 | banking77 | bfcl")
    rows = list(table.values())
    for model, accuracy, abstention in zip(("all-MiniLM-L6-v2", "mini"), rows[:2], rows[2:], strict=True):
        sets = results[model]
        assert accuracy == {name: f"{sets[name]['accuracy']:.3f}" for name in accuracy}
        for name, cell in abstention.items():
            told = sets.get(f"{name}, half of its labels", sets[name]).get("abstention_auroc")
            assert cell == ("" if told is None else f"{told:.3f}")


def test_records_held_back_are_what_their_file_tells() -> None:
    report = cited("mini-held")["results"]
    int8, before = report["int8"], report["before export"]
    told = " ".join(TEXT.split())
    for part in (
        f"nDCG@10 {int8['ranking']['ndcg']:.3f} over {int8['ranking']['queries']} queries",
        f"balanced accuracy {int8['fact']['balanced_accuracy']:.3f}, AUROC {int8['fact']['auroc']:.3f} over "
        f"{int8['fact']['claims']:,} claims",
        f"for {int8['labels']['top1']:.3f} of {int8['labels']['texts']} texts",
        f"ECE: relevance {int8['ranking']['ece']:.3f}, support {int8['fact']['ece']:.3f}, refutation "
        f"{int8['fact']['refutation_ece']:.3f}, labels {int8['labels']['ece']:.3f}",
        f"Before export: {before['ranking']['ndcg']:.3f}, {before['fact']['balanced_accuracy']:.3f}, "
        f"{before['fact']['auroc']:.3f} and {before['labels']['top1']:.3f}",
    ):
        assert part in told


def test_all_results_that_the_card_cites_are_of_one_model() -> None:
    names = ("retrieval", "fact-check", "routing", "route-examples", "zero-shot", "label-order")
    found = {name: cited(name)["model"] for name in names}
    revisions = {model.get("mini", model)["revision"] for model in found.values()}
    assert revisions == {cited("mini-held")["model"]["int8"]["revision"]}
