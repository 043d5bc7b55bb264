"""`finetune-trainer validate --screen` names flagged lines, without their text."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from finetune_trainer.__main__ import app

SECRET = "AKIAIOSFODNN7EXAMPLE"


def dataset(folder: Path, *answers: str) -> Path:
    file = folder / "train.jsonl"
    texts = [*answers, *(f"Answer {number}." for number in range(12))]
    lines = [json.dumps({"prompt": f"Question {at}?", "completion": text}) for at, text in enumerate(texts)]
    file.write_text("\n".join(lines))
    return file


def test_flagged_lines_are_named_and_are_no_error(tmp_path: Path) -> None:
    file = dataset(tmp_path, f"The key is {SECRET}.", "Fine.", f"{SECRET}, jane@acme-corp.de")
    result = CliRunner().invoke(app, ["validate", "--screen", str(file)])
    assert result.exit_code == 0
    assert "2 example(s) flagged: Secret (line 1, 3)" in result.output
    assert "1 example(s) flagged: EmailAddress (line 3)" in result.output
    assert SECRET not in result.output


def test_a_clean_file_says_so_and_without_the_option_nothing_is_screened(tmp_path: Path) -> None:
    clean = CliRunner().invoke(app, ["validate", "--screen", str(dataset(tmp_path))])
    assert "no rule flags an example" in clean.output
    asked = CliRunner().invoke(app, ["validate", str(dataset(tmp_path, SECRET))])
    assert "flag" not in asked.output
