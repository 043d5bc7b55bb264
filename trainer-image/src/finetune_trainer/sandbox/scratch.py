"""Folders that a grader's code has filled, as whoever removes them finds them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it. No process may use it any more.

    The code may have made folders that forbid their owner to list them, and folders within each other deeper than a
    stack or a path may be: each gets its rights back and is moved up into the first one, to be emptied there. There
    are no links: Landlock refuses to make them. What can't be removed is left.
    """
    left = [folder]
    while left:
        at = left.pop()
        with suppress(OSError):
            for one in list(at.iterdir()):
                if one.is_dir():
                    left.append(_moved_up(one, folder))
                else:
                    one.unlink()
            if at != folder:
                at.rmdir()
    with suppress(OSError):
        folder.rmdir()


def _moved_up(inner: Path, folder: Path) -> Path:
    """Its new path, with a name that the code can't have taken. Raises OSError."""
    inner.chmod(0o700)
    return inner.rename(folder / f"removed-{token_hex(16)}")
