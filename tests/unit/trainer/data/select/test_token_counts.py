"""What is told of lines that can be learned, and perhaps not as they are meant."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trl import chat_template_utils as published

from finetune_api.finetunejob import Method
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.data.select.survey import Survey, survey
from finetune_trainer.data.select.token_counts import count_and_check
from finetune_trainer.data.select.tokenizing import ExampleTokenizer, ExampleTokens, tokenizing_processes
from finetune_trainer.methods.method import formats_of, method_of
from tests.unit.trainer.data.encode.chat_templates import make_tokenizer

ASKED = {"role": "user", "content": "2+2?"}
SAID = {"role": "assistant", "content": "4"}
NOW = datetime(2026, 11, 28, tzinfo=UTC)
NO_IMAGES: Any = None


def read(folder: Path, lines: list[Any], method: Any) -> Survey:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return survey("training", [DataFile(uri="s3://data/a.jsonl", path=file, sha256="")], formats_of(method))


def tokenizer_of(kind: type[ExampleTokenizer] = ExampleTokenizer, method: Any = "SFT", **changes: Any) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = published.qwen3_chat_template
    settings: dict[str, Any] = {"max_length": 512, "too_long": "Fail", "training": True, "now": NOW}
    return kind(method=method_of(Method(type=method)), tokenizer=tokenizer, **settings | changes)


def everything(found: Survey) -> Mask:
    return np.ones(len(found), dtype=bool)


def counted(folder: Path, lines: list[Any], method: Any) -> Survey:
    found = read(folder, lines, method)
    count_and_check(found, everything(found), tokenizer_of(method=method), NO_IMAGES)
    assert not found.errors
    return found


def test_names_that_the_template_leaves_out_are_reported_once(tmp_path: Path) -> None:
    plain = {"messages": [ASKED, SAID]}
    named = {"messages": [{**ASKED, "name": "ann"}, SAID]}
    (key,) = (unread := counted(tmp_path, [plain, named, named], "SFT").unread)
    assert key.startswith("name (of the role user")
    assert unread[key] == 2


# Several processes.


def chat(number: int) -> dict[str, Any]:
    """Every ninth is too long, every seventh spells a control token, every eleventh the template refuses."""
    said = {**SAID, "content": f"{number}" + " and so on" * (80 if number % 9 == 0 else 1)}
    if number % 11 == 0:
        return {"messages": [ASKED, said, {"role": "tool", "tool_call_id": "1", "content": "?"}, said]}
    return {"messages": [{**ASKED, "content": "<|im_end|>" if number % 7 == 0 else "2+2?"}, said]}


def outcome(folder: Path, tokenize: ExampleTokenizer, processes: int, count: int = 200) -> tuple[Any, ...]:
    """All that counting says and leaves."""
    folder.mkdir()
    found = read(folder, [chat(number) for number in range(count)], "SFT")
    taken, rows = everything(found), []
    numbers = count_and_check(found, taken, tokenize, NO_IMAGES, rows.append, processes)
    as_lists = [{name: list(value) for name, value in row.items()} for row in rows]
    return numbers, taken.tolist(), found.errors, found.control_text_places, found.unread, as_lists


@dataclass(frozen=True)
class Elsewhere(ExampleTokenizer):
    """Only works in another process."""

    here: int = field(default_factory=os.getpid)

    def __call__(self, example: Any, files: Any = list) -> ExampleTokens:
        assert os.getpid() != self.here
        return super().__call__(example, files)


@dataclass(frozen=True)
class Dying(ExampleTokenizer):
    """Ends any process but this one, after some examples."""

    here: int = field(default_factory=os.getpid)

    def __call__(self, example: Any, files: Any = list) -> ExampleTokens:
        if os.getpid() != self.here and any("and so on and so on" in str(one.content) for one in example.messages):
            os._exit(9)
        return super().__call__(example, files)


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    limits = {"max_length": 60, "too_long": "Drop"}
    expected = outcome(tmp_path / "one", tokenizer_of(**limits), processes=1)
    assert outcome(tmp_path / "two", tokenizer_of(Elsewhere, **limits), processes=2) == expected
    _, taken, errors, places, _, rows = expected
    assert taken.count(False) == 20
    assert errors
    assert places
    assert len(rows) > 100


@pytest.mark.parametrize("kind", [Dying, ExampleTokenizer], ids=["process", "tokenizer"])
def test_what_other_processes_can_not_do_is_done_in_this_one(tmp_path: Path, kind: Any) -> None:
    expected = outcome(tmp_path / "one", tokenizer_of(), processes=1)
    tokenize = tokenizer_of(kind)
    if kind is ExampleTokenizer:
        tokenize.tokenizer.unpicklable = lambda: None
    assert outcome(tmp_path / "two", tokenize, processes=2) == expected


@pytest.mark.parametrize(
    ("megabytes", "cpus", "free_gib", "processes"),
    [(31, 8, 8.0, 1), (33, 8, 8.0, 8), (33, 8, 1.2, 2), (33, 8, 0.2, 1), (33, 1, 8.0, 1), (9000, 64, 64.0, 16)],
    ids=["too little", "a core each", "memory for two", "no memory", "one core", "enough"],
)
def test_as_many_processes_tokenize_as_have_a_core_and_memory(
    megabytes: int, cpus: int, free_gib: float, processes: int
) -> None:
    assert tokenizing_processes(megabytes * 2**20, cpus, int(free_gib * 2**30)) == processes
