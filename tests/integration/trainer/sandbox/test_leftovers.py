"""What a grader leaves in its folder is gone before another one runs, whatever it did so that it stays."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import pytest

from finetune_api.graders import Grader
from finetune_grading.grade import Grade
from finetune_grading.graders.python import PythonGrader
from finetune_grading.registered_graders import compile_graders
from finetune_grading.sample import Row, Sample
from finetune_trainer.sandbox.client import PythonSandbox
from finetune_trainer.sandbox.server import FOLDER

NO_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""As in the Pod: with root's, a folder's rights would not count."""
KEPT = {
    "a folder that its owner can not list": """
        os.mkdir("closed", 0o300)
        open("closed/file", "w").write("x")
        """,
    "a folder that its owner can not even enter": """
        os.mkdir("outer")
        os.mkdir("outer/closed", 0)
        """,
    "folders as deep as it likes": """
        at = os.open(".", os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("deep", dir_fd=at)
            inner = os.open("deep", os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = inner
        """,
    "folders that can not be listed within each other": """
        for depth in range(1, 300):
            os.mkdir("/".join(["deep"] * depth), 0o300)
        """,
    "files and folders that can not be written": """
        os.close(os.open("file", os.O_CREAT, 0))
        os.mkdir("open")
        open("open/file", "w").write("x")
        os.umask(0o777)
        os.makedirs("open/closed")
        """,
}


@contextmanager
def sandbox_beside(scratch: Path) -> Iterator[PythonSandbox]:
    """The command that runs in the container, upon this volume."""
    with TemporaryDirectory(prefix="sandbox-") as folder:
        path = Path(folder, "socket")
        command = [*NO_CAPABILITIES, sys.executable, "-m", "finetune_trainer", "python-sandbox", str(path)]
        environment = {"TMPDIR": str(scratch), "PATH": os.environ["PATH"]}
        with subprocess.Popen(command, env=environment) as process:
            try:
                yield PythonSandbox(str(path))
            finally:
                process.terminate()
                assert process.wait(60) == 0


def graded(sandbox: PythonSandbox, body: str) -> Grade:
    source = "import os\n\ndef grade(sample, item):\n" + "".join(
        f"    {line}\n" for line in [*dedent(body).strip().splitlines(), "return 1"]
    )
    spec = {"name": "code", "type": "Python", "python": {"source": source}}
    (grader,) = compile_graders([Grader.from_wire(spec)], runner=sandbox)
    assert isinstance(grader, PythonGrader)
    (grade,) = asyncio.run(grader.grade([Row({}, Sample(""))]))
    return grade


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Removed by rm, which the deepest folders do not stop."""
    with TemporaryDirectory(prefix="scratch-") as folder:
        yield Path(folder)
        subprocess.run(["rm", "-rf", *map(str, Path(folder).iterdir())], check=True)


@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT)
def test_nothing_of_it_is_left_for_the_next_grader(scratch: Path, body: str) -> None:
    with sandbox_beside(scratch) as sandbox:
        assert graded(sandbox, body).score == 1.0
        assert graded(sandbox, "pass").score == 1.0  # its turn came after the first one had been tidied up
    assert list((scratch / FOLDER).glob("*/*")) == []


def test_what_a_killed_container_has_left_is_removed_when_it_starts_again(scratch: Path) -> None:
    closed = scratch / FOLDER / "grader-of-before" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").write_text("x")
    closed.chmod(0o300)
    with sandbox_beside(scratch) as sandbox:
        assert graded(sandbox, "pass").score == 1.0
        assert not closed.parent.exists()
