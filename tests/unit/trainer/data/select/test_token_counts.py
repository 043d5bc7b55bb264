"""What is told of lines that can be learned, and perhaps not as they are meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from trl import chat_template_utils as published

from finetune_api.finetunejob import Method
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.select.survey import Survey, survey
from finetune_trainer.data.select.token_counts import count_and_check
from finetune_trainer.methods.method import formats_of, method_of
from tests.unit.trainer.data.encode.chat_templates import make_tokenizer

ASKED = {"role": "user", "content": "2+2?"}
SAID = {"role": "assistant", "content": "4"}


def counted(folder: Path, lines: list[Any], method: Any) -> Survey:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = survey("training", [DataFile(uri="s3://data/a.jsonl", path=file, sha256="")], formats_of(method))
    tokenizer = make_tokenizer()
    tokenizer.chat_template = published.qwen3_chat_template
    count_and_check(found, np.ones(len(found), dtype=bool), method_of(Method(type=method)), tokenizer, Any, 512, "Fail")
    assert not found.errors
    return found


def test_names_that_the_template_leaves_out_are_told_once(tmp_path: Path) -> None:
    plain = {"messages": [ASKED, SAID]}
    named = {"messages": [{**ASKED, "name": "ann"}, SAID]}
    (key,) = (unread := counted(tmp_path, [plain, named, named], "SFT").unread)
    assert key.startswith("name (of the role user")
    assert unread[key] == 2
