"""What the lines of a set are, and which of them can't be learned from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.select.survey import refuse_invalid, survey
from finetune_trainer.methods.method import formats_of
from finetune_trainer.process.failures import DiagnosedError

ASKED = {"role": "user", "content": "2+2?"}
SAID = {"role": "assistant", "content": "4"}
WORSE = {"role": "assistant", "content": "5"}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CALLED = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "a", "content": "4"}]
PAIR = {"prompt": [ASKED], "chosen": [SAID], "rejected": [WORSE]}


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_an_answer_of_a_pair_that_holds_the_words_of_a_tool_is_refused_by_line(tmp_path: Path, side: str) -> None:
    after_a_tool = {**PAIR, "prompt": [ASKED, *CALLED]}
    with_a_tool = {**PAIR, side: [*CALLED, SAID]}
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [PAIR, after_a_tool, with_a_tool] + [PAIR] * 9))
    found = survey("training", [DataFile(uri="s3://data/a.jsonl", path=file, sha256="")], formats_of("DPO"))
    with pytest.raises(DiagnosedError) as refused:
        refuse_invalid([found])
    status = refused.value.failure.dataset
    assert status is not None
    assert [error.line for error in status.errors or []] == [3]
    assert f"'{side}' holds a tool's result" in refused.value.failure.message


@pytest.mark.parametrize(
    ("uri", "what_to_do"),
    [
        ("s3://data/a.jsonl", "Correct the file and upload it again: it is checked again automatically."),
        ("configmap://small/a.jsonl", "Correct the ConfigMap 'small': it is checked again automatically."),
    ],
)
def test_what_to_correct_is_where_the_lines_are(tmp_path: Path, uri: str, what_to_do: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [*[PAIR] * 9, {"prompt": 7}]))
    with pytest.raises(DiagnosedError) as refused:
        refuse_invalid([survey("training", [DataFile(uri=uri, path=file, sha256="")], formats_of("DPO"))])
    assert refused.value.failure.message.endswith(what_to_do)


@pytest.mark.parametrize("count", [1, 5, 9])
def test_of_too_few_examples_no_line_is_called_broken(tmp_path: Path, count: int) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(PAIR) + "\n" for _ in range(count)))
    found = survey("training", [DataFile(uri="s3://data/a.jsonl", path=file, sha256="")], formats_of("DPO"))
    with pytest.raises(DiagnosedError) as refused:
        refuse_invalid([found])
    failure = refused.value.failure
    assert failure.message == (
        f"Training file has {count} example(s), but must have at least 10 examples. Add examples to s3://data/a.jsonl "
        "and upload it again: it is checked again automatically."
    )
    assert failure.dataset is not None
    assert (failure.dataset.error_count or 0, failure.dataset.errors or []) == (0, [])


def test_a_validation_set_may_be_small(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(PAIR) + "\n")
    files = [DataFile(uri="s3://data/v.jsonl", path=file, sha256="")]
    found = survey("validation", files, formats_of("DPO"))
    refuse_invalid([found])
    assert (len(found), found.error_count) == (1, 0)
    with pytest.raises(DiagnosedError, match="must have at least 10 examples"):
        refuse_invalid([survey("training", files, formats_of("DPO")), found])
