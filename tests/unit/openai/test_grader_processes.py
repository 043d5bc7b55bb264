"""Graders run in processes of their own, which end in any case."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_openai.errors import RefusedError
from finetune_openai.graders import process
from finetune_openai.graders.process import GraderProcesses
from finetune_openai.graders.request import RunRequest

REQUEST = RunRequest(grader={"type": "string_check"}, model_sample="")


def program(folder: Path, text: str) -> str:
    """A program in place of Python."""
    file = folder / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
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
async def test_one_that_fails_is_reported_by_what_ended_it(
    text: str, status: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, text))
    with pytest.raises(RefusedError, match=why) as refused:
        await GraderProcesses().run(REQUEST, "a")
    assert refused.value.status == status


async def test_one_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def seen(*command: Any, **settings: Any) -> asyncio.subprocess.Process:
        started.append(await start(*command, **settings))
        monkeypatch.setattr(process, "SECONDS", 0.0)
        return started[0]

    monkeypatch.setattr(sys, "executable", program(tmp_path, "exec sleep 600"))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", seen)
    with pytest.raises(RefusedError, match="took too long"):
        await GraderProcesses().run(REQUEST, "a")
    assert started[0].returncode == -signal.SIGKILL


async def test_a_caller_has_only_so_many_and_others_wait_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, "exec sleep 600"))
    processes = GraderProcesses()
    waiting = [asyncio.create_task(processes.run(REQUEST, "a")) for _ in range(process.MOST_OF_A_CALLER)]
    await asyncio.sleep(0)
    with pytest.raises(RefusedError) as refused:
        await processes.run(REQUEST, "a")
    assert refused.value.status == 429
    monkeypatch.setattr(process, "SECONDS", 0.0)
    with pytest.raises(RefusedError) as refused:
        await processes.run(REQUEST, "b")
    assert refused.value.status == 429, "no place became free in time"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
