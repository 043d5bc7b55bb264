"""Lines for reinforcement fine-tuning: a prompt that ends with the user's message, and fields for graders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.read.examples import ReinforcementExample
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import NumberedExample, read_examples
from finetune_trainer.methods.method import formats_of

USER = {"role": "user", "content": "What is 2 plus 3?"}
ASSISTANT = {"role": "assistant", "content": "5"}


def read(tmp_path: Path, *lines: str) -> list[NumberedExample | LineError]:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return list(read_examples(file, formats_of("RFT")))


def only(tmp_path: Path, **line: Any) -> ReinforcementExample:
    (found,) = read(tmp_path, json.dumps(line))
    assert isinstance(found, NumberedExample), found
    assert isinstance(found.example, ReinforcementExample)
    return found.example


def refused(tmp_path: Path, line: object) -> str:
    (found,) = read(tmp_path, line if isinstance(line, str) else json.dumps(line))
    assert isinstance(found, LineError)
    return found.message


def test_graders_get_every_field_of_the_line_and_whole_numbers_as_they_are_written(tmp_path: Path) -> None:
    (found,) = read(
        tmp_path, '{"messages": [{"role": "user", "content": "Hi"}], "id": 123456789012345678901, "b": null}'
    )
    assert isinstance(found, NumberedExample)
    assert isinstance(found.example, ReinforcementExample)
    assert '"id":123456789012345678901' in found.example.item
    item = json.loads(found.example.item)
    assert item["b"] is None
    assert item["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_conversation_may_come_before_the_question(tmp_path: Path) -> None:
    example = only(
        tmp_path, messages=[{"role": "developer", "content": "Be brief."}, USER, ASSISTANT, USER], answer="5"
    )
    assert len(list(example.all_messages())) == 4


def test_a_prompt_may_be_text_for_models_without_a_chat_template(tmp_path: Path) -> None:
    assert only(tmp_path, prompt="2 + 3 =", answer="5").prompt == "2 + 3 ="


def test_nulls_of_a_table_are_absent_keys(tmp_path: Path) -> None:
    rows = [{**USER, "name": None, "tool_calls": None, "tool_call_id": None}]
    assert only(tmp_path, messages=rows, prompt=None, tools=None, answer="5").tools is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"messages": [USER, {**USER, "role": "tool"}]}, "The last message must be from the user: the model writes"),
        ({"messages": [], "answer": "5"}, "'messages' must be a list with at least one message"),
        ({"answer": "5"}, "Expected 'messages' that end with the user's"),
        ({"prompt": " ", "answer": "5"}, "prompt is empty"),
        ({"messages": [{"role": "user"}]}, "Message 1: 'content' is missing"),
        ({"messages": [{"role": "users", "content": "Hi"}]}, "'role' must be one of"),
        ({"messages": [USER], "tools": "none"}, "'tools' must be a list of objects"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "s3://a/b.png"}}]}]},
            "Message 1: images can't be learned from with method.type RFT or Distillation",
        ),
        ("7", "Expected a JSON object, found a number"),
        ('{"messages": [{"role": "user", "content": "Hi"}], "a": 1, "a": 2}', "The key 'a' appears twice"),
        ('{"messages": [{"role": "user", "content": "Hi"}], "a": 1e999}', "number is infinity"),
        ('{"messages": [', ""),
    ],
)
def test_a_line_that_is_no_prompt_says_why(tmp_path: Path, line: object, told: str) -> None:
    assert told in refused(tmp_path, line)


def test_a_line_with_an_answer_among_prompts_is_told_where_the_answer_belongs(tmp_path: Path) -> None:
    prompt, answered = {"messages": [USER], "answer": "5"}, {"messages": [USER, ASSISTANT], "answer": "5"}
    _, error = read(tmp_path, json.dumps(prompt), json.dumps(answered))
    assert isinstance(error, LineError)
    assert error.line == 2
    assert "The last message must be from the user: the model writes the answer itself" in error.message
