"""The commands of the tasks: ``rerank | route | check | classify | decide``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from gliclass_rerank.cli.output import (
    AsJson,
    Backend,
    Device,
    Model,
    figures,
    names,
    new_table,
    one_line,
    print_json,
    print_table,
    printable,
    progressing_scorer,
    say,
    texts,
)
from gliclass_rerank.errors import InputError, OptionError

if TYPE_CHECKING:
    from gliclass_rerank.passage_files import SourcedPassage, Sources
    from gliclass_rerank.tasks.classify import Classification
    from gliclass_rerank.tasks.decide.answers import Answer
    from gliclass_rerank.tasks.fact_check.checker import FactReport
    from gliclass_rerank.tasks.routing.router import RouteDecision
    from gliclass_rerank.types import Ranked

STDIN = "-"
SNIPPET_CHARACTERS = 200
LONGEST_NAME = 256  # characters; a longer argument is no file's name
STYLES = {"supported": "green", "refuted": "red", "not_enough_info": "yellow"}


def rerank(
    query: Annotated[str, typer.Argument(help="Question or search query.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... | -",
            help='Files (one passage each; .jsonl: one passage per line), folders, or "-" for JSON lines on stdin: '
            'strings or {"text": ..., "id": ...}.',
        ),
    ],
    top_n: Annotated[int | None, typer.Option(min=1, help="Number of passages to print; all by default.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Minimum score, in [0, 1].")] = None,
    criteria: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WEIGHT", help="An additional label and its weight; may be repeated."),
    ] = None,
    scores_field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Field of the JSON lines with the retriever's own scores, to fuse with ours."
        ),
    ] = None,
    long_text: Annotated[str, typer.Option(help="Handling of overlong texts: window, truncate or error.")] = "window",
    direction: Annotated[str, typer.Option(help="auto, passage-as-text or passage-as-label.")] = "auto",
    instruction: Annotated[
        str | None, typer.Option(help="What makes a passage relevant, for models trained with prompts.")
    ] = None,
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
    with_text: Annotated[bool, typer.Option("--text", help="Include whole passages in the JSON.")] = False,
) -> None:
    """Order passages by how well they answer QUERY."""
    from gliclass_rerank.passage_files import read_sources
    from gliclass_rerank.tasks.rerank import AnyDirection, Reranker
    from gliclass_rerank.types import LongText

    weights = _weights(criteria or ())
    read = read_sources(sources, sys.stdin.buffer, scores_field=scores_field)
    _report_skipped(read)
    if not (read.passages or read.skipped):
        say(Text("no passages"))
    found = [one.first_stage_score for one in read.passages if one.first_stage_score is not None]
    first_stage_scores = None if scores_field is None else found
    scorer = progressing_scorer(model, backend, device, "reranking")
    ranking = Reranker(scorer).rank(
        query,
        [passage.text for passage in read.passages],
        top_n=top_n,
        threshold=threshold,
        criteria=weights,
        first_stage_scores=first_stage_scores,
        long_text=cast(LongText, long_text),
        direction=cast(AnyDirection, direction),
        instruction=instruction,
    )
    if as_json:
        results = [_result(ranked, read.passages[ranked.index], with_text=with_text) for ranked in ranking]
        print_json({"model": scorer.info.name, "query": query, "results": results})
    else:
        print_table(_ranking_table(ranking, read.passages))
        _say_unread("passages", [one.readable for one in ranking])


def route(
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY... | -", help='"-": JSON lines on stdin, strings or {"text": ...}.')
    ],
    routes: Annotated[
        Path,
        typer.Option(help='Routes as JSON: {"name": "description", ...}, or a file of Router.save, fitted or not.'),
    ],
    multi: Annotated[bool, typer.Option("--multi", help="Allow several routes per query.")] = False,
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Choose the route for each QUERY."""
    from gliclass_rerank.tasks.routing.router import Router

    texts = _texts(queries)
    scorer = progressing_scorer(model, backend, device, "routing")
    decisions = Router.load(routes, scorer=scorer).route_many(texts, multi=multi)
    if as_json:
        results = [
            {
                "query": query,
                "name": decision.name,
                "score": decision.score,
                "names": list(decision.names),
                "abstained": decision.abstained,
                "scores": dict(decision.scores),
                "readable": decision.readable,
            }
            for query, decision in zip(texts, decisions, strict=True)
        ]
        print_json({"model": scorer.info.name, "results": results})
    else:
        print_table(_routes_table(texts, decisions))
        _say_unread("queries", [one.readable for one in decisions])


