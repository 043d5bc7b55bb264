"""Reads examples from files.

msgspec decodes and validates a line in one pass, at the speed of plain JSON decoding; example_errors.py finds the
message for a line that it rejects. Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import orjson
from msgspec import Raw, Struct

from finetune_trainer.data.read.conversions import MEANT, READ, REFUSED, load_exactly, to_known_form, without_nulls
from finetune_trainer.data.read.example_errors import MOST_IMAGES, ExampleError, explain, unmatched_tool_call
from finetune_trainer.data.read.examples import (
    ChatExample,
    CompletionExample,
    Example,
    PreferenceExample,
    ReinforcementExample,
)
from finetune_trainer.data.read.formats import Format, MethodFormats, accepted_formats, mixed_formats, wrong_file
from finetune_trainer.data.read.jsonl import LineError, may_repeat_a_key, parse, repeated_key
from finetune_trainer.data.read.messages import (
    Assistant,
    Developer,
    ImagePart,
    Messages,
    System,
    Tool,
    ToolCall,
    User,
    content_text,
)
from finetune_trainer.data.read.records import read_records
from finetune_trainer.data.read.reinforcement import has_no_answer, read_prompt

LEAST_TRAINING_EXAMPLES = 10
LINES_TOLD_BY = 100
"""So many first lines tell what a file is of which none is an example."""
SHOWN_KEYS = 10

_ABSENT = Raw(b"null")  # msgspec has no optional Raw; null means an absent key, too.


class _Line(Struct, forbid_unknown_fields=True):
    """A line of any format."""

    messages: Messages | None = None
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None
    prompt: Raw = _ABSENT
    completion: Raw = _ABSENT
    input: Raw = _ABSENT
    preferred_output: Raw = _ABSENT
    non_preferred_output: Raw = _ABSENT
    chosen: Raw = _ABSENT
    rejected: Raw = _ABSENT


class _AnyLine(_Line, forbid_unknown_fields=False):
    """A line with unknown keys."""


class _Input(Struct, forbid_unknown_fields=True):
    """The input of OpenAI's preference pairs."""

    messages: Messages
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None


_CHAT_KEYS = frozenset({"messages"})
_COMPLETION_KEYS = frozenset({"prompt", "completion"})
_PAIR_KEYS = frozenset({"prompt", "chosen", "rejected"})
_OPENAI_PAIR_KEYS = frozenset({"input", "preferred_output", "non_preferred_output"})
_KEYS_OF_FORMS = _CHAT_KEYS | _COMPLETION_KEYS | _PAIR_KEYS | _OPENAI_PAIR_KEYS
_LINE = msgspec.json.Decoder(_Line)
_ANY_LINE = msgspec.json.Decoder(_AnyLine)
_KEYS = msgspec.json.Decoder(dict[str, Raw])
_INPUT = msgspec.json.Decoder(_Input)
_SIDE: msgspec.json.Decoder[str | Messages] = msgspec.json.Decoder(str | Messages)


class NumberedExample(Struct, frozen=True):
    """An example and its line, counted from 1."""

    line: int
    example: Example
    unread: frozenset[str] = frozenset()
    """Keys of the line that are not used for training: unknown ones (`id`), or those of another form."""


class RefusedError(Exception):
    """The line has valid types, but is not a valid example."""


def read_examples(
    file: Path, method: MethodFormats | None = None, expected: Format | None = None
) -> Iterator[NumberedExample | LineError]:
    """The examples of a file, and its errors. The first example determines the file's format.

    A file whose format the `method` does not learn from, or that is not `expected`, is one error and not read further.
    """
    file_format: Format | None = None
    empty = True
    other = other_format(file, method, accepted_formats(method, expected))
    if other is not None and (refused := wrong_file(*other, method, expected)) is not None:
        yield refused
        return
    for item in read_records(file):
        empty = False
        if isinstance(item, LineError):
            yield item
            continue
        number, line = item
        read = _decode_or_explain(number, line, method)
        if isinstance(read, LineError):
            yield read
            continue
        found = read.example.format
        if file_format is None and (refused := wrong_file(number, found, method, expected)) is not None:
            yield refused
            return
        file_format = file_format or found
        yield read if found == file_format else mixed_formats(number, file_format, found)
    if empty:
        yield LineError(1, "The file is empty.")


