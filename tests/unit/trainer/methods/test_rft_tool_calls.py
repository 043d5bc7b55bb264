"""Tool calls as rewards: what a model wrote is parsed, and compared with the calls of the line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.finetunejob import RFT
from finetune_trainer.data.read.reinforcement import read_prompt
from finetune_trainer.methods.method import FormatError
from finetune_trainer.methods.rft.grading import CompletionRewards
from finetune_trainer.methods.rft.method import RFTMethod
from tests.unit.trainer.data.encode.chat_templates import FAMILIES, make_tokenizer

ADD = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}]
METHOD = RFTMethod(RFT.from_wire({"graders": [{"name": "calls", "type": "ToolCall"}], "maxCompletionTokens": 64}))


@pytest.fixture
def tokenizer() -> Any:
    made = make_tokenizer()
    made.chat_template = FAMILIES["Qwen 2.5"].template
    return made


def example(**changes: Any) -> Any:
    line = {"messages": [{"role": "user", "content": "?"}], "tools": TOOLS, "reference_tools": [ADD]} | changes
    return read_prompt(1, json.dumps({name: value for name, value in line.items() if value is not None}).encode())


@pytest.mark.parametrize(
    ("written", "reward"),
    [
        ('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', 1),
        ('<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>', 0),
        ("I add.", 0),
    ],
)
def test_a_completion_is_rewarded_by_the_calls_that_it_spells(tokenizer: Any, written: str, reward: float) -> None:
    asked = example()
    (row,) = METHOD.rows(tokenizer, asked, [], training=True)
    rewards = CompletionRewards(tokenizer, METHOD.reward)
    completion = tokenizer(written, add_special_tokens=False)["input_ids"]
    (found,) = rewards.of(rewards.rows([row["prompt"]], [completion], [row["item"]]))
    assert found.reward == reward


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference_tools": None}, "Grader 'calls' reads {{item.reference_tools}}, which this example does not have."),
        ({"reference_tools": "add"}, "Grader 'calls' reads reference_tools: it must be a list of tool calls."),
        ({"tools": None}, "Grader 'calls' reads reference_tools: the example has no 'tools' that the model could"),
    ],
    ids=["none", "no calls", "no tools"],
)
def test_a_line_that_can_not_be_compared_is_reported(tokenizer: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(FormatError, match="Grader 'calls'") as caught:
        METHOD.tokenize(tokenizer, example(**changes), [])
    assert told in str(caught.value)
