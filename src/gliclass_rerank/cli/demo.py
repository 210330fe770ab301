"""Tables of the demo's report for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gliclass_rerank.cli.output import figures, names, new_table, print_table
from gliclass_rerank.demo.evaluate import CUTOFF, DemoReport, Outcome, Quality, ndcg_of

SHOWN_PASSAGES = 10
SAME = 1e-9  # smaller differences of nDCG are rounding errors


def show(report: DemoReport, console: Console) -> None:
    """Print the metrics, then the ranks of one question's passages before and after."""
    console.print(Text("Python's documentation, searched and reranked", "bold"))
    print_table(quality_table(report), console)
    console.print(Text("\n".join(notes(report))), soft_wrap=True)
    if report.outcomes:
        outcome = most_improved(report)
        console.print()
        console.print(_heading(report, outcome), soft_wrap=True)
        print_table(moving_table(report, outcome), console)


def quality_table(report: DemoReport) -> Table:
    """NDCG, MRR and time of each order, over all questions and over those held out."""
    overall, held_out = report.overall, report.held_out
    columns = [names("")]
    for questions in (f"{overall.queries} questions", f"{held_out.queries} held out"):
        columns += [figures(f"{questions}\nnDCG@{CUTOFF}"), figures(f"\nMRR@{CUTOFF}")]
    table = new_table(*columns, figures("a question\nms"))
    search = report.seconds["first_stage"] / max(1, overall.queries)
    reranked = search + report.seconds["rerank_per_query"]
    rows = (
        ("BM25", overall.before, held_out.before, search),
        ("reranked", overall.after, held_out.after, reranked),
        ("reranked alone", overall.alone, held_out.alone, reranked),
    )
    for name, everywhere, apart, seconds in rows:
        measures = [f"{value:.3f}" for quality in (everywhere, apart) for value in _values(quality)]
        table.add_row(name, *measures, f"{seconds * 1000:.1f}", style="bold" if name == "reranked" else "")
    return table


def notes(report: DemoReport) -> list[str]:
    """Notes below the table: setup, changes per question, times, and judgments left out."""
    model, judged = report.model, report.task.judged
    changes = [_change(report, outcome) for outcome in report.outcomes]
    better, worse = sum(change > SAME for change in changes), sum(change < -SAME for change in changes)
    lines = [
        f"{len(report.task.passages):,} passages: the {report.collection}. For each question {model.name} "
        f"({model.backend}, {model.dtype}, {model.device})\nreads the names and summaries of BM25's first "
        f"{report.candidates}; one standard deviation of their BM25 scores counts as {report.first_stage_weight:g} in "
        "logits (alone: 0).",
        f"{better} questions better, {worse} worse, {len(changes) - better - worse} as before. "
        f"Collection {report.seconds['collection']:.1f} s, BM25 {report.seconds['first_stage']:.1f} s, "
        f"reranking {report.seconds['rerank']:.1f} s.",
    ]
    if judged.missing_names:
        lines.append(
            f"{len(judged.missing_names)} judged names are not in this Python's documentation and are left out, "
            f"with {len(judged.dropped_questions)} questions that have no other answer."
        )
    return lines


def most_improved(report: DemoReport) -> Outcome:
    """Return the question whose nDCG grew most."""
    return max(report.outcomes, key=lambda outcome: _change(report, outcome))


def moving_table(report: DemoReport, outcome: Outcome) -> Table:
    """One question's first passages after reranking, with their ranks before."""
    table = new_table(figures("rank"), figures("before"), names("passage"), names("judged"))
    for rank, index in enumerate(outcome.after[:SHOWN_PASSAGES], 1):
        name = report.task.passages[index].name
        grade = outcome.question.relevant.get(name, 0)
        verdict = ("", "helps", "answers")[min(grade, 2)]
        was = 1 + outcome.before.index(index)
        table.add_row(str(rank), _arrow(was, rank), Text(name), verdict, style="green" if grade else "")
    return table


def _heading(report: DemoReport, outcome: Outcome) -> Text:
    before, after = (ndcg_of(report.task, outcome, order) for order in (outcome.before, outcome.after))
    gain = f", nDCG@{CUTOFF} {before:.2f} → {after:.2f}"
    return Text.assemble("Where it helped most: ", (f"“{outcome.question.query}”", "bold"), gain)


def _arrow(was: int, now: int) -> str:
    return f"{was} {'↑' if was > now else '↓' if was < now else '='}"


def _change(report: DemoReport, outcome: Outcome) -> float:
    return ndcg_of(report.task, outcome, outcome.after) - ndcg_of(report.task, outcome, outcome.before)


def _values(quality: Quality) -> tuple[float, float]:
    return quality.ndcg, quality.mrr