def other_format(file: Path, method: MethodFormats | None, accepted: Collection[Format]) -> tuple[int, Format] | None:
    """The first line in another format than those accepted, and that format, of a file that is all in that format.

    Without this, each line of such a file would count as broken.
    """
    seen, others = 0, list[tuple[int, Format]]()
    for item in islice(read_records(file), LINES_TOLD_BY):
        seen += 1
        if isinstance(item, LineError):
            continue
        found = _format_of(*item, method)
        if found in accepted:
            return None
        if found is not None:
            others.append((item[0], found))
    return others[0] if len(others) > seen // 2 else None


def _format_of(number: int, line: bytes, method: MethodFormats | None) -> Format | None:
    """The format of a line as the method reads it, or else the one in which it would be right; None: it is broken."""
    read = _decode_or_explain(number, line, method)
    if isinstance(read, NumberedExample):
        return read.example.format
    if _reads_prompt(line, method):
        read = _decode_or_explain(number, line, None)
        return None if isinstance(read, LineError) else read.example.format
    prompt = read_prompt(number, line) if has_no_answer(line) else read
    return None if isinstance(prompt, LineError) else prompt.format


def parse_example(line: bytes) -> Example:
    """The example of a line as training reads it, but without keys that training rejects: they are for graders.

    Raises ExampleError.
    """
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # Explained below.
        keys = _KEYS.decode(line)
        if keys.keys() & REFUSED:
            line = msgspec.json.encode({key: value for key, value in keys.items() if key not in REFUSED})
    read = _decode_or_explain(1, line, None)
    if isinstance(read, LineError):
        raise ExampleError(read.message)
    return read.example


def decode(line: bytes, method: MethodFormats | None = None) -> Example:
    """The example of a line in one of our own forms.

    Raises msgspec.DecodeError, UnicodeDecodeError or RefusedError, whose messages are not for users.
    """
    return _to_example(_LINE.decode(line), line, method)[0]


def _reads_pairs(method: MethodFormats | None) -> bool:
    """Whether a line that is both a conversation and a preference pair is read as the pair; not without a method."""
    return method is not None and PreferenceExample.format in method.learned


def _reads_prompt(line: bytes, method: MethodFormats | None) -> bool:
    """Whether a line is read as a prompt. A method that learns from nothing else explains what is wrong with others."""
    if method is None or ReinforcementExample.format not in method.learned:
        return False
    return len(method.learned) == 1 or has_no_answer(line)


def _to_example(found: _Line, line: bytes, method: MethodFormats | None) -> tuple[Example, frozenset[str]]:
    """The example, and the ignored keys of another form.

    `method` decides about lines that have both a conversation and a pair, such as UltraFeedback's.
    """
    tools = without_nulls(found.tools) if found.tools and b"null" in line else found.tools
    is_pair = _ABSENT not in (found.chosen, found.rejected)
    example: Example
    if found.messages is not None and not (is_pair and _reads_pairs(method)):
        _check_chat(found.messages)
        example, read = ChatExample(found.messages, tools or None, found.parallel_tool_calls), _CHAT_KEYS
    elif is_pair:
        example, read = _to_preference(found.prompt, found.chosen, found.rejected, tools), _PAIR_KEYS
    elif _ABSENT not in (found.input, found.preferred_output, found.non_preferred_output):
        better, worse = _SIDE.decode(found.preferred_output), _SIDE.decode(found.non_preferred_output)
        example, read = _to_openai_preference(_INPUT.decode(found.input), better, worse, tools), _OPENAI_PAIR_KEYS
    elif _ABSENT not in (found.prompt, found.completion):
        example = _to_completion(_SIDE.decode(found.prompt), _SIDE.decode(found.completion), tools)
        read = _COMPLETION_KEYS
    else:
        raise RefusedError("It is none of the formats.")
    others = _KEYS_OF_FORMS - read
    return example, frozenset(key for key in others if getattr(found, key) not in (None, _ABSENT))


