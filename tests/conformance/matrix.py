"""Results of the clients: compared with the library, written as JSON and as a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from asked import DOCUMENTS, QUERY

from gliclass_rerank import Decider, Ranked, Reranker
from gliclass_rerank.scoring import embed
from gliclass_rerank.tasks.decide.questions import read_questions
from gliclass_rerank.tasks.fact_check.sentences import split_sentences

TOLERANCE = 1e-6
BEGIN, END = "<!-- clients -->", "<!-- /clients -->"


@dataclass(frozen=True, slots=True)
class Row:
    """Results of one client.

    Attributes:
        versions: versions of its distributions.
        setup: code that its users write.
        calls: HTTP routes that it called.
        rankings: names of the requests whose rankings, vectors or answers were compared.
        difference: largest difference between a score, cosine or probability over HTTP and the library's.
        refusals: error that its user sees, by case.
        problems: failures; empty if the client works.
        kind: "ranking", "vectors" or "decisions".
    """

    client: str
    versions: dict[str, str]
    setup: str
    calls: list[str]
    rankings: list[str]
    difference: float
    refusals: dict[str, str]
    problems: list[str]
    kind: str = "ranking"


class Judge:
    """Compares rankings, vectors and answers with those of the library."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self._expected = reranker.rank(QUERY, DOCUMENTS)

    def row(self, report: dict[str, Any]) -> Row:
        """Check the report of a script."""
        problems, differences = list(report["problems"]), [0.0]
        kind = report.get("kind", "ranking")
        every = self._wanted(report) if report["rankings"] else self._expected
        for name, hits in report["rankings"].items():
            expected = every[: _count(name)]
            problems += [f"{name}: {problem}" for problem in self._problems(hits, expected)]
            differences += [abs(hit["score"] - one.score) for hit, one in zip(hits, expected, strict=False)]
        if max(differences) > TOLERANCE:
            problems.append(f"scores differ by up to {max(differences):g}")
        return Row(
            report["client"], report["versions"], report["setup"], report["calls"], list(report["rankings"]),
            max(differences), report["refusals"], problems, kind,
        )  # fmt: skip

    def _wanted(self, report: dict[str, Any]) -> Sequence[Ranked]:
        if report.get("kind") == "decisions":
            return self._answers(report["asked"])
        return self._cosines() if report.get("kind") == "vectors" else self._expected

    def _answers(self, asked: dict[str, Any]) -> list[Ranked]:
        """Probabilities of all possible answers, of a body in the form of `/v1/systemone`."""
        answers = Decider(self._reranker.scorer).decide(asked["state"], read_questions(asked["questions"]))
        told = [answer.as_dict() for answer in answers.values()]
        shares = [share for one in told for share in probabilities(one)]
        return [Ranked(i, share, 0.0) for i, share in enumerate(shares)]

    def _cosines(self) -> list[Ranked]:
        """Cosines of the query and the documents in Latin script, in the order of the documents."""
        places = [i for i, text in enumerate(DOCUMENTS) if text[0].isascii()]
        query, *vectors = embed(self._reranker.scorer, [QUERY, *(DOCUMENTS[i] for i in places)]).astype(float)
        return [Ranked(i, float(query @ vector), 0.0) for i, vector in zip(places, vectors, strict=True)]

    def _problems(self, hits: Sequence[dict[str, Any]], expected: Sequence[Ranked]) -> list[str]:
        got, wanted = [hit["index"] for hit in hits], [one.index for one in expected]
        if got != wanted:
            return [f"expected the order {wanted}, got {got}"]
        texts = [hit for hit in hits if hit["text"] is not None and hit["text"] != DOCUMENTS[hit["index"]]]
        problems = [f"document {hit['index']}: expected its text, got {hit['text']!r:.80}" for hit in texts]
        for hit in hits:
            if hit["spans"] is not None:
                problems += self._span_problems(DOCUMENTS[hit["index"]], hit["spans"])
        return problems

    def _span_problems(self, document: str, spans: Sequence[tuple[int, int, float]]) -> list[str]:
        """Check that the spans are the document's two best sentences, scored as passages."""
        sentences = [document[one.start : one.end] for one in split_sentences(document)]
        best = self._reranker.rank(QUERY, sentences, top_n=min(2, len(sentences)))
        expected = [(sentences[one.index], one.score) for one in best]
        got = [(document[start:end], score) for start, end, score in spans]
        same = [text for text, _ in got] == [text for text, _ in expected] and all(
            abs(one - other) <= TOLERANCE for (_, one), (_, other) in zip(got, expected, strict=True)
        )
        return [] if same else [f"expected the spans {expected}, got {got}"]


