"""Renders prompts in a separate process, with limits of time and memory. See prompt_worker.py."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from finetune_trainer.serving import prompt_worker
from finetune_trainer.serving.prompt_worker import LENGTH_BYTES, frame

MOST_SECONDS = 10.0
MOST_WAIT_SECONDS = 30.0
START_SECONDS = 120.0


class PromptRefusedError(ValueError):
    """No prompt can be made from the request; the message says why. `parameter`: what the model does not support."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class PromptsBusyError(RuntimeError):
    """The prompts of other requests took too long."""


@dataclass(frozen=True)
class Prompt:
    """A prompt: token ids, and their text."""

    tokens: list[int]
    text: str


class Prompts:
    """Runs one worker, and restarts it after it was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._worker: Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Start the worker now, so that the first request does not wait for it. Raises EOFError if it can't start."""
        async with self._one_at_a_time:
            await self._running()

    async def stop(self) -> None:
        """End the worker."""
        if self._worker is not None and self._worker.returncode is None:
            self._worker.kill()
            await self._worker.wait()

    async def of_messages(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, variables: Mapping[str, Any]
    ) -> Prompt:
        """OpenAI's messages, rendered with the chat template. Raises PromptRefusedError, PromptsBusyError."""
        return await self._make({"messages": messages, "tools": tools, "variables": variables})

    async def of_text(self, text: str) -> Prompt:
        """A plain text, tokenized. Raises PromptRefusedError, PromptsBusyError."""
        return await self._make({"prompt": text})

    async def _make(self, request: Mapping[str, Any]) -> Prompt:
        try:
            framed = frame(request)
        except orjson.JSONEncodeError as error:
            raise PromptRefusedError(f"The request can't be read: {error}.") from error
        async with self._turn():
            worker = await self._running()
            try:
                async with asyncio.timeout(MOST_SECONDS):
                    answer = await _exchange(worker, framed)
            except BaseException as error:
                await self.stop()  # Its late response must not go to the next request.
                raise _explained(error) from error
        if "refused" in answer:
            raise PromptRefusedError(answer["refused"], answer.get("parameter"))
        return Prompt(answer["tokens"], answer["text"])

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(MOST_WAIT_SECONDS):
                await self._one_at_a_time.acquire()
        except TimeoutError:
            raise PromptsBusyError from None
        try:
            yield
        finally:
            self._one_at_a_time.release()

    async def _running(self) -> Process:
        if self._worker is None or self._worker.returncode is not None:
            self._worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                prompt_worker.__name__,
                str(self._folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(START_SECONDS):
                    await _receive(self._worker)
            except BaseException:
                await self.stop()
                raise
        return self._worker


async def _exchange(worker: Process, framed: bytes) -> dict[str, Any]:
    assert worker.stdin is not None
    worker.stdin.write(framed)
    await worker.stdin.drain()
    return await _receive(worker)


async def _receive(worker: Process) -> dict[str, Any]:
    """The worker's next message. Raises EOFError if the worker has ended."""
    assert worker.stdout is not None
    length = int.from_bytes(await worker.stdout.readexactly(LENGTH_BYTES), "big")
    answer: dict[str, Any] = orjson.loads(await worker.stdout.readexactly(length))
    return answer


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return PromptRefusedError(
            f"The prompt was not ready within {MOST_SECONDS:g} seconds: the text is too long, or the model's chat "
            "template does not end."
        )
    if isinstance(error, EOFError | ConnectionError):
        return PromptRefusedError("The prompt takes more memory than the server allows for one request.")
    return error
