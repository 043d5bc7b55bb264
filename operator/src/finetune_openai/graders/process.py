"""Starts the process that runs a grader, a few at once, each for a limited time."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from typing import Any

import orjson
import structlog

from finetune_openai.errors import RefusedError, invalid, unavailable
from finetune_openai.graders.request import RunRequest

SECONDS = 60.0
AT_ONCE = 2
"""Each may take a core, and 384 MiB beside the server's memory."""
MOST_OF_A_CALLER = 4
"""Running and waiting."""
_log = structlog.get_logger(__name__)


class GraderProcesses:
    """Those of one server."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)
        self._of_caller: Counter[str] = Counter()

    async def run(self, request: RunRequest, caller: str) -> dict[str, Any]:
        """The body of the answer. Raises RefusedError."""
        if self._of_caller[caller] >= MOST_OF_A_CALLER:
            raise _too_many()
        self._of_caller[caller] += 1
        try:
            output = await self._output_in_turn(request.model_dump_json().encode())
        finally:
            self._of_caller -= Counter([caller])
        answer: dict[str, Any] = orjson.loads(output)
        if "refused" in answer:
            raise invalid(answer["refused"], "grader", "invalid_grader")
        return answer

    async def _output_in_turn(self, request: bytes) -> bytes:
        try:
            async with asyncio.timeout(SECONDS):
                await self._places.acquire()
        except TimeoutError as error:
            raise _too_many() from error
        try:
            return await _output_of(request)
        finally:
            self._places.release()


def _too_many() -> RefusedError:
    return RefusedError(429, "Too many graders are running. Try again later.", code="rate_limit_exceeded")


async def _output_of(request: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "finetune_openai.graders",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate(request)
    except TimeoutError as error:
        raise invalid("The grader took too long. Shorten the texts, or simplify it.", "grader") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return output
    last_words = errors.decode(errors="replace")[-2000:]
    _log.warning("a grader's process failed", exit_code=process.returncode, stderr=last_words)
    if process.returncode in (-signal.SIGKILL, -signal.SIGXCPU) or "MemoryError" in last_words:
        raise invalid("The grader took too much time or memory. Shorten the texts, or simplify it.", "grader")
    raise unavailable("The grader could not be run. Try again later.")