def probabilities(answer: dict[str, Any]) -> list[float]:
    """Probabilities of an answer in the form of `/v1/systemone`: of yes, or of each option or level."""
    return [answer["noul"]] if answer["type"] == "noul" else list(answer["probabilities"].values())


def _count(ranking: str) -> int:
    """Return the length of a ranking by its name: "top 3", or all documents."""
    return int(ranking.removeprefix("top ")) if ranking.startswith("top ") else len(DOCUMENTS)


def table(rows: Sequence[Row], date: str) -> str:
    """Format the rows in Markdown: a table of installed clients, and a sentence on plain HTTP requests."""
    lines = ["| client | set up with | calls | wrong key | busy (429) |", "|---|---|---|---|---|"]
    for row in rows:
        if row.versions:
            versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
            refusals = [_refusal(row.refusals.get(case)) for case in ("wrong key", "busy")]
            told = [f"{row.client}<br>{versions}", f"`{row.setup}`", _calls(row), *refusals]
            lines.append(f"| {' | '.join(told)} |")
    plain = ", ".join(f"{row.client} ({_calls(row)})" for row in rows if not row.versions)
    difference = max((row.difference for row in rows if row.kind == "ranking"), default=0.0)
    kinds = {row.kind for row in rows}
    scores = f"scores within {difference:.0e} of the library's" if difference else "the same scores"
    received = "Each reranker received" if len(kinds) > 1 else "Each received"
    lines += [
        "",
        f"`make conformance` ran these clients on {date}. {received} the library's order of {len(DOCUMENTS)} "
        f"passages and\n{scores}. Some of the passages are equal and some are long. The last two columns show the "
        "error that\nthe user of the client sees. Errors such as `KeyError` come from clients that ignore the HTTP "
        "status.",
        "",
        *(["Clients of embeddings received the library's vectors.", ""] if "vectors" in kinds else []),
        *(["Clients of decisions received the library's probabilities.", ""] if "decisions" in kinds else []),
        f"Requests in the format of other clients were sent as plain HTTP and gave the same ranking: {plain}.",
    ]
    return "\n".join(lines)


def _calls(row: Row) -> str:
    return ", ".join(f"`{call}`" for call in row.calls)


def _refusal(refusal: str | None) -> str:
    if refusal is None:
        return "sends no key"
    return refusal if " " in refusal else f"`{refusal}`"


def put_into(page: Path, text: str) -> bool:
    """Put a table between its marks; return False if the page has none."""
    old = page.read_text("utf-8")
    if BEGIN not in old or END not in old:
        return False
    page.write_text(_with_table(old, text), "utf-8")
    return True


def is_in(page: Path, text: str) -> bool:
    """Return whether this table stands between the marks."""
    old = page.read_text("utf-8")
    return BEGIN in old and END in old and _with_table(old, text) == old


def _with_table(page: str, text: str) -> str:
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


def save(path: Path, rows: Sequence[Row], about: Mapping[str, str]) -> None:
    """Write the rows and the facts about the run as JSON."""
    found = {**about, "passages": len(DOCUMENTS), "clients": [asdict(row) for row in rows]}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


def saved_table(path: Path) -> str:
    """Return the table of a file that `save` wrote."""
    found = json.loads(path.read_text("utf-8"))
    return table([Row(**one) for one in found["clients"]], found["date"])


def is_saved(path: Path, rows: Sequence[Row]) -> bool:
    """Return whether a file has these rows, differences in scores aside."""
    if not path.is_file():
        return False
    saved = [Row(**one) for one in json.loads(path.read_text("utf-8"))["clients"]]
    return [replace(row, difference=0.0) for row in saved] == [replace(row, difference=0.0) for row in rows]
