"""The evaluation's side of the sandbox of Python graders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from finetune_api.conditions import Reason
from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.grade import RowError
from finetune_grading.graders.python import CodeTimeoutError
from finetune_grading.judge import StopGradingError
from finetune_grading.python_code import RunningCode
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.sandbox.frames import (
    DETAILS_LENGTH,
    HEADER,
    MOST_REPLY_BYTES,
    FrameError,
    from_body,
    length_of,
    to_frame,
)

CONNECT_SECONDS = 120.0
"""For the sandbox's container to start and test itself."""
MARGIN_SECONDS = 120.0
"""Beyond timeoutSeconds: for a new process to start, on a busy node."""
_RETRY_SECONDS = 0.2
_SUGGESTION = (
    "Run evaluations with Python graders on nodes with Linux 5.13 or newer and Landlock (`landlock` in "
    "/sys/kernel/security/lsm), on x86-64 or arm64: evaluation.scheduling of the FineTuneClass says on which. See "
    "docs/explanation/security.md."
)


def sandbox_of(graders: Sequence[Grader], socket: str | None) -> PythonSandbox | None:
    """What runs the code of Python graders; None if there are none. `socket`: the path of the sandbox's.

    Raises DiagnosedError (SandboxUnavailable) where it does not hold: nothing is graded without it.
    """
    if all(grader.type != "Python" for grader in graders):
        return None
    if socket is None:
        raise DiagnosedError(
            Reason.SANDBOX_UNAVAILABLE,
            "There are Python graders, and the Pod has no sandbox for them. Nothing was graded without it.",
            suggestion="Update the operator to the version of its trainer image: it adds the container python-sandbox.",
        )
    sandbox = PythonSandbox(socket)
    asyncio.run(sandbox.check())
    return sandbox


@dataclass(frozen=True)
class PythonSandbox:
    """Runs the code of Python graders in the sandbox behind a Unix socket."""

    path: str
    connect_seconds: float = CONNECT_SECONDS

    async def check(self) -> None:
        """Raise DiagnosedError (SandboxUnavailable) unless all of its walls hold."""
        _, writer = await self._connect()
        writer.close()

    @asynccontextmanager
    async def run(self, source: str, timeout_seconds: int) -> AsyncIterator[RunningCode]:
        """The code, for one row after another. Raises StopGradingError."""
        code = _Connected(self, source, timeout_seconds)
        try:
            await code.connect()
            yield code
        finally:
            code.close()

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `connect`, but raises StopGradingError."""
        try:
            return await self._connect()
        except DiagnosedError as error:
            raise StopGradingError from error

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, and wait for the server's word that the walls hold. Raises DiagnosedError."""
        try:
            async with asyncio.timeout(self.connect_seconds):
                reader, writer = await self._open()
                greeting = await _receive(reader)
        except (TimeoutError, EOFError, OSError, FrameError) as error:
            raise DiagnosedError(
                Reason.SANDBOX_UNAVAILABLE,
                f"The sandbox of Python graders at {self.path} did not answer within {self.connect_seconds:g} s "
                f"({type(error).__name__}). Nothing was graded without it.",
                retryable=True,
                suggestion="See the log of the container python-sandbox.",
            ) from error
        problem = greeting.get("problem")
        if problem is not None or not isinstance(greeting.get("landlockAbi"), int):
            writer.close()
            _refuse(str(problem))
        return reader, writer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """It listens once it has tested itself."""
        while True:
            try:
                return await asyncio.open_unix_connection(self.path)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)


class _Connected:
    """A connection, which is one process of the sandbox at a time."""

    def __init__(self, sandbox: PythonSandbox, source: str, timeout_seconds: int) -> None:
        self._sandbox = sandbox
        self._timeout_seconds = timeout_seconds
        self._code = to_frame({"source": source, "timeoutSeconds": timeout_seconds})
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises StopGradingError."""
        if self._streams is None:
            self._streams = await self._sandbox.connected()
            self._streams[1].write(self._code)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        """Raises RowError, StopGradingError."""
        try:
            frame = to_frame({"sample": sample, "item": item})
        except FrameError as error:
            raise RowError(GraderErrorCode.OTHER_ERROR, str(error)) from error
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(self._timeout_seconds + MARGIN_SECONDS):
                writer.write(frame)
                await writer.drain()
                answer = await _receive(reader)
        except (TimeoutError, EOFError, OSError, FrameError) as error:
            self.close()
            # Its container was killed, as for its memory, and starts again: the next row finds it there.
            details = f"The sandbox ended before it answered ({type(error).__name__}); this may be this output's fault."
            raise RowError(GraderErrorCode.PYTHON_GRADER_SERVER_ERROR, details, passing=True) from error
        return self._score(answer)

    def _score(self, answer: Mapping[str, Any]) -> float:
        if (problem := answer.get("problem")) is not None:
            try:
                _refuse(str(problem))
            except DiagnosedError as error:
                raise StopGradingError from error
        if answer.get("timedOut") is True:
            raise CodeTimeoutError(self._timeout_seconds)
        score = answer.get("score")
        if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1:
            return float(score)
        details = _shown(answer.get("error"), 2 * DETAILS_LENGTH)
        raise RowError(GraderErrorCode.PYTHON_GRADER_RUNTIME_ERROR, details)


def _refuse(problem: str) -> NoReturn:
    raise DiagnosedError(
        Reason.SANDBOX_UNAVAILABLE,
        f"The sandbox of Python graders does not hold on this node, and nothing was graded without it: "
        f"{_shown(problem, DETAILS_LENGTH)}",
        suggestion=_SUGGESTION,
    )


def _shown(text: object, most: int) -> str:
    """At most so many characters, all of which can be written: JSON may escape one half of a character."""
    return str(text)[:most].encode(errors="replace").decode()


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Raises FrameError, EOFError (IncompleteReadError is one)."""
    header = await reader.readexactly(HEADER.size)
    return from_body(await reader.readexactly(length_of(header, MOST_REPLY_BYTES)))
