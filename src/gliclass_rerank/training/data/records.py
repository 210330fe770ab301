"""Training and evaluation records: five formats of JSON lines, validated when they are read.

    {"text", "all_labels", "true_labels", "prompt"?, "examples"?, "scores"?}   upstream gliclass's own format
    {"query", "positive", "negatives"?, "scores"?}                             ranking
    {"queries", "passages", "relevance", "scores"?}                            several queries over the same passages
    {"premise", "hypothesis", "label"}                                         fact-check
    {"text"}                                                                   a text to learn the vector of

``true_labels`` is a list, or a mapping from label to weight in [0, 1]. ``scores`` are a teacher's logits, one per
label, or for the positive passages and then the negative ones. ``relevance`` has one row per query: a weight in [0, 1]
for each passage, or null for a query without judgments. ``scores`` then have the same rows. Files may be compressed
(.gz). Upstream's files, one JSON array each, are read as well.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gliclass_rerank.errors import InputError
from gliclass_rerank.tasks.fact_check.claims import Verdict
from gliclass_rerank.types import Example
from gliclass_rerank.validation import check_text

VERDICTS: Mapping[str, Verdict] = {
    "supported": "supported", "supports": "supported", "entailment": "supported",
    "refuted": "refuted", "refutes": "refuted", "contradiction": "refuted",
    "nei": "not_enough_info", "not_enough_info": "not_enough_info", "not enough info": "not_enough_info",
    "neutral": "not_enough_info",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """A text, the labels it is judged against, and each label's target in [0, 1].

    ``weights``: the targets, one per label. ``scores``: a teacher's logits, one per label, or empty.
    """

    text: str
    labels: tuple[str, ...]
    weights: tuple[float, ...]
    prompt: str = ""
    examples: tuple[Example, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RankingRecord:
    """A query, passages that answer it, and passages that do not.

    ``scores``: a teacher's logits of the positive and then the negative passages, or empty.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def passages(self) -> tuple[str, ...]:
        """All passages, the positive ones first."""
        return self.positives + self.negatives


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """Several queries over the same passages. Each passage is read once for all queries.

    ``relevance``: in [0, 1], one row per query with one number per passage, None for a query without judgments.
    ``scores``: a teacher's logits, rows of the same shape, or empty.
    """

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    relevance: tuple[tuple[float, ...] | None, ...]
    scores: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class FactRecord:
    """A claim (hypothesis), its evidence (premise), and the gold verdict."""

    premise: str
    hypothesis: str
    label: Verdict


@dataclass(frozen=True, slots=True)
class TextRecord:
    """A text whose vector is learned from a teacher's (``vectors`` of the configuration)."""

    text: str


Record = LabelRecord | RankingRecord | PoolRecord | FactRecord | TextRecord


def read_records(file: Path) -> list[Record]:
    """Read and validate all records of a file. Kinds may be mixed.

    Raises:
        InputError: the file cannot be read or is empty, or a record is malformed. File and line are named.
    """
    records = [parse_record(value, where) for value, where in _values(file)]
    if not records:
        raise InputError(f"{file}: expected at least one record, found none")
    return records