def too_few_examples(count: int) -> str:
    """The error of a training set that is too small."""
    return f"Training file has {count} example(s), but must have at least {LEAST_TRAINING_EXAMPLES} examples."


def unread_keys(first_lines: Mapping[str, int]) -> str:
    """The warning about ignored keys. `first_lines`: the first line with each key."""
    keys = ", ".join(f"{key!r} (line {line})" for key, line in sorted(first_lines.items())[:SHOWN_KEYS])
    more = f" and {len(first_lines) - SHOWN_KEYS} more" if len(first_lines) > SHOWN_KEYS else ""
    return f"These keys are not used for training: {keys}{more}."


def _decode_or_explain(number: int, line: bytes, method: MethodFormats | None) -> NumberedExample | LineError:
    if _reads_prompt(line, method):
        prompt = read_prompt(number, line)
        return prompt if isinstance(prompt, LineError) else NumberedExample(number, prompt)
    if may_repeat_a_key(line) and (repeated := repeated_key(line)) is not None:
        return LineError(number, repeated)
    try:
        return NumberedExample(number, *_to_example(_LINE.decode(line), line, method))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RefusedError):
        record = parse(number, line)
    if isinstance(record, LineError):
        return record
    read = _read(number, line, record.value, method)
    return read if isinstance(read, NumberedExample) else LineError(number, str(read))


def _read(number: int, line: bytes, value: object, method: MethodFormats | None) -> NumberedExample | ExampleError:
    """Read a line with unknown keys or in another form; returns its error if that fails."""
    refusal = ""
    try:
        unread = _KEYS.decode(line).keys() - READ
        if not unread & MEANT:
            example, others = _to_example(_ANY_LINE.decode(line), line, method)
            return NumberedExample(number, example, others | unread)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RefusedError) as error:
        refusal = str(error)
    try:
        if (repeated := repeated_key(line)) is not None:
            return ExampleError(repeated)
        if isinstance(value, dict):
            known = to_known_form(load_exactly(line))
            line = orjson.dumps({key: item for key, item in known.items() if key in READ})
            value = orjson.loads(line)
            example, others = _to_example(_LINE.decode(line), line, method)
            return NumberedExample(number, example, others | (known.keys() - READ))
    except ExampleError as error:
        return error
    except (msgspec.DecodeError, RefusedError, RecursionError, TypeError, ValueError) as error:
        refusal = str(error)
    return explain(value, refusal)


def _to_completion(
    prompt: str | Messages, completion: str | Messages, tools: list[dict[str, Any]] | None
) -> CompletionExample | ChatExample:
    """With two lists of messages (TRL's conversational form), only those of the completion have loss."""
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise RefusedError("The completion is empty.")
        return CompletionExample(prompt, completion)
    if isinstance(prompt, str) or isinstance(completion, str):
        raise RefusedError("The prompt is text and the completion messages, or the other way round.")
    given: Messages = [_without_weight(message) for message in prompt]
    _check_chat([*given, *completion])
    return ChatExample([*given, *completion], tools or None)


def _without_weight(message: System | Developer | User | Assistant | Tool) -> Any:
    return msgspec.structs.replace(message, weight=0) if isinstance(message, Assistant) else message


def _to_openai_preference(
    given: _Input, better: str | Messages, worse: str | Messages, outer_tools: list[dict[str, Any]] | None
) -> PreferenceExample:
    """`outer_tools`: the tools next to the input."""
    if given.tools and outer_tools:
        raise RefusedError("The line has tools in 'input' and beside it. Keep one of them.")
    return _checked_preference(given.messages, better, worse, without_nulls(given.tools) or outer_tools)


