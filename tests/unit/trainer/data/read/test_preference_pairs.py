"""Broken preference pairs, and the sentence that a person gets to read for each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import read_examples
from finetune_trainer.methods.method import formats_of
from tests.unit.trainer.data.read.example_lines import (
    ASSISTANT,
    CALLING,
    GOOD,
    TOLD,
    USER,
    WORSE,
    pair,
    preference,
)

OF_A_TOOL = (
    "'{}' holds a tool's result, which would be learned as if the assistant had written it. Compare the messages "
    "before it or those after it: what both have before goes to '{}'."
)
BROKEN_PAIRS = {
    "chat": (
        GOOD.strip(),
        "Input file is in the fine-tune-chat format, but the specified fine-tuning job is not using 'SFT' or "
        "'Distillation' as the training method (provided method=DPO, which learns from preference pairs).",
    ),
    "the same twice": (
        preference([USER], [ASSISTANT], [ASSISTANT]),
        "'preferred_output' and 'non_preferred_output' are the same: there is no preference to learn.",
    ),
    "input as a list": (
        json.dumps({"input": [USER], "preferred_output": [ASSISTANT], "non_preferred_output": [WORSE]}).encode(),
        "'input' must be an object with 'messages'.",
    ),
    "answer as text": (
        preference([USER], "4", [WORSE]),
        "'preferred_output' must be a list of messages, found text.",
    ),
    "answer of the user": (
        preference([USER], [USER, ASSISTANT], [WORSE]),
        "'preferred_output' holds a message of the user: only the assistant answers.",
    ),
    "a tool's words in the better answer": (
        preference([USER], [CALLING, TOLD, ASSISTANT], [WORSE]),
        OF_A_TOOL.format("preferred_output", "input"),
    ),
    "a tool's words in the worse answer": (
        pair(prompt=[USER], chosen=[ASSISTANT], rejected=[CALLING, TOLD, WORSE]),
        OF_A_TOOL.format("rejected", "prompt"),
    ),
    "a tool's words after what is in common": (
        pair(chosen=[USER, CALLING, TOLD, ASSISTANT], rejected=[USER, WORSE]),
        OF_A_TOOL.format("chosen", "prompt"),
    ),
    "no prompt": (preference([], [ASSISTANT], [WORSE]), "'input' must be text or a list with at least one message."),
    "text and messages": (
        pair(prompt=[USER], chosen="4", rejected=[WORSE]),
        "'chosen' must be a list of messages as 'prompt' is, found text.",
    ),
    "empty text": (pair(prompt="2+2=", chosen=" ", rejected="5"), "chosen is empty: there is nothing to learn."),
    "texts without a prompt": (
        pair(chosen="4", rejected="5"),
        "'chosen' without a 'prompt' must be a list of messages, found text.",
    ),
    "nothing in common": (
        pair(chosen=[ASSISTANT], rejected=[WORSE]),
        "'chosen' and 'rejected' have no message in common that they answer to.",
    ),
}


@pytest.mark.parametrize(("line", "message"), BROKEN_PAIRS.values(), ids=BROKEN_PAIRS)
def test_a_broken_preference_pair_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line)
    (error,) = read_examples(file, formats_of("DPO"))
    assert isinstance(error, LineError)
    assert (error.line, error.message) == (1, message)
