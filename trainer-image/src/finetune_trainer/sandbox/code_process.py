"""The process in which a grader's code runs: it locks itself in, reads the code, and answers rows.

Started as `python -I -c`, by running_process.py. From the first line of the code on, nothing in this process is to be
trusted: whoever reads its answers checks them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

from finetune_trainer.sandbox import landlock, seccomp
from finetune_trainer.sandbox.frames import DETAILS_LENGTH, HEADER, MOST_BYTES, from_body, length_of, to_frame
from finetune_trainer.sandbox.limits import MEMORY_BYTES, MOST_FILE_BYTES, MOST_FILES, MOST_THREADS

_NAME = "<source>"
_OWN = "finetune"
"""In the names of our own packages, which the code does not get to read."""
_OF_PYTHON = ("_frozen_importlib", "importlib._bootstrap")
_OF_PACKAGES = ("purelib", "platlib")
ROUNDING = 1e-9
_SHARED = ("/lib", "/lib64", "/usr/lib", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/urandom")
"""What libraries load and read."""
_PR_SET_PDEATHSIG = 1


def main(replies: int) -> None:
    """Read the settings, lock in, and answer rows until there are no more. `replies`: the descriptor to answer to."""
    rows, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(replies, "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    settings = _read(rows)
    if settings is None:
        return
    try:
        version = _lock_in(settings)
    except (OSError, ValueError) as error:
        _write(answers, {"problem": f"{type(error).__name__}: {error}"[:DETAILS_LENGTH]})
        return
    source, grader = settings["source"], None
    _forget_ourselves()
    _write(answers, {"landlockAbi": version})
    while (row := _read(rows)) is not None:
        try:
            grader = grader or _load(source)
            found: dict[str, Any] = {"score": _number(grader(row["sample"], row["item"]))}
        except BaseException as error:
            found = {"error": _described(error)}
        _write(answers, {"id": row["id"], **found})


def _lock_in(settings: Mapping[str, Any]) -> int:
    """Returns the version of Landlock. Raises OSError where a wall can't be put up."""
    scratch = Path(settings["folder"])
    os.chdir(scratch)
    _die_with_the_server(settings["server"])
    cpu = int(settings["cpuSeconds"])
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, MOST_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (resource.RLIMIT_NPROC, MOST_THREADS),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    # Exceeded, it fails the write with an error rather than the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    readable = [*_libraries(), *(Path(path) for path in _SHARED)]
    seccomp.set_no_new_privileges()
    version = landlock.restrict(readable, _package_folders(), [scratch])
    seccomp.restrict()
    return version


def _die_with_the_server(server: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) != 0 or os.getppid() != server:
        raise OSError("the server of the sandbox has ended")


def _libraries() -> list[Path]:
    """Python's standard library, and the installed packages but for our own."""
    kept = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", *_OF_PACKAGES)}
    kept |= {one / "lib-dynload" for one in kept}
    # Not the folders of packages that are installed as links, ours among them.
    sys.path[:] = [path for path in sys.path if Path(path) in kept]
    sys.path_importer_cache.clear()
    found = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platstdlib"))]
    for folder in _package_folders():
        found += [one for one in folder.iterdir() if _OWN not in one.name]
    return found


def _package_folders() -> list[Path]:
    return [folder for name in _OF_PACKAGES if (folder := Path(sysconfig.get_path(name))).is_dir()]


def _forget_ourselves() -> None:
    """The code gets neither our modules nor what finds packages that are installed as links."""
    sys.meta_path[:] = [one for one in sys.meta_path if getattr(one, "__module__", "").startswith(_OF_PYTHON)]
    for name in [one for one in sys.modules if _OWN in one]:
        del sys.modules[name]


def _load(source: str) -> Callable[[Any, Any], Any]:
    """The function that the code defines. Raises whatever the code does."""
    module = ModuleType("grader")
    sys.modules["grader"] = module  # dataclasses and pickle look for it there
    exec(compile(source, _NAME, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 # behind both walls
    found: Any = getattr(module, "grade", None)
    if not callable(found):
        raise _BadCodeError("it defines no function grade(sample, item)")
    return cast("Callable[[Any, Any], Any]", found)


class _BadCodeError(Exception):
    """What the code does is no error to Python, but it gives no score."""


def _number(value: Any) -> float:
    """The score. Raises _BadCodeError for what is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _BadCodeError(f"grade returned a {type(value).__name__}; it has to return a number from 0 to 1")
    number = float(value)
    if not -ROUNDING <= number <= 1 + ROUNDING:
        raise _BadCodeError(f"grade returned {number:g}; it has to return a number from 0 to 1")
    return min(1.0, max(0.0, number))


def _described(error: BaseException) -> str:
    """What was raised, and in which line of the source. Nothing that the code may have overridden can raise here."""
    try:
        kind = "" if isinstance(error, _BadCodeError) else f"{type(error).__name__}: "
        line = _line(error)
        text = str(error)[:DETAILS_LENGTH]
        return f"{kind}{text}".removesuffix(": ") + ("" if line is None else f" (line {line})")
    except BaseException:
        return "it raised an exception that can't be shown"


def _line(error: BaseException) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == _NAME:
        return error.lineno
    frames = traceback.walk_tb(error.__traceback__)
    return next((line for frame, line in reversed(list(frames)) if frame.f_code.co_filename == _NAME), None)


def _read(rows: BinaryIO) -> dict[str, Any] | None:
    """The next message; None where there is none."""
    header = rows.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    return from_body(rows.read(length_of(header, MOST_BYTES)))


def _write(answers: BinaryIO, message: Mapping[str, Any]) -> None:
    with suppress(BrokenPipeError):
        answers.write(to_frame(message))
        answers.flush()
