"""Parse typed and uploaded input into the tasks' types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from gliclass_rerank.errors import InputError
from gliclass_rerank.passage_files import SourcedPassage, read_content
from gliclass_rerank.tasks.decide.questions import Choice, Noul, Question, Score, read_questions
from gliclass_rerank.tasks.decide.state import Json
from gliclass_rerank.tasks.nested_labels import DEEPEST, Labels
from gliclass_rerank.tasks.routing.router import Route
from gliclass_rerank.validation import is_blank

BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
TAB_WIDTH = 4
LOWER_THAN = "<"
"""Sign between the levels of a scale."""


def read_passages(typed: str, uploads: Iterable[tuple[str, bytes]] = ()) -> list[SourcedPassage]:
    """Read typed passages, separated by blank lines, and then those of files.

    Args:
        typed: any text, may be empty.
        uploads: name and content of each file: JSON lines with one passage each, or a text that is one passage.

    Raises:
        InputError: no passage at all, or a file that is empty, not UTF-8, or has a line that is not a passage.
    """
    parts = [part.strip() for part in BLANK_LINE.split(typed.replace("\r\n", "\n"))]
    passages = [SourcedPassage(part, "") for part in parts if not is_blank(part)]
    for name, content in uploads:
        passages += read_content(name, content)
    if not passages:
        raise InputError("expected at least one passage, got none; separate passages by blank lines")
    return passages


def read_routes(typed: str) -> list[Route]:
    """Read routes, one per line, ``name: description``, each followed by indented example queries.

    Raises:
        InputError: a line that begins with a colon, an example above all routes.
    """
    routes: list[Route] = []
    for name_and_description, examples in _groups(_indented(typed)):
        name, _, description = name_and_description.partition(":")
        if not name.strip():
            raise InputError(f"routes: expected a name before the colon, got {name_and_description!r:.60}")
        routes.append(Route(name.strip(), description.strip(), tuple(text for _, text in examples)))
    return routes


def read_labels(typed: str) -> Labels:
    """Read labels, one per line: a list, or nested mappings if some are indented.

    Raises:
        InputError: a label beside groups of labels, a group twice, more levels than labels may have.
    """
    rows = _indented(typed)
    if len({indent for indent, _ in rows}) > DEEPEST:
        raise InputError(f"labels: expected at most {DEEPEST} levels of indentation")
    return _nested(rows)


def read_state(typed: str) -> Json:
    """Read a JSON object or array, or any other text as it is."""
    if typed.lstrip().startswith(("{", "[")):
        with suppress(ValueError, RecursionError):  # a text that begins like JSON
            value: Json = json.loads(typed)
            return value
    return typed


def read_decisions(typed: str) -> dict[str, Question]:
    """Read questions by name: JSON as of `read_questions`, or one per line, which is its own name.

    Indented lines below a question are its options, ``name: description``, and a single one with "<" is a scale from
    low to high. A question without any is answered by yes or no.

    Raises:
        InputError: a question or an option twice, an option or level without a name, JSON that is no questions.
    """
    if typed.lstrip().startswith("{"):
        try:
            value = json.loads(typed)
        except (ValueError, RecursionError) as error:
            raise InputError(f"questions: not readable as JSON: {error}; or write one question per line") from error
        return read_questions(value)
    groups = list(_groups(_indented(typed)))
    _refuse_twice([asked for asked, _ in groups], "questions: expected each", "leave one out")
    read: dict[str, Question] = {}
    for asked, below in groups:
        try:
            read[asked] = _question(asked, [text for _, text in below])
        except InputError as error:
            raise InputError(f"question {asked!r:.60}: {error}") from error
    return read


def _question(asked: str, below: Sequence[str]) -> Question:
    if not below:
        return Noul(asked)
    if len(below) == 1 and LOWER_THAN in below[0]:
        return Score(asked, [level.strip() for level in below[0].split(LOWER_THAN)])
    options = [(name.strip(), about.strip() or None) for name, _, about in (line.partition(":") for line in below)]
    _refuse_twice([name for name, _ in options], "options: expected each", "leave one out")
    return Choice(asked, dict(options))


def _refuse_twice(names: Sequence[str], expected: str, remedy: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{expected} once, got {twice!r:.60} twice; {remedy}")


def read_lines_of(typed: str) -> list[str]:
    """Return the non-blank lines, stripped."""
    return [text for _, text in _indented(typed)]


Rows = list[tuple[int, str]]
"""Lines with their indentation in columns."""


def _indented(typed: str) -> Rows:
    lines = [line.expandtabs(TAB_WIDTH) for line in typed.splitlines() if not is_blank(line)]
    return [(len(line) - len(line.lstrip()), line.strip()) for line in lines]


def _groups(rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Yield each row of the outermost level with the rows that are indented below it."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end][0] <= rows[start][0]:
            yield rows[start][1], rows[start + 1 : end]
            start = end


def _nested(rows: Rows) -> Labels:
    groups = list(_groups(rows))
    alone = [name for name, below in groups if not below]
    if len(alone) == len(groups):
        return alone
    if alone:
        raise InputError(
            f"labels: expected labels below {alone[0]!r:.60}, as below its neighbours, got none; "
            "indent some below it, or put it below another"
        )
    _refuse_twice([name for name, _ in groups], "labels: expected each group", "put their labels together")
    return {name: _nested(below) for name, below in groups}
