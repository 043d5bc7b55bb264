"""Code of graders, run on rows in a real sandbox."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any

from finetune_api.graders import Grader
from finetune_grading.grade import Grade
from finetune_grading.graders.python import PythonGrader
from finetune_grading.registered_graders import compile_graders
from finetune_grading.sample import Row, Sample
from finetune_trainer.sandbox.client import PythonSandbox
from finetune_trainer.sandbox.server import SandboxServer

SECRET = "the storage's credentials"


class RunningSandbox:
    """A sandbox's server in this process, and a file beside its processes' folders that they must not read."""

    def __init__(self, server: SandboxServer, path: Path, scratch: Path) -> None:
        self.server = server
        self.path = path
        self.scratch = scratch
        self.secret = path.with_name("secret")
        self.secret.write_text(SECRET)

    def grade(self, source: str, *items: Mapping[str, Any], output: str = "", timeout: int = 60) -> list[Grade]:
        """What the code says of an output to each of these items (one empty item by default)."""
        rows = [Row(item, Sample(output)) for item in items or ({},)]
        found = asyncio.run(self.grader(source, timeout).grade(rows))
        with self.server.turn:  # once it has tidied up
            return found

    def grader(self, source: str, timeout: int = 60) -> PythonGrader:
        spec = {"name": "code", "type": "Python", "python": {"source": dedent(source), "timeoutSeconds": timeout}}
        (grader,) = compile_graders([Grader.from_wire(spec)], runner=PythonSandbox(str(self.path)))
        assert isinstance(grader, PythonGrader)
        return grader


@contextmanager
def running_sandbox() -> Iterator[RunningSandbox]:
    """Its socket's path has to be short."""
    with TemporaryDirectory(prefix="sandbox-") as folder:
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        path = Path(folder, "socket")
        with SandboxServer(path, scratch) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            try:
                yield RunningSandbox(server, path, scratch)
            finally:
                server.shutdown()
                thread.join()


def error_of(grade: Grade) -> str:
    """The code and the details of an Errored row."""
    assert grade.error is not None, grade
    assert (grade.score, grade.verdict) == (None, "Errored")
    return f"{grade.error.code}: {grade.error.details}"