def check(
    answer: Annotated[str, typer.Argument(help='Text to check; "-" reads it from stdin.')],
    evidence: Annotated[
        list[str],
        typer.Option(
            "--evidence",
            metavar="FILE...",
            help='Files (one passage each; .jsonl: one passage per line), folders, or "-" for JSON lines on stdin.',
        ),
    ],
    further: Annotated[list[str] | None, typer.Argument(metavar="[FILE...]", help="More evidence.")] = None,
    threshold: Annotated[float, typer.Option(help="Minimum support of a supported claim, in [0, 1].")] = 0.5,
    refute_threshold: Annotated[float, typer.Option(help="Minimum refutation of a refuted claim, in [0, 1].")] = 0.5,
    only_claims: Annotated[bool, typer.Option("--only-claims", help="Skip sentences without a claim.")] = False,
    filtered: Annotated[
        bool, typer.Option("--filter", help="Print the answer without the claims that are not supported.")
    ] = False,
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Check each sentence of ANSWER against the evidence: supported, refuted, or not enough information."""
    from gliclass_rerank.passage_files import read_sources
    from gliclass_rerank.tasks.fact_check.checker import FactChecker

    names = [*evidence, *(further or ())]
    if answer == STDIN:
        if STDIN in names:
            raise OptionError('"-": expected for the answer or for the evidence, got it for both; put one into a file')
        answer = sys.stdin.read()
    read = read_sources(names, sys.stdin.buffer)
    _report_skipped(read)
    scorer = progressing_scorer(model, backend, device, "checking")
    checker = FactChecker(scorer, threshold=threshold, refute_threshold=refute_threshold, only_claims=only_claims)
    passages = [passage.text for passage in read.passages]
    if filtered:
        kept = checker.filter(answer, passages)
        print_json({"model": scorer.info.name, "answer": kept}) if as_json else typer.echo(kept)
        return
    report = checker.check(answer, passages)
    if as_json:
        print_json({"model": scorer.info.name} | _report(report, read.passages))
    else:
        print_table(_claims_table(report, read.passages))
        _say_unread("claims", [one.readable for one in report.claims])


def classify(
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT... | -", help='"-": JSON lines on stdin, strings or {"text": ...}.')
    ],
    labels: Annotated[str, typer.Option(help="Labels, comma-separated, or a JSON file: a list or nested objects.")],
    single: Annotated[bool, typer.Option("--single", help="Choose exactly one label.")] = False,
    threshold: Annotated[float, typer.Option(help="Minimum probability of a label, in [0, 1].")] = 0.5,
    prompt: Annotated[str | None, typer.Option(help="A task description in front of the text.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Maximum number of labels.")] = None,
    aggregate: Annotated[str, typer.Option(help="How to combine windows: max, mean or first.")] = "max",
    long_text: Annotated[str, typer.Option(help="Handling of overlong texts: window, truncate or error.")] = "window",
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Choose the labels of each TEXT."""
    from gliclass_rerank.tasks.classify import Aggregate, Classifier
    from gliclass_rerank.types import LongText

    read, known = _texts(texts), _labels(labels)
    scorer = progressing_scorer(model, backend, device, "classifying")
    results = Classifier(scorer).classify(
        read,
        known,
        multi_label=not single,
        threshold=threshold,
        prompt=prompt,
        top_k=top_k,
        hierarchical=isinstance(known, dict),
        aggregate=cast(Aggregate, aggregate),
        long_text=cast(LongText, long_text),
    )
    if as_json:
        found = [_classified(*pair) for pair in zip(read, results, strict=True)]
        print_json({"model": scorer.info.name, "results": found})
    else:
        print_table(_labels_table(read, results))
        _say_unread("texts", [one.readable for one in results])


def decide(
    state: Annotated[
        str,
        typer.Argument(help='Text, or a JSON object or array; a file of either (JSON: named .json); "-" for stdin.'),
    ],
    questions: Annotated[
        Path,
        typer.Option(
            help='Questions as JSON: {"name": {"type": "noul" | "choice" | "score", "instructions": ..., "criteria": '
            "...}, ...}."
        ),
    ],
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Answer typed questions about STATE: yes or no, one of several options, or a level."""
    from gliclass_rerank.tasks.decide.decider import Decider
    from gliclass_rerank.tasks.decide.questions import read_questions

    asked, about = read_questions(_json(questions, "questions")), _state(state)
    scorer = progressing_scorer(model, backend, device, "deciding")
    answers = Decider(scorer).decide(about, asked)
    if as_json:
        told = {name: answer.as_dict() | {"readable": answer.readable} for name, answer in answers.items()}
        print_json({"model": scorer.info.name, "answers": told})
    else:
        print_table(_answers_table(answers))
        _say_unread("answers", [one.readable for one in answers.values()])


def _texts(arguments: Sequence[str]) -> list[str]:
    """Texts of the command line, with "-" replaced by those on stdin."""
    from gliclass_rerank.passage_files import check_stdin_once, read_lines

    check_stdin_once(arguments)
    texts: list[str] = []
    for argument in arguments:
        texts += [line.text for line in read_lines(sys.stdin.buffer)] if argument == STDIN else [argument]
    return texts


def _labels(option: str) -> Any:
    """Read comma-separated labels, or those of a JSON file, which `Classifier` validates."""
    file = Path(option)
    if file.suffix != ".json":
        return _distinct(_named(option.split(",")))
    labels = _json(file, "labels")
    return _distinct(labels) if isinstance(labels, list) else labels


def _json(file: Path, what: str) -> Any:
    """Read a JSON file. ``what`` names it in errors."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{what}: {file}: not readable as JSON: {error}") from error


def _state(argument: str) -> Any:
    """The state of an argument: a text, or the JSON object or array that it holds or names."""
    text = argument
    if argument == STDIN:
        text = sys.stdin.read()
    elif len(argument) < LONGEST_NAME and "\n" not in argument and Path(argument).is_file():
        if Path(argument).suffix == ".json":
            return _json(Path(argument), "state")
        try:
            return Path(argument).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"state: {argument}: cannot be read: {error}") from error
    if text.lstrip().startswith(("{", "[")):
        with suppress(ValueError, RecursionError):  # a text that begins like JSON
            return json.loads(text)
    return text


