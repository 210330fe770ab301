"""Render results as HTML, without Streamlit. Every text from users or models is escaped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from gliclass_rerank.passage_files import SourcedPassage
from gliclass_rerank.tasks.decide.answers import Answer, NoulAnswer, ScoreAnswer
from gliclass_rerank.tasks.decide.state import text_of
from gliclass_rerank.tasks.fact_check.checker import ClaimVerdict
from gliclass_rerank.tasks.routing.router import RouteDecision
from gliclass_rerank.types import ModelInfo, Ranked, Span

SHOWN_CHARACTERS = 700
LEAD_CHARACTERS = 150  # shown before a span that is not at the beginning
UNREAD = "The model's vocabulary has (almost) no words of this text."
VERDICTS = {"supported": "supported", "refuted": "refuted", "not_enough_info": "not enough information"}


def problem(message: str) -> str:
    """Render an error as a box."""
    return f'<div class="gr-problem" role="alert">{escape(message)}</div>'


def model_lines(info: ModelInfo) -> str:
    """Render a model's description, and whether texts leave this machine."""
    is_remote = "://" in info.device
    length = f"{info.max_length} tokens" if info.max_length else "length unknown"
    lines = [
        f"{info.name}, {info.dtype}" if is_remote else f"{info.name}: {info.backend}, {info.dtype}, {info.device}",
        f"{length}, {'calibrated' if info.calibrated else 'not calibrated'}",
        f"Texts are sent to {info.device}." if is_remote else "Texts stay on this machine.",
    ]
    return f'<div class="gr-source">{"<br>".join(map(escape, lines))}</div>'


def ranking_table(passages: Sequence[SourcedPassage], ranking: Sequence[Ranked], spans: Sequence[Span]) -> str:
    """Render passages, best first, with their ranks before reranking.

    Args:
        passages: in their original order.
        ranking: passages to show, with ranks from 1 on.
        spans: highlighted span of each.
    """
    rows = [
        f'<tr><td class="gr-rank">{rank}</td><td class="gr-move">{_move(hit.index + 1, rank)}</td>'
        f'<td class="gr-score">{bar(hit.score)}</td><td>{_passage(passages[hit.index], span)}</td></tr>'
        for rank, (hit, span) in enumerate(zip(ranking, spans, strict=True), 1)
    ]
    head = "<tr><th>rank</th><th>before</th><th>score</th><th>passage</th></tr>"
    return f'<table class="gr-table gr-ranking"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def decision_block(query: str, decision: RouteDecision, threshold: float) -> str:
    """Render the chosen routes of a query and the probability of each route."""
    chips = "".join(f'<span class="gr-chip gr-chosen">{escape(name)}</span>' for name in decision.names)
    chips = chips or '<span class="gr-chip gr-none">no route</span>'
    rows = [(name, score, name in decision.names) for name, score in decision.scores.items()]
    return (
        f'<section class="gr-decision"><header><span class="gr-query">{escape(query)}</span>'
        f"{chips}</header>{_bars(rows, threshold)}</section>"
    )


def answer_block(name: str, answer: Answer) -> str:
    """Render a question's answer, the probability of each possible one, and what else the answer tells."""
    if isinstance(answer, NoulAnswer):
        chosen, shares, told = int(answer.probability < 0.5), {"yes": answer.probability}, ""
        shares["no"] = 1 - answer.probability
    elif isinstance(answer, ScoreAnswer):
        chosen = answer.probabilities.index(max(answer.probabilities))
        levels = (f"{i}: {text_of(level, 'level')}" for i, level in enumerate(answer.legend))
        shares = dict(zip(levels, answer.probabilities, strict=True))
        told = f"Score {answer.score:.2f} of {len(shares) - 1}, confidence {answer.confidence:.3f}"
    else:
        chosen, shares = list(answer.probabilities).index(answer.choice), dict(answer.probabilities)
        told = f"Confidence {answer.confidence:.3f}"
    rows = [(option, share, place == chosen) for place, (option, share) in enumerate(shares.items())]
    notes = [told] * bool(told) + [UNREAD] * (not answer.readable)
    return (
        f'<section class="gr-decision"><header><span class="gr-query">{escape(name)}</span>'
        f'<span class="gr-chip gr-chosen">{escape(rows[chosen][0])}</span></header>'
        f'{_bars(rows, None)}<div class="gr-source">{"<br>".join(map(escape, notes))}</div></section>'
    )


