"""What is told of lines that can be learned, and perhaps not as they are meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from trl import chat_template_utils as published

from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.select.choice import _tool_answer_warnings
from finetune_trainer.data.select.survey import Survey, survey
from finetune_trainer.data.select.token_counts import count_tokens
from tests.unit.trainer.data.encode.chat_templates import make_tokenizer

ASKED = {"role": "user", "content": "2+2?"}
SAID = {"role": "assistant", "content": "4"}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CALLED = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "a", "content": "4"}]


def counted(folder: Path, lines: list[Any], method: Any) -> Survey:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = survey("training", [DataFile(uri="s3://data/a.jsonl", path=file, sha256="")], method)
    found.errors.clear()  # fewer than ten examples
    tokenizer = make_tokenizer()
    tokenizer.chat_template = published.qwen3_chat_template
    count_tokens(found, np.ones(len(found), dtype=bool), tokenizer, Any, 512, "Fail")
    assert not found.errors
    return found


def test_the_words_of_tools_in_the_answers_of_pairs_are_told(tmp_path: Path) -> None:
    pair = {"prompt": [ASKED], "chosen": [SAID], "rejected": [{**SAID, "content": "5"}]}
    asked_tool = {"prompt": [ASKED, *CALLED], "chosen": [SAID], "rejected": [{**SAID, "content": "5"}]}
    found = counted(tmp_path, [pair, asked_tool, {**pair, "chosen": [*CALLED, SAID]}], "DPO")
    (warning,) = _tool_answer_warnings([found])
    assert "hold what tools said (line 3)" in warning
    assert not list(_tool_answer_warnings([counted(tmp_path, [pair, asked_tool], "DPO")]))


def test_names_that_the_template_leaves_out_are_told_once(tmp_path: Path) -> None:
    plain = {"messages": [ASKED, SAID]}
    named = {"messages": [{**ASKED, "name": "ann"}, SAID]}
    (key,) = (unread := counted(tmp_path, [plain, named, named], "SFT").unread)
    assert key.startswith("name (of the role user")
    assert unread[key] == 2
