"""The first lines of a file for fine-tuning, checked while it is uploaded; preflight checks the whole."""

from __future__ import annotations

import json

from finetune_openai.errors import RefusedError, invalid, shown

LINES_CHECKED = 100
LONGEST_BYTES = 2**20
"""What is kept of the file's start. A line that goes beyond is not checked here."""
_FORMS = (
    ("prompt", "completion"),
    ("input", "preferred_output"),
    ("prompt", "chosen"),
    ("chosen", "rejected"),
    ("instruction",),
    ("conversations",),
)
"""Keys of the examples that the trainer knows beside `messages`."""
_OF_CHATS = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})


class FirstLines:
    """Is fed with a file from its start, and refuses it at the first line that is no example."""

    def __init__(self) -> None:
        self._start = bytearray()
        self._done = False

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file. Raises RefusedError."""
        if self._done:
            return
        self._start += piece[: LONGEST_BYTES - len(self._start)]
        if len(self._start) >= LONGEST_BYTES or self._start.count(b"\n") >= LINES_CHECKED:
            self._done = True
            lines = bytes(self._start).split(b"\n")[:-1]
            _check(lines[:LINES_CHECKED])
            self._start.clear()

    def end(self) -> None:
        """The file has no more. Raises RefusedError."""
        if not self._done:
            _check(bytes(self._start).split(b"\n")[:LINES_CHECKED])


def _check(lines: list[bytes]) -> None:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            wrong = _wrong(line)
            if wrong is not None:
                raise _refused(number, wrong, line)


def _wrong(line: bytes) -> str | None:
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return "is not UTF-8"
    except (ValueError, RecursionError):
        return "is not a valid JSON dictionary"
    if not isinstance(value, dict):
        return "is not a valid JSON dictionary"
    if "messages" in value:
        return _wrong_messages(value["messages"], has_fields=bool(value.keys() - _OF_CHATS))
    if any(all(key in value for key in keys) for keys in _FORMS):
        return None
    return (
        "has neither 'messages', nor 'prompt' and 'completion', nor 'input', 'preferred_output' and "
        "'non_preferred_output'"
    )


def _wrong_messages(messages: object, *, has_fields: bool) -> str | None:
    """`has_fields`: whether there is anything for graders, to whom prompts alone are enough."""
    if not isinstance(messages, list) or not messages:
        return "has 'messages' that are not a list of at least one message"
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return f"has a message ({place}) without a 'role'"
    if all(message["role"] != "assistant" for message in messages) and not has_fields:
        return "has no message of the role 'assistant', and no field for a grader"
    return None


def _refused(number: int, wrong: str, line: bytes) -> RefusedError:
    start = shown(line[:200].decode(errors="replace").strip())
    return invalid(
        f"Expected file to have JSONL format, where every line is an example for fine-tuning. Line {number} {wrong} "
        f"(line starts with: {start!r}).",
        "file",
        "invalid_file",
    )