def _named(labels: Sequence[str]) -> list[str]:
    named = [label.strip() for label in labels]
    if not all(named):
        raise InputError(f"labels: expected text between the commas, got none at position {named.index('') + 1}")
    return named


def _distinct(labels: list[Any]) -> list[Any]:
    """Return the labels unchanged. Raise `InputError` for duplicates, a likely typing error."""
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise InputError(f"labels: expected each once, got {label!r:.60} twice")
    return labels


def _weights(criteria: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for item in criteria:
        name, _, number = item.rpartition("=")
        name = name.strip()
        try:
            weight = float(number)
        except ValueError:
            name = ""
        if not name:
            raise OptionError(f"criteria: expected NAME=WEIGHT, such as 'contains code=0.5', got {item!r}")
        if name in weights:
            raise OptionError(f"criteria: expected each once, got {name!r:.60} twice")
        weights[name] = weight
    return weights


def _report_skipped(read: Sources) -> None:
    if read.skipped:
        say(Text(f"{len(read.passages)} passages; {len(read.skipped)} files skipped, the first is {read.skipped[0]}"))


def _say_unread(what: str, readable: Sequence[bool]) -> None:
    """Print how many scores are meaningless because the model's vocabulary lacks the words, if any."""
    if unread := readable.count(False):
        told = "the model knows no words of the text, or of what it was compared with"
        say(f"{unread} of {len(readable)} {what} have meaningless scores: {told}")


def _result(ranked: Ranked, passage: SourcedPassage, *, with_text: bool) -> dict[str, object]:
    result: dict[str, object] = {"index": ranked.index, "source": passage.source}
    if passage.id is not None:
        result["id"] = passage.id
    result |= {"score": ranked.score, "logit": ranked.logit, "window": ranked.window, "truncated": ranked.truncated}
    result["readable"] = ranked.readable
    if ranked.criteria:
        result["criteria"] = dict(ranked.criteria)
    if with_text:
        result["text"] = passage.text
    return result


def _ranking_table(ranking: Sequence[Ranked], passages: Sequence[SourcedPassage]) -> Table:
    table = new_table(figures("rank"), figures("score"), names("source"), texts("passage"))
    for rank, ranked in enumerate(ranking, 1):
        passage = passages[ranked.index]
        source = passage.source if passage.id is None else str(passage.id)
        table.add_row(str(rank), f"{ranked.score:.3f}", Text(printable(source)), _snippet(ranked, passage.text))
    return table


def _snippet(ranked: Ranked, text: str) -> Text:
    """Beginning of the best window, or of the passage."""
    start, end = ranked.window or (0, len(text))
    lead = "... " if start else ""
    return one_line(lead + text[start : min(end, start + SNIPPET_CHARACTERS)])


def _routes_table(queries: Sequence[str], decisions: Sequence[RouteDecision]) -> Table:
    table = new_table(names("route"), figures("score"), names("others"), names("query"))
    for query, decision in zip(queries, decisions, strict=True):
        chosen = printable(", ".join(decision.names)) or "(none)"
        others = sorted(
            (name for name in decision.scores if name not in decision.names), key=decision.scores.__getitem__
        )
        told = ", ".join(f"{name} {decision.scores[name]:.3f}" for name in others[:-4:-1])
        style = "yellow" if decision.abstained else ""
        table.add_row(Text(chosen, style), f"{decision.score:.3f}", Text(printable(told)), one_line(query))
    return table


def _report(report: FactReport, passages: Sequence[SourcedPassage]) -> dict[str, object]:
    claims = [
        {
            "text": claim.text,
            "start": claim.start,
            "end": claim.end,
            "verdict": claim.verdict,
            "support": claim.support,
            "refute": claim.refute,
            "evidence": claim.evidence,
            "source": passages[claim.evidence].source,
            "window": claim.window,
            "readable": claim.readable,
        }
        for claim in report.claims
    ]
    return {"supported": report.supported, "passed": report.passed, "claims": claims}


def _claims_table(report: FactReport, passages: Sequence[SourcedPassage]) -> Table:
    columns = names("verdict"), figures("support"), figures("refute"), names("evidence"), names("claim")
    table = new_table(*columns, caption=f"{report.supported:.0%} of the claims are supported")
    for claim in report.claims:
        source = Text(printable(passages[claim.evidence].source))
        verdict = Text(claim.verdict.replace("_", " "), STYLES[claim.verdict])
        table.add_row(verdict, f"{claim.support:.3f}", f"{claim.refute:.3f}", source, Text(printable(claim.text)))
    return table


def _classified(text: str, found: Classification) -> dict[str, object]:
    labels = [{"label": one.label, "score": one.score, "window": one.window} for one in found.labels]
    result: dict[str, object] = {"text": text, "labels": labels, "scores": list(found.scores)}
    result |= {"truncated": found.truncated, "readable": found.readable}
    return result | ({} if found.tree is None else {"tree": found.tree})


def _labels_table(texts: Sequence[str], results: Sequence[Classification]) -> Table:
    table = new_table(names("labels"), names("text"))
    for text, result in zip(texts, results, strict=True):
        told = ", ".join(f"{one.label} {one.score:.3f}" for one in result.labels) or "(none)"
        table.add_row(Text(printable(told)), one_line(text))
    return table


def _answers_table(answers: Mapping[str, Answer]) -> Table:
    table = new_table(names("question"), names("answer"), figures("probability"), names("others"))
    for name, answer in answers.items():
        chosen, shares = _shares(answer)
        likeliest, *others = sorted(shares.items(), key=lambda item: -item[1])
        told = ", ".join(f"{printable(option)} {share:.3f}" for option, share in others[:3])
        table.add_row(Text(printable(name)), Text(printable(chosen)), f"{likeliest[1]:.3f}", Text(told))
    return table


def _shares(answer: Answer) -> tuple[str, dict[str, float]]:
    """The answer in words, and the probabilities of all answers."""
    told: dict[str, Any] = answer.as_dict()
    if told["type"] == "noul":
        yes = told["noul"]
        return "yes" if yes >= 0.5 else "no", {"yes": yes, "no": 1 - yes}
    if told["type"] == "choice":
        return told["choice"], told["probabilities"]
    levels = told["legend"]
    return f"{told['score']:.2f}", {f"{i} ({levels[i]})": share for i, share in told["probabilities"].items()}
