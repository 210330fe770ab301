"""OpenAI's input as a state: messages, calls of functions and tools, and their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gliclass_rerank import InputError
from gliclass_rerank.tasks.decide.state import PARAGRAPH, Json, text_of

CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
OUTPUTS = ("function_call_output", "custom_tool_call_output")
ROLES = ("user", "developer", "system", "assistant")
TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


def state_of(given: str | Sequence[Mapping[str, Any]]) -> Json:
    """The state of an input: a text as it is, a single user message as its text, else chat messages.

    A call is a message of the assistant, ``name(arguments)``. Its output is a message of the role "tool".

    Raises:
        InputError: no items, an item of another type, an image, an output without its call.
    """
    if isinstance(given, str):
        return given
    if not given:
        raise InputError("input: expected a text or at least one item, got none")
    calls: set[str] = set()
    messages = [_message(item, f"input[{i}]", calls) for i, item in enumerate(given)]
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return messages


def content_of(content: object, where: str) -> str:
    """The text of a content: a string, or parts, joined by blank lines. JSON parts become JSON on one line.

    Raises:
        InputError: another value, a part of another type, an image.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise InputError(f"{where}: expected a text or an array of parts, got {type(content).__name__}")
    return PARAGRAPH.join(_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _part(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and isinstance(kind, str):
        if kind == "input_json":
            return text_of(part.get("data"), f"{where}.data")
        if kind in TEXTS:
            return _text(part, TEXTS[kind], where)
        if kind == "input_image":
            raise InputError(f"{where}: expected text, got an image; this model reads texts only")
    raise InputError(f"{where}.type: expected 'input_text' or 'input_json', got {kind!r:.60}")


def _message(item: Mapping[str, Any], where: str, calls: set[str]) -> dict[str, str]:
    """An item as a chat message. Adds the ids of calls to ``calls``."""
    kind = item.get("type") or "message"
    if kind == "message":
        role = item.get("role")
        if role not in ROLES:
            raise InputError(f"{where}.role: expected one of {', '.join(ROLES)}, got {role!r:.60}")
        return {"role": str(role), "content": content_of(item.get("content"), f"{where}.content")}
    if isinstance(kind, str) and kind in CALLS:
        calls.add(_text(item, "call_id", where))
        return {"role": "assistant", "content": f"{_text(item, 'name', where)}({_text(item, CALLS[kind], where)})"}
    if kind in OUTPUTS:
        if (call := _text(item, "call_id", where)) not in calls:
            raise InputError(f"{where}.call_id: expected that of a call before it, got {call!r:.60}")
        return {"role": "tool", "content": content_of(item.get("output"), f"{where}.output")}
    raise InputError(f"{where}.type: expected a message, a call or its output, got {kind!r:.60}")


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InputError(f"{where}.{name}: expected a text, got {type(value).__name__}")
    return value
