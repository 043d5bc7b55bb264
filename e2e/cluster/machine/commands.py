"""Short commands of which the answer is wanted."""

from __future__ import annotations

import subprocess
from pathlib import Path

from e2e.steps import StepFailed

SECONDS = 60.0


def run(*argv: str | Path, input: str | None = None, timeout: float = SECONDS) -> str:
    """Run a command and return what it printed. Raises StepFailed with what it said when it fails."""
    done = _done(argv, input, timeout)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise StepFailed(f"`{' '.join(map(str, argv))}` ended with status {done.returncode}: {said}")
    return done.stdout


def ask(*argv: str | Path, timeout: float = SECONDS) -> str | None:
    """Like `run`, but None where the command fails: for questions, and for removing what may be gone."""
    done = _done(argv, None, timeout)
    return done.stdout if done.returncode == 0 else None


def _done(argv: tuple[str | Path, ...], text: str | None, timeout: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(word) for word in argv],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StepFailed(f"`{' '.join(map(str, argv))}`: {error}") from error