def _to_preference(prompt: Raw, chosen: Raw, rejected: Raw, tools: list[dict[str, Any]] | None) -> PreferenceExample:
    """TRL's form. Without a prompt, or if both conversations repeat it, it is their common start."""
    better, worse = _SIDE.decode(chosen), _SIDE.decode(rejected)
    asked = None if prompt == _ABSENT else _SIDE.decode(prompt)
    if isinstance(better, str) or isinstance(worse, str):
        if asked is None:
            raise RefusedError("Texts need a prompt.")
        return _checked_preference(asked, better, worse, tools)
    if isinstance(asked, list) and not (asked and better[: len(asked)] == asked == worse[: len(asked)]):
        return _checked_preference(asked, better, worse, tools)
    pairs = enumerate(zip(better, worse, strict=False))
    common = next((position for position, (one, other) in pairs if one != other), min(len(better), len(worse)))
    if isinstance(asked, list):
        common = len(asked)
    if isinstance(asked, str) and not common:
        return _checked_preference([User(content=asked)], better, worse, tools)
    if isinstance(asked, str) and not any(content_text(message.content) == asked for message in better[:common]):
        raise RefusedError("The prompt is not what the two conversations begin with.")
    if better == worse:
        raise RefusedError("The two answers are the same.")
    return _checked_preference(better[:common], better[common:], worse[common:], tools)


def _checked_preference(
    prompt: str | Messages, chosen: str | Messages, rejected: str | Messages, tools: list[dict[str, Any]] | None
) -> PreferenceExample:
    if chosen == rejected:
        raise RefusedError("The two answers are the same.")
    for side in (chosen, rejected):
        if isinstance(prompt, str) or isinstance(side, str):
            if not (isinstance(prompt, str) and isinstance(side, str) and side.strip()):
                raise RefusedError("An answer is empty, or of another kind than the prompt.")
        else:
            if not prompt or not side:
                raise RefusedError("There is no prompt, or no message in an answer.")
            _check_chat([*prompt, *side])
            if not all(isinstance(message, Assistant) for message in side):
                raise RefusedError("An answer has messages that are not the assistant's.")
    return PreferenceExample(prompt, chosen, rejected, tools or None)


def _check_chat(messages: Messages) -> None:
    if not messages or not isinstance(messages[-1], Assistant):
        raise RefusedError("It does not end with the assistant.")
    learned = has_tools = False
    images = 0
    for message in messages:
        if type(message) is Assistant:  # isinstance would take most of the time here.
            learned = learned or message.weight == 1
            if message.refusal and content_text(message.content).strip():
                raise RefusedError("A message of the assistant has both content and a refusal.")
            if message.tool_calls is not None:
                has_tools = True
                _check_arguments(message.tool_calls)
            elif not (content_text(message.content) or message.refusal or "").strip():
                raise RefusedError("A message of the assistant is empty.")
        elif type(message) is Tool:
            has_tools = True
        elif isinstance(message.content, list):
            images += sum(isinstance(part, ImagePart) for part in message.content)
    if not learned:
        raise RefusedError("Nothing is learned from.")
    if images > MOST_IMAGES:
        raise RefusedError("There are too many images.")
    if has_tools and unmatched_tool_call(msgspec.to_builtins(messages)):
        raise RefusedError("A tool call and its answer don't match.")


def _check_arguments(calls: list[ToolCall]) -> None:
    for call in calls:
        try:
            arguments = orjson.loads(call.function.arguments)
        except orjson.JSONDecodeError as error:
            raise RefusedError("The arguments of a call are no JSON.") from error
        if not isinstance(arguments, dict) or repeated_key(call.function.arguments):
            raise RefusedError("The arguments of a call are not an object, or repeat a key.")
