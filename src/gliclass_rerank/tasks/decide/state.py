"""States, instructions and descriptions as texts: a string, an object or an array has exactly one rendering."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from gliclass_rerank.errors import InputError
from gliclass_rerank.validation import check_text, is_blank

Json: TypeAlias = "str | Mapping[str, Any] | Sequence[Any]"
"""A text, or an object or array of JSON values."""

PARAGRAPH = "\n\n"
MEDIA = ("image", "audio", "video", "file")


def text_of(value: object, what: str) -> str:
    """Render a value as the text that the model reads.

    - A string is taken as it is.
    - A list of chat messages, objects with just "role" and "content" (and ``"type": "message"``), becomes one
      "role: content" line each. A content in parts, ``{"type": "text", "text": ...}``, is joined by blank lines.
    - Any other object or array becomes JSON on one line. Its keys keep their order, characters are not escaped, and
      separators are ", " and ": ".

    Args:
        value: a string, an object or an array.
        what: its name in errors.

    Raises:
        InvalidTextError: a blank string, or characters that no tokenizer reads.
        InputError: another type, a value that JSON cannot express, NaN, infinity, or a message with an image.
    """
    if isinstance(value, str):
        return check_text(value, what)
    if isinstance(value, bytes | bytearray) or not isinstance(value, Mapping | Sequence):
        raise InputError(f"{what}: expected a text, an object or an array, got {type(value).__name__}")
    if (chat := _chat(value, what)) is not None:
        return check_text(chat, what)
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what}: expected JSON values, got one that JSON cannot express: {error}") from error
    return check_text(written, what)


def optional_text(value: object, what: str) -> str:
    """Render like `text_of`. None and blank strings become ""."""
    return "" if value is None or (isinstance(value, str) and is_blank(value)) else text_of(value, what)


def _plain(value: object) -> object:
    """A mapping or sequence that is no dict or list, as one."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _chat(value: object, what: str) -> str | None:
    """The lines of a list of chat messages, or None if the value is none."""
    if isinstance(value, Mapping) or not isinstance(value, Sequence) or not value:
        return None
    lines = []
    for i, message in enumerate(value):
        content = _content(message, f"{what}, message {i}")
        if content is None:
            return None
        lines.append(f"{message['role']}: {content}")
    return "\n".join(lines)


def _content(message: object, where: str) -> str | None:
    """The text of a chat message, or None if the value is no message."""
    if not isinstance(message, Mapping) or message.keys() - {"type"} != {"role", "content"}:
        return None
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or message.get("type", "message") != "message":
        return None
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        return None
    for part in content:
        if str(part.get("type", "")).removeprefix("input_").startswith(MEDIA):
            raise InputError(f"{where}: expected text, got {part['type']!r:.60}; this model reads texts only")
    texts = [part.get("text") for part in content if part.keys() <= {"type", "text"}]
    if len(texts) < len(content):
        return None
    return PARAGRAPH.join(texts) if all(isinstance(text, str) for text in texts) else None
