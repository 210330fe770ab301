"""Passages from files, folders and JSON lines, for the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gliclass_rerank.errors import InputError
from gliclass_rerank.types import check_text

STDIN = "-"
# What is read as text in a folder. A file that is named on its own is read whatever it is called.
TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".py"})


@dataclass(frozen=True, slots=True)
class SourcedPassage:
    """A passage and where it came from.

    Attributes:
        text: what is ranked.
        source: a path, or "line 3" of standard input.
        id: what a JSON line calls it, else None.
    """

    text: str
    source: str
    id: str | int | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What was read, and a line for each file of a folder that was not, with the reason."""

    passages: tuple[SourcedPassage, ...]
    skipped: tuple[str, ...]


def read_sources(names: Sequence[str], stdin: BinaryIO) -> Sources:
    """Read files (a passage each), folders (every text file in them) and "-" (JSON lines), in the order given.

    Folders are read in the order of their sorted paths, hidden files left out; what is no text there is skipped,
    and said. What is named on its own must be readable.

    Raises:
        InputError: no such file, or one that is empty or no UTF-8; a line that is no passage.
    """
    passages: list[SourcedPassage] = []
    skipped: list[str] = []
    for name in names:
        path = Path(name)
        if name == STDIN:
            passages += read_lines(stdin)
        elif path.is_dir():
            for file in _files(path, skipped):
                try:
                    _refuse_other_than_text(file)
                    passages.append(_read_file(file))
                except InputError as error:
                    skipped.append(str(error))
        else:
            passages.append(_read_file(path))
    return Sources(tuple(passages), tuple(skipped))


def read_lines(lines: Iterable[bytes]) -> Iterator[SourcedPassage]:
    """Read JSON lines: strings, or objects with "text" and, if you like, "id". Empty lines are passed over.

    Raises:
        InputError: a line that is neither; the message names it.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _read_line(line, f"line {number}")


def _read_line(line: bytes, where: str) -> SourcedPassage:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: expected UTF-8, got byte {line[error.start]:#04x} at {error.start}") from error
    except (ValueError, RecursionError) as error:  # no JSON, nested without end, a number of thousands of digits
        raise InputError(f"{where}: expected JSON, got {_start(line)} ({error})") from error
    fields = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or "text" not in fields:
        raise InputError(f'{where}: expected a string or an object with "text", got {_start(line)}')
    identifier = fields.get("id")
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, str | int)):
        raise InputError(f'{where}: expected a string or a whole number as "id", got {identifier!r:.60}')
    return SourcedPassage(check_text(fields["text"], f"{where}, text"), where, identifier)


def _start(line: bytes) -> str:
    return repr(line.strip()[:60].decode("utf-8", "replace"))


def _read_file(path: Path) -> SourcedPassage:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected UTF-8, got byte {error.object[error.start]:#04x} at {error.start}; "
            "convert it, or leave it out"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return SourcedPassage(check_text(text, str(path)), str(path))


def _refuse_other_than_text(path: Path) -> None:
    if path.suffix.lower() not in TEXT_SUFFIXES:
        raise InputError(f"{path}: no text file by its name; name it on its own to have it read")


def _files(folder: Path, skipped: list[str]) -> list[Path]:
    """Files below a folder, sorted by path, without hidden ones; links to folders are not followed."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=lambda error: skipped.append(str(error))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found)
