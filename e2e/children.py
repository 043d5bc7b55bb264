"""Children that end with who started them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path


def with_parent(argv: Sequence[str | Path]) -> list[str]:
    """The command, but the kernel kills it when the thread that starts it ends, however that comes to its end.

    It keeps its pid and status. On systems without Linux's `setpriv` it is the command as it is.
    """
    words = [str(word) for word in argv]
    setpriv = shutil.which("setpriv")
    if setpriv is None or shutil.which(words[0]) is None:  # who starts it is told that there is no such command
        return words
    return [setpriv, "--pdeathsig", "KILL", "--", *words]
