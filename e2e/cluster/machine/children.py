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


def guarded(argv: Sequence[str | Path]) -> list[str]:
    """The command with a guard, who kills its process group, so all of its children too, when its input ends.

    To be started with a pipe as its input, in a session of its own: the pipe ends when we close it, or end ourselves.
    The command keeps its pid and status, and reads nothing.
    """
    return ["sh", "-c", _GUARD, "sh", *(str(word) for word in argv)]


# The guard's parent ends at once, so that the command has no child that it does not know of.
_GUARD = 'exec 3<&0 </dev/null; ( (read -r end; kill -KILL 0) <&3 & ); exec 3<&-; exec "$@"'
