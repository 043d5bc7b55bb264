"""Outputs that were made elsewhere: read from files and matched with the examples of the dataset."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetSource
from finetune_grading.sample import Sample
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.read.data_files import fetch_files
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.records import read_records
from finetune_trainer.outputs.endpoint_outputs import read_calls
from finetune_trainer.outputs.heldout import HeldOutExample, parse_exactly, refuse
from finetune_trainer.outputs.output import Output
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage

ID = "id"
MOST_NAMED = 10
"""How many line numbers a message names at most."""


@dataclass(frozen=True)
class _Line:
    number: int
    id: str | int | None
    output: Output


@dataclass(frozen=True)
class Wanted:
    """The examples that need outputs, `samples` for each."""

    examples: Sequence[HeldOutExample]
    samples: int
    is_part: bool
    """Whether these are only the first examples of the dataset, so that there may be outputs for others."""


def fetch_outputs(
    storage: Storage, uri: str, wanted: Wanted, directory: Path, *, allowed: Sequence[str]
) -> list[Output]:
    """The outputs for the examples, in their order.

    Raises DiagnosedError: DatasetNotFound, DatasetInvalid with the first broken line, or with the lines of the dataset
    that have no output, or one of the storage's.
    """
    lines: list[_Line] = []
    for file in fetch_files(storage, DatasetSource(uri=uri), directory, allowed=allowed):
        lines += _read(file.path, file.uri)
    with_id = [line for line in lines if line.id is not None]
    if with_id and len(with_id) < len(lines):
        first = next(line for line in lines if line.id is None)
        _refuse(uri, f"line {first.number} has no `id`, and line {with_id[0].number} has one.")
    return _by_id(uri, lines, wanted) if with_id else _in_order(uri, lines, wanted)


def _in_order(uri: str, lines: Sequence[_Line], wanted: Wanted) -> list[Output]:
    """Match by position: without ids, the lines are in the order of the dataset."""
    needed = len(wanted.examples) * wanted.samples
    if len(lines) < needed:
        _refuse_missing(uri, [example.line for example in wanted.examples[len(lines) // wanted.samples :]], wanted)
    if len(lines) > needed and not wanted.is_part:
        what = f"it has {len(lines)} outputs, and the dataset {len(wanted.examples)} examples"
        _refuse(uri, f"{what}{_times(wanted)}. Remove those that belong to nothing, or give every line an `id`.")
    return [line.output for line in lines[:needed]]


def _by_id(uri: str, lines: Sequence[_Line], wanted: Wanted) -> list[Output]:
    ids = [example.item.get(ID) for example in wanted.examples]
    for example, found in zip(wanted.examples, ids, strict=True):
        if not _is_id(found):
            _refuse(uri, f"its lines have an `id`, and line {example.line} of the dataset has none.")
    first, times = Counter(ids).most_common(1)[0]
    if times > 1:
        _refuse(uri, f"its lines are found by their `id`, and {times} lines of the dataset have the id {first!r}.")
    outputs: dict[Any, list[Output]] = {found: [] for found in ids}
    for line in lines:
        if line.id not in outputs:
            if wanted.is_part:
                continue
            _refuse(uri, f"line {line.number} has the id {line.id!r}, which the dataset does not have.")
        outputs[line.id].append(line.output)
        if len(outputs[line.id]) > wanted.samples:
            message = f"line {line.number} is one more output with the id {line.id!r}; {wanted.samples} are expected."
            _refuse(uri, message)
    missing = [
        example.line
        for example, found in zip(wanted.examples, ids, strict=True)
        if len(outputs[found]) < wanted.samples
    ]
    if missing:
        _refuse_missing(uri, missing, wanted)
    return [output for found in ids for output in outputs[found]]


def _refuse_missing(uri: str, lines: Sequence[int], wanted: Wanted) -> None:
    named = ", ".join(map(str, lines[:MOST_NAMED])) + (", ..." if len(lines) > MOST_NAMED else "")
    _refuse(
        uri,
        f"there is no output to {len(lines)} of {len(wanted.examples)} examples{_times(wanted)}: those in line {named} "
        "of the dataset. Add them.",
    )


def _times(wanted: Wanted) -> str:
    return "" if wanted.samples == 1 else f" with samplesPerExample {wanted.samples}"


def _refuse(uri: str, message: str) -> None:
    raise DiagnosedError(Reason.DATASET_INVALID, f"The outputs {uri}: {message}")


def _read(file: Path, uri: str) -> list[_Line]:
    lines: list[_Line] = []
    errors: list[LineError] = []
    for record in read_records(file):
        parsed = record if isinstance(record, LineError) else parse_exactly(*record)
        if isinstance(parsed, LineError):
            errors.append(parsed)
            continue
        try:
            lines.append(_to_line(parsed.line, parsed.value))
        except ValueError as error:
            errors.append(LineError(parsed.line, str(error)))
    refuse(uri, errors)
    return lines


def _to_line(number: int, value: object) -> _Line:
    """The output in a record. Raises ValueError if it has none."""
    if not isinstance(value, dict):
        raise ValueError("Expected a JSON object with `output_text`.")
    identity = value.get(ID)
    if identity is not None and not _is_id(identity):
        raise ValueError("`id` must be a string or a whole number.")
    usage = value.get("usage") or {}
    if not isinstance(usage, Mapping):
        raise ValueError("`usage` must be an object with `prompt_tokens` and `completion_tokens`.")
    output = Output(
        read_sample(value),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        seconds=_seconds(value.get("seconds")),
    )
    return _Line(number, identity, output)


def read_sample(line: Mapping[str, Any]) -> Sample:
    """`output_text` and `output_tools` of a line. Raises ValueError."""
    text, calls = line.get("output_text"), line.get("output_tools")
    if not isinstance(text, str) and (text is not None or calls is None):
        raise ValueError("`output_text` must be a string; only an output with `output_tools` needs none.")
    return Sample(text or "", _calls(calls))


def _calls(value: object) -> tuple[ToolCall, ...]:
    calls = read_calls([] if value is None else value)
    if calls is None:
        raise ValueError("`output_tools` must be a list of tool calls as OpenAI's messages have them.")
    return calls


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    count = usage.get(name)
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 2**40):
        raise ValueError(f"`usage.{name}` must be a whole number.")
    return count


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
        raise ValueError("`seconds` must be a number of at least 0.")
    return float(value)


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)
