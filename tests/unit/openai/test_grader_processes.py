"""Graders run in processes of their own, which end in any case."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from finetune_openai.errors import RefusedError
from finetune_openai.graders import process
from finetune_openai.graders.process import GraderProcesses
from finetune_openai.graders.request import RunRequest

REQUEST = RunRequest(grader={"type": "string_check"}, model_sample="")


def program(folder: Path, text: str) -> str:
    """A program in place of Python."""
    file = folder / "program"
    file.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("kill -XCPU $$", 400, "too much time or memory"),
        ("kill -KILL $$", 400, "too much time or memory"),
        ("echo MemoryError >&2; exit 1", 400, "too much time or memory"),
        ("exit 1", 503, "Try again later"),
    ],
)
async def test_one_that_fails_is_told_by_what_ended_it(
    text: str, status: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, text))
    with pytest.raises(RefusedError, match=why) as refused:
        await GraderProcesses().run(REQUEST)
    assert refused.value.status == status


async def test_one_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, "exec sleep 600"))
    monkeypatch.setattr(process, "SECONDS", 3.0)
    with pytest.raises(RefusedError, match="took too long"):
        await GraderProcesses().run(REQUEST)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_only_so_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, "exec sleep 600"))
    processes = GraderProcesses()
    waiting = [asyncio.create_task(processes.run(REQUEST)) for _ in range(process.MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(RefusedError) as refused:
        await processes.run(REQUEST)
    assert refused.value.status == 429
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
