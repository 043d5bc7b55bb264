"""A whole file in another format than is read: told once, as what it is, and not as so many broken lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.read.formats import Format, WrongFormat
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import read_examples
from finetune_trainer.data.select.survey import refuse_invalid, survey
from finetune_trainer.methods.method import formats_of, formats_read_as
from finetune_trainer.outputs.heldout import read_held_out
from finetune_trainer.process.failures import DiagnosedError

USER = {"role": "user", "content": "2+2?"}
ASSISTANT = {"role": "assistant", "content": "4"}
WORSE = {"role": "assistant", "content": "5"}
LINES: dict[Format, dict[str, Any]] = {
    "Chat": {"messages": [USER, ASSISTANT]},
    "PromptCompletion": {"prompt": "2+2=", "completion": "4"},
    "Preference": {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [WORSE]},
    "Reinforcement": {"messages": [USER], "answer": "4"},
}
METHODS: dict[str, Sequence[Format]] = {
    "SFT": ("Preference", "Reinforcement"),
    "DPO": ("Chat", "PromptCompletion", "Reinforcement"),
    "RFT": ("Chat", "Preference"),  # completions are a field for graders there
    "Distillation": ("Preference",),
}
URI = "s3://data/a.jsonl"


def write(file: Path, *lines: object) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def refused_job(method: str, *files: Path) -> str:
    found = [DataFile(uri=f"s3://data/{file.name}", path=file, sha256="") for file in files]
    with pytest.raises(DiagnosedError) as refused:
        refuse_invalid([survey("training", found, formats_of(method))])
    return refused.value.failure.message


@pytest.mark.parametrize(("method", "found"), [(name, found) for name, all_ in METHODS.items() for found in all_])
def test_a_file_for_another_method_is_one_error(tmp_path: Path, method: str, found: Format) -> None:
    (error,) = read_examples(write(tmp_path / "f", *[LINES[found]] * 60), formats_of(method))
    assert isinstance(error, WrongFormat)
    assert (error.line, error.found) == (1, found)
    assert f"(provided method={method}, which learns from " in error.message


@pytest.mark.parametrize("expected", LINES)
@pytest.mark.parametrize("found", LINES)
def test_a_file_in_another_format_than_the_named_one_is_one_error(
    tmp_path: Path, expected: Format, found: Format
) -> None:
    read = list(read_examples(write(tmp_path / "f", *[LINES[found]] * 60), formats_read_as(expected), expected))
    if expected == found or (expected, found) == ("Reinforcement", "PromptCompletion"):
        assert not any(isinstance(item, LineError) for item in read)
    else:
        (error,) = read
        assert isinstance(error, WrongFormat)
        assert error.found == found
        assert error.message.startswith("Unexpected file format, expected ")


def test_prompts_without_a_name_of_their_format_are_reported_to_need_it(tmp_path: Path) -> None:
    (error,) = read_examples(write(tmp_path / "f", *[LINES["Reinforcement"]] * 60))
    assert isinstance(error, WrongFormat)
    assert error.found == "Reinforcement"
    assert error.message.startswith("No example has an answer. These are prompts with fields for graders")


def test_some_broken_lines_hide_nothing(tmp_path: Path) -> None:
    broken = [{"messages": [{"role": "user"}]}, 7]
    (error,) = read_examples(write(tmp_path / "f", *broken, *[LINES["Reinforcement"]] * 60), formats_of("SFT"))
    assert isinstance(error, WrongFormat)
    assert error.line == 3


def test_lines_without_an_answer_among_others_are_reported_by_line(tmp_path: Path) -> None:
    prompt, chat = LINES["Reinforcement"], LINES["Chat"]
    read = list(read_examples(write(tmp_path / "f", *[prompt] * 30, chat, prompt), formats_of("SFT")))
    errors = [item for item in read if isinstance(item, LineError)]
    assert [error.line for error in errors] == [*range(1, 31), 32]
    assert {error.message for error in errors} == {"The last message must be from the assistant."}


def test_lines_that_are_broken_in_every_format_are_reported_by_line(tmp_path: Path) -> None:
    read = list(read_examples(write(tmp_path / "f", *[{"text": "4"}] * 6, *[LINES["Reinforcement"]] * 5)))
    assert len(read) == 11


@pytest.mark.parametrize(
    ("method", "found", "what_to_do"),
    [
        ("SFT", "Reinforcement", "Set spec.method.type to RFT or Distillation with a changed spec.runId"),
        ("SFT", "Preference", "Set spec.method.type to DPO with a changed spec.runId"),
        ("DPO", "Chat", "Set spec.method.type to SFT or Distillation with a changed spec.runId"),
        ("DPO", "Reinforcement", "Set spec.method.type to RFT or Distillation with a changed spec.runId"),
        ("RFT", "Chat", "Set spec.method.type to SFT or Distillation with a changed spec.runId"),
    ],
)
def test_a_job_is_told_the_method_for_its_file(tmp_path: Path, method: str, found: Format, what_to_do: str) -> None:
    message = refused_job(method, write(tmp_path / "a.jsonl", *[LINES[found]] * 60))
    assert message.startswith(
        f"Invalid file format. Line 1 of the training file {URI}: Input file is in the fine-tune-"
    )
    assert message.endswith(f"{what_to_do}, or replace the file: it is checked again automatically.")
    assert "broken" not in message


def test_reinforcement_is_told_where_answers_belong(tmp_path: Path) -> None:
    message = refused_job("RFT", write(tmp_path / "a.jsonl", *[LINES["Chat"]] * 60))
    assert "what graders compare it with belongs into a field of its own beside 'messages'" in message


def test_one_file_of_several_in_another_format_is_what_to_correct(tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", *[LINES["Chat"]] * 10)
    message = refused_job("SFT", good, write(tmp_path / "b.jsonl", *[LINES["Reinforcement"]] * 10))
    assert "s3://data/b.jsonl: Unexpected file format, expected chat messages, found prompts with fields" in message
    assert message.endswith("Correct the file and upload it again: it is checked again automatically.")


@pytest.mark.parametrize("found", ["Preference", "Reinforcement"])
def test_an_evaluation_is_told_that_its_file_has_no_reference(tmp_path: Path, found: Format) -> None:
    with pytest.raises(DiagnosedError) as refused:
        read_held_out(write(tmp_path / "f", *[LINES[found]] * 60), URI, [])
    message = refused.value.failure.message
    assert message.startswith(f"Line 1 of {URI}: Expected chat messages that end with the assistant's, or prompt/")
    assert message.endswith("Name another file in spec.dataset, or add the answers.")
    assert "broken" not in message
