"""Passages from files, folders and JSON lines, for the command line and the playground."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from gliclass_rerank.errors import InputError, OptionError
from gliclass_rerank.validation import check_number, check_text

STDIN = "-"
JSON_LINES = frozenset({".jsonl", ".ndjson"})
# Suffixes of text files in a folder. A file given by its own name is read with any suffix.
TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".py"})


@dataclass(frozen=True, slots=True)
class SourcedPassage:
    """A passage and its source.

    Attributes:
        text: the text to rank.
        source: a path, or "line 3" of standard input.
        id: the "id" of a JSON line, else None.
        first_stage_score: the number in a JSON line's score field, else None.
    """

    text: str
    source: str
    id: str | int | None = None
    first_stage_score: float | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """The passages, and a line with the reason for each skipped file of a folder."""

    passages: tuple[SourcedPassage, ...]
    skipped: tuple[str, ...]


def read_sources(names: Sequence[str], stdin: BinaryIO, *, scores_field: str | None = None) -> Sources:
    """Read files, folders (every text file in them) and "-" (JSON lines), in the order given.

    A file is one passage. A file of JSON lines, by its name, has a passage per line.

    Folders are read in the order of their sorted paths, without hidden files. Other files than text in a folder are
    skipped and reported. A file given by name must be readable.

    Args:
        names: files, folders and "-".
        stdin: source of "-".
        scores_field: field of a JSON line with the passage's first-stage score. All passages must have one.

    Raises:
        InputError: a missing file, or one that is empty or not UTF-8; a line that is no passage; a passage without a
            first-stage score if ``scores_field`` is given; "-" more than once.
    """
    check_stdin_once(names)
    passages: list[SourcedPassage] = []
    skipped: list[str] = []
    for name in names:
        path = Path(name)
        if name == STDIN:
            passages += read_lines(stdin, scores_field=scores_field)
        elif path.is_dir():
            for file in _files(path, skipped):
                try:
                    _refuse_other_than_text(file)
                    passages += _read_file(file, scores_field)
                except InputError as error:
                    skipped.append(str(error))
        else:
            passages += _read_file(path, scores_field)
    return Sources(tuple(passages), tuple(skipped))


def check_stdin_once(names: Sequence[str]) -> None:
    """Raise `OptionError` if "-" occurs twice, since standard input can be read only once."""
    if (count := names.count(STDIN)) > 1:
        raise OptionError(f'"-": expected once, got it {count} times; leave out all but one')


def read_content(name: str, content: bytes, *, scores_field: str | None = None) -> list[SourcedPassage]:
    """Read a file's content: one passage per line if its name has a suffix of `JSON_LINES`, else one passage.

    Raises:
        InputError: it is empty or not UTF-8, or a line is no passage. The message names the file.
    """
    if Path(name).suffix.lower() in JSON_LINES:
        return read_json_lines(name, content, scores_field=scores_field)
    if scores_field is not None:
        raise InputError(f"{name}: expected JSON lines (.jsonl) with the field {scores_field!r}, got a file of text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: expected UTF-8, got byte {content[error.start]:#04x} at {error.start}; "
            "convert it, or leave it out"
        ) from error
    return [SourcedPassage(check_text(text, name), name)]


def read_json_lines(name: str, content: bytes, *, scores_field: str | None = None) -> list[SourcedPassage]:
    """Read JSON lines under any file name. Passages and errors name the file and the line.

    Raises:
        InputError: there is no line, or one that is no passage.
    """
    try:
        lines = list(read_lines(content.splitlines(), scores_field=scores_field))
    except InputError as error:
        raise InputError(f"{name}, {error}") from error
    if not lines:
        raise InputError(f"{name}: expected at least one line, got none")
    return [replace(line, source=f"{name}, {line.source}") for line in lines]


def read_lines(lines: Iterable[bytes], *, scores_field: str | None = None) -> Iterator[SourcedPassage]:
    """Read JSON lines: strings, or objects with "text" and optionally "id". Empty lines are skipped.

    Raises:
        InputError: another line. The message names it.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _read_line(line, f"line {number}", scores_field)


def _read_line(line: bytes, where: str, scores_field: str | None) -> SourcedPassage:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: expected UTF-8, got byte {line[error.start]:#04x} at {error.start}") from error
    except (ValueError, RecursionError) as error:  # no JSON, nested too deep, a number of thousands of digits
        raise InputError(f"{where}: expected JSON, got {_start(line)} ({error})") from error
    fields = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or "text" not in fields:
        raise InputError(f'{where}: expected a string or an object with "text", got {_start(line)}')
    identifier = fields.get("id")
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, str | int)):
        raise InputError(f'{where}: expected a string or a whole number as "id", got {identifier!r:.60}')
    score = None if scores_field is None else _score(fields, scores_field, where)
    return SourcedPassage(check_text(fields["text"], f"{where}, text"), where, identifier, score)


def _score(fields: Mapping[str, object], name: str, where: str) -> float:
    if name not in fields:
        raise InputError(f"{where}: expected the first stage's score as {name!r}, got none")
    try:
        return check_number(fields[name], name)
    except OptionError as error:
        raise InputError(f"{where}, {error}") from None


def _start(line: bytes) -> str:
    return repr(line.strip()[:60].decode("utf-8", "replace"))


def _read_file(path: Path, scores_field: str | None) -> list[SourcedPassage]:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return read_content(str(path), content, scores_field=scores_field)


def _refuse_other_than_text(path: Path) -> None:
    if path.suffix.lower() not in TEXT_SUFFIXES:
        raise InputError(f"{path}: no text file by its name; name it on its own to have it read")


def _files(folder: Path, skipped: list[str]) -> list[Path]:
    """Files below a folder, sorted by path, without hidden ones. Links to folders are not followed."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=lambda error: skipped.append(str(error))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found)
