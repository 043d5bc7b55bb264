"""The server of the sandbox: takes a grader's code over a Unix socket, and runs it on the rows that follow.

One connection is one grader on one model's outputs. The server itself reads neither code nor rows.
"""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from finetune_trainer.sandbox import scratch as scratches
from finetune_trainer.sandbox.frames import HEADER, MOST_BYTES, FrameError, from_body, length_of, to_frame
from finetune_trainer.sandbox.running_process import EndedError, RunningProcess, SandboxError, TimedOutError
from finetune_trainer.sandbox.self_test import Walls, walls_of

FOLDER = "python-graders"
"""In the folder for temporary files, which is a volume of the container's own."""


def serve(path: Path) -> None:
    """Serve until SIGTERM. Where a wall does not hold, say so to everyone who connects."""
    # Not tempfile.gettempdir(), which raises where an earlier container has left the volume full.
    with SandboxServer(path, Path(os.environ.get("TMPDIR", "/tmp"), FOLDER)) as server:  # noqa: S108
        sys.stderr.write(f"{_first_line(server.walls)}\n")
        server.serve_forever()


class SandboxServer(socketserver.ThreadingUnixStreamServer):
    """Accepts connections, each in a thread of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, scratch: Path) -> None:
        # The volume outlives a container that is killed, and may be full.
        scratches.remove(scratch)
        scratch.mkdir()
        self.scratch = scratch
        self.walls = walls_of(scratch)
        self.turn = threading.Lock()
        """One grader runs at a time: two may need more memory than there is."""
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Connection)
        path.chmod(0o660)  # the evaluation is another user of the same group


def _first_line(walls: Walls) -> str:
    if walls.problem is not None:
        return f"The sandbox of Python graders does not hold here, and will run nothing: {walls.problem}"
    return f"The sandbox of Python graders holds (Landlock {walls.landlock_abi}, seccomp)."


class _Connection(socketserver.BaseRequestHandler):
    server: SandboxServer

    def handle(self) -> None:
        connection, walls = self.request, self.server.walls
        _send(connection, {"landlockAbi": walls.landlock_abi, "problem": walls.problem})
        if walls.problem is not None:
            return
        with self.server.turn, closing(_Grader(self.server.scratch)) as grader, suppress(OSError, FrameError):
            code = _receive(connection)
            while code is not None and (row := _receive(connection)) is not None:
                _send(connection, grader.answer(code["source"], code["timeoutSeconds"], row))


class _Grader:
    """The process of one connection, replaced whenever it can't be trusted to be as new."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._process: RunningProcess | None = None

    def answer(self, source: str, timeout_seconds: int, row: dict[str, Any]) -> dict[str, Any]:
        """The score of a row, or why there is none."""
        try:
            if self._process is not None and self._process.is_worn:
                self.close()
            if self._process is None:
                self._process = RunningProcess(source, timeout_seconds, self._scratch)
            found = self._process.grade(row["sample"], row["item"])
        except TimedOutError:
            self.close()
            return {"timedOut": True}
        except EndedError as error:
            self.close()
            return {"error": str(error)}
        except FrameError as error:  # too long with its number: the process has read nothing of it
            return {"error": str(error)}
        except (SandboxError, OSError) as error:
            self.close()
            return {"problem": str(error)}
        return {"score": found.score} if found.score is not None else {"error": found.error}

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(to_frame(message))


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next message; None once there is none."""
    header = _exactly(connection, HEADER.size)
    if header is None:
        return None
    body = _exactly(connection, length_of(header, MOST_BYTES))
    return None if body is None else from_body(body)


def _exactly(connection: socket.socket, length: int) -> bytes | None:
    found = bytearray()
    while len(found) < length:
        part = connection.recv(min(length - len(found), 1 << 20))
        if not part:
            return None
        found += part
    return bytes(found)
