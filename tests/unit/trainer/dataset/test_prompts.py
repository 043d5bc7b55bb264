"""Prompts, and the lines that they make with a completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_grading.sample import Sample
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.read.jsonl import LONGEST_LINE_BYTES
from finetune_trainer.dataset.prompts import PromptLine, read_prompts, to_line
from finetune_trainer.outputs.endpoint_outputs import foreign_tools
from finetune_trainer.outputs.heldout import exact_records, refuse, to_held_out
from finetune_trainer.process.failures import DiagnosedError

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
ASKED = [{"role": "user", "content": "q"}]
GENERATED = {"teacher": "large", "prompt": "s3://data/prompts.jsonl:1", "sample": 0, "scores": {"good": 0.123456}}


def file_of(directory: Path, name: str, *lines: dict[str, Any]) -> DataFile:
    path = directory / name
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return DataFile(f"s3://data/{name}", path, "0")


def prompt_of(directory: Path, **line: Any) -> PromptLine:
    (prompt,) = read_prompts([file_of(directory, "prompts.jsonl", {"messages": ASKED, **line})], [], None)
    return prompt


@pytest.mark.parametrize(
    "long",
    [Sample("x" * LONGEST_LINE_BYTES), Sample("", (ToolCall("look_up", {"of": "x" * LONGEST_LINE_BYTES}),))],
    ids=["text", "call"],
)
def test_a_completion_whose_line_no_reader_takes_is_unusable(tmp_path: Path, long: Sample) -> None:
    prompt = prompt_of(tmp_path, tools=[TOOL])
    assert to_line(prompt, long, {}) is None
    assert to_line(prompt, Sample("short"), {}) is not None


def test_a_line_that_is_usable_is_so_with_its_origin_too_and_can_be_read(tmp_path: Path) -> None:
    """Whether it is usable is asked before the scores are known."""
    prompt = prompt_of(tmp_path)
    most = LONGEST_LINE_BYTES - 64 * 1024
    for size in range(most - 100, most, 12):
        sample = Sample("x" * size)
        assert (to_line(prompt, sample, {}) is None) == (to_line(prompt, sample, GENERATED) is None)
        if size == most - 100:
            line = to_line(prompt, sample, GENERATED)
            assert line is not None
            (tmp_path / "line.jsonl").write_bytes(line + b"\n")
            assert isinstance(next(iter(exact_records(tmp_path / "line.jsonl"))), tuple)


def test_what_an_evaluation_names_reference_is_the_completion_and_not_the_prompts(tmp_path: Path) -> None:
    prompt = prompt_of(tmp_path, reference="42", reference_tools=[], id=7)
    assert prompt.example.item["reference"] == "42", "graders read it"
    line = to_line(prompt, Sample("hello"), GENERATED)
    assert line is not None
    value = json.loads(line)
    assert to_held_out(1, line, value).reference == "hello"
    assert value["id"] == 7


def test_an_error_about_a_prompt_names_its_own_file(tmp_path: Path) -> None:
    foreign = {"type": "mcp", "function": {"name": "look_up"}, "server_url": "https://x"}
    files = [
        file_of(tmp_path, "one.jsonl", {"messages": ASKED}, {"messages": ASKED}),
        file_of(tmp_path, "two.jsonl", {"messages": ASKED}, {"messages": ASKED, "tools": [foreign]}),
    ]
    examples = [prompt.example for prompt in read_prompts(files, [], None)]
    with pytest.raises(DiagnosedError, match=r"Line 2 of s3://data/two\.jsonl: Tools of type 'mcp'"):
        refuse(files[0].uri, foreign_tools(examples))