def parse_record(value: object, where: str) -> Record:
    """Validate one record. ``where`` is its location in error messages."""
    try:
        if not isinstance(value, dict):
            raise InputError(f"expected a JSON object, got {type(value).__name__}")
        if "query" in value:
            return _ranking(value)
        if "queries" in value:
            return _pool(value)
        if "premise" in value:
            return _fact(value)
        if value.keys() == {"text"}:
            return TextRecord(_text(value, "text"))
        if "text" in value:
            return _labels(value)
        raise InputError(
            f'expected "text", "query", "queries" or "premise", got the fields {", ".join(value) or "(none)"}'
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def as_dict(record: RankingRecord) -> dict[str, Any]:
    """Return a ranking record as the JSON object of a line."""
    value: dict[str, Any] = {
        "query": record.query,
        "positive": record.positives[0] if len(record.positives) == 1 else list(record.positives),
        "negatives": list(record.negatives),
    }
    return value | ({"scores": list(record.scores)} if record.scores else {})


def _values(file: Path) -> Iterator[tuple[object, str]]:
    try:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    if text.lstrip().startswith("["):
        for i, value in enumerate(_parsed(text, str(file))):
            yield value, f"{file}, record {i + 1}"
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(line, f"{file}, line {number}"), f"{file}, line {number}"


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not readable as JSON: {error}") from error


def _ranking(value: Mapping[str, Any]) -> RankingRecord:
    positive = value.get("positive")
    positives = _texts([positive] if isinstance(positive, str) else positive, "positive")
    negatives = _texts(value.get("negatives") or [], "negatives", at_least=0)
    scores = _numbers(value.get("scores"), len(positives) + len(negatives), "scores, one for each passage")
    return RankingRecord(_text(value, "query"), positives, negatives, scores)


def _pool(value: Mapping[str, Any]) -> PoolRecord:
    queries, passages = _texts(value.get("queries"), "queries"), _texts(value.get("passages"), "passages")
    judged = _rows(value.get("relevance"), len(queries), "relevance")
    relevance = tuple(None if row is None else _numbers(row, len(passages), "relevance") for row in judged)
    if any(not 0 <= weight <= 1 for row in relevance for weight in row or ()):
        raise InputError('"relevance": expected weights in [0, 1]')
    if "scores" not in value:
        if None in relevance:
            raise InputError('"relevance": null needs a teacher\'s "scores", without them the query teaches nothing')
        return PoolRecord(queries, passages, relevance)
    rows = _rows(value["scores"], len(queries), "scores")
    scores = tuple(_numbers(row if row is not None else [], len(passages), "scores") for row in rows)
    return PoolRecord(queries, passages, relevance, scores)


def _rows(value: object, count: int, field: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise InputError(f'"{field}": expected {count} rows, one for each query, got {value!r:.60}')
    return value


def _fact(value: Mapping[str, Any]) -> FactRecord:
    label = value.get("label")
    verdict = VERDICTS.get(label.lower()) if isinstance(label, str) else None
    if verdict is None:
        raise InputError(f'"label": expected {", ".join(get_args(Verdict))}, got {label!r}')
    return FactRecord(_text(value, "premise"), _text(value, "hypothesis"), verdict)


def _labels(value: Mapping[str, Any]) -> LabelRecord:
    labels = _texts(value.get("all_labels"), "all_labels")
    true = value.get("true_labels")
    if isinstance(true, list):
        true = dict.fromkeys(_texts(true, "true_labels", at_least=0), 1.0)
    if not isinstance(true, dict):
        raise InputError(f'"true_labels": expected a list, or an object of weights, got {type(true).__name__}')
    if strangers := [label for label in true if label not in labels]:
        raise InputError(f'"true_labels": {strangers[0]!r} is not among "all_labels"')
    weights = _numbers([true.get(label, 0.0) for label in labels], len(labels), "true_labels")
    if any(not 0 <= weight <= 1 for weight in weights):
        raise InputError(f'"true_labels": expected weights in [0, 1], got {true!r:.80}')
    prompt = value.get("prompt") or ""
    check_text(prompt, "prompt", may_be_empty=True)
    scores = _numbers(value.get("scores"), len(labels), "scores, one for each label")
    return LabelRecord(_text(value, "text"), labels, weights, prompt, _examples(value.get("examples") or []), scores)


def _examples(value: object) -> tuple[Example, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError('"examples": expected a list of {"text", "labels"}')
    for item in value:
        if "labels" not in item and "true_labels" not in item:
            raise InputError('"examples": expected {"text", "labels"}, one has no "labels"')
    return tuple(Example(_text(item, "text"), tuple(item.get("labels", item.get("true_labels")))) for item in value)


def _text(value: Mapping[str, Any], field: str) -> str:
    if field not in value:
        raise InputError(f'"{field}" is missing')
    text = value[field]
    check_text(text, f'"{field}"')
    return str(text)


def _texts(value: object, field: str, *, at_least: int = 1) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < at_least:
        raise InputError(f'"{field}": expected a list of at least {at_least} texts, got {value!r:.60}')
    for text in value:
        check_text(text, f'"{field}"')
    return tuple(value)


def _numbers(value: Sequence[Any] | None, count: int, what: str) -> tuple[float, ...]:
    if value is None:
        return ()
    fine = isinstance(value, list) and len(value) == count
    if not fine or not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value):
        raise InputError(f'"{what}": expected {count} finite numbers, got {value!r:.80}')
    return tuple(float(x) for x in value)
