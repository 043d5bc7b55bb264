"""Each benchmark's command line can be made: Typer refuses some annotations only then."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.gpu.__main__ import app


@pytest.mark.parametrize("name", ["controller", "gpu", "rft", "trainer"])
def test_a_benchmarks_command_can_be_made(name: str) -> None:
    assert typer.main.get_command(importlib.import_module(f"benchmarks.{name}.__main__").app)


def test_what_needs_a_gpu_says_that_there_is_none_and_keeps_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    figures = tmp_path / "gpu.json"
    figures.write_text("of an H200")
    ended = CliRunner().invoke(app, ["--json", str(figures), "--only", "resume"])
    assert ended.exit_code == 1
    told = str(ended.exception) + ended.output
    assert "sees no GPU here: nothing was run" in told
    assert "this would measure:\n  resume: the losses of a training that was killed and resumed" in told
    assert figures.read_text() == "of an H200"


def test_a_part_that_does_not_exist_is_refused_before_any_is_run() -> None:
    ended = CliRunner().invoke(app, ["--only", "lora", "--only", "sft"])
    assert ended.exit_code == 2
    assert "There is no sft; the parts are lora, same, resume, qlora, dpo, full." in " ".join(
        word for word in ended.output.split() if word not in "│╭╰─╮╯"
    )