def labels_table(
    paths: Sequence[tuple[str, ...]], scores: Sequence[float], chosen: Collection[int], threshold: float | None
) -> str:
    """Render labels under their groups, with their probabilities.

    Args:
        paths: the groups above each label, and the label.
        scores: in [0, 1], one per label.
        chosen: indices of the chosen labels.
        threshold: shown as a tick, if given.
    """
    parts, rows, above = [], list[tuple[str, float, bool]](), paths[0][:-1]
    for place, (path, score) in enumerate(zip(paths, scores, strict=True)):
        if path[:-1] != above:
            parts.append(_group(above, rows, threshold))
            above, rows = path[:-1], []
        rows.append((path[-1], score, place in chosen))
    return "".join([*parts, _group(above, rows, threshold)])


def claim_panel(claim: ClaimVerdict, evidence: SourcedPassage) -> str:
    """Render one claim: its verdict, and the deciding evidence, cut to the deciding window in long passages."""
    start, end = claim.window or (0, len(evidence.text))
    shown = ("… " if start else "") + escape(evidence.text[start:end]) + (" …" if end < len(evidence.text) else "")
    source = f"Evidence {claim.evidence + 1}" + (f", {evidence.source}" if evidence.source else "")
    rows = [
        ("support", claim.support, claim.verdict == "supported"),
        ("refute", claim.refute, claim.verdict == "refuted"),
    ]
    return (
        f'<section class="gr-claim"><header><span class="gr-query">{escape(claim.text)}</span>'
        f'<span class="gr-chip gr-{claim.verdict}">{VERDICTS[claim.verdict]}</span></header>'
        f'{_bars(rows, None)}<div class="gr-source">{escape(source)}</div>'
        f'<blockquote class="gr-text">{shown}</blockquote></section>'
    )


def bar(probability: float, threshold: float | None = None) -> str:
    """Render a probability in [0, 1] as a bar and a number, with a tick at the threshold."""
    tick = "" if threshold is None else f'<b style="left:{threshold:.1%}"></b>'
    return f'<div class="gr-bar"><i style="width:{probability:.1%}"></i>{tick}</div><span>{probability:.3f}</span>'


def excerpt(text: str, span: Span) -> Span:
    """Span of a passage to show: all of a short one, the surroundings of ``span`` in a long one."""
    if len(text) <= SHOWN_CHARACTERS:
        return 0, len(text)
    start = max(0, min(span[0] - LEAD_CHARACTERS, len(text) - SHOWN_CHARACTERS))
    return start, min(len(text), start + SHOWN_CHARACTERS)


def _move(before: int, after: int) -> str:
    if before == after:
        return f"{before}"
    way, arrow = ("gr-up", "↑") if after < before else ("gr-down", "↓")
    return f'{before} <span class="{way}">{arrow}</span>'


def _passage(passage: SourcedPassage, span: Span) -> str:
    source = f'<div class="gr-source">{escape(passage.source)}</div>' if passage.source else ""
    return f'{source}<div class="gr-text">{_marked(passage.text, span)}</div>'


def _marked(text: str, span: Span) -> str:
    """Render a text, or an excerpt around a span, with that span highlighted."""
    first, last = excerpt(text, span)
    start, end = max(span[0], first), min(span[1], last)
    before = ("… " if first else "") + escape(text[first:start])
    after = escape(text[end:last]) + (" …" if last < len(text) else "")
    return f"{before}<mark>{escape(text[start:end])}</mark>{after}"


def _bars(rows: Sequence[tuple[str, float, bool]], threshold: float | None) -> str:
    """Render rows of name, probability, and whether the row is chosen."""
    cells = [
        f'<tr class="{"gr-chosen" if chosen else ""}"><th scope="row">{escape(name)}</th>'
        f'<td class="gr-score">{bar(score, threshold)}</td></tr>'
        for name, score, chosen in rows
    ]
    return f'<table class="gr-table gr-bars"><tbody>{"".join(cells)}</tbody></table>'


def _group(above: Sequence[str], rows: Sequence[tuple[str, float, bool]], threshold: float | None) -> str:
    title = f'<div class="gr-group">{escape(" › ".join(above))}</div>' if above else ""
    return title + _bars(rows, threshold)
