"""Landlock: which files a process may read and write, from now on and for good.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The numbers of the system calls, the same on every architecture."""
_RULE_PATH_BENEATH = 1
_CREATE_RULESET_VERSION = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_FIRST_RIGHTS = 13
"""Of files, in the first version. Later ones: REFER (2), TRUNCATE (3) and IOCTL_DEV (5)."""
_RIGHTS_ADDED = {2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _REFER = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 13
_NO_TCP = (1 << 0) | (1 << 1)
"""Bind and connect."""
_SCOPED = (1 << 0) | (1 << 1)
"""Abstract Unix sockets, and signals to processes outside."""
_OF_READERS = _READ_FILE | _READ_DIR
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)


class LandlockError(OSError):
    """The kernel does not restrict the process."""


def abi() -> int:
    """The version of Landlock that the kernel has; 0 for none."""
    found = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    return max(0, int(found))


def restrict(readable: Iterable[Path], listed: Iterable[Path], writable: Iterable[Path]) -> int:
    """Leave this thread, and those that it starts, only these files and folders; returns the version of Landlock.

    `listed`: folders of which only the names are shown, on all levels. Nothing may be executed, and no TCP port be
    used. `no_new_privs` has to be set. Raises LandlockError.
    """
    version = abi()
    if version < 1:
        raise LandlockError("the kernel has no Landlock, or its `lsm=` does not name it")
    handled = (1 << _FIRST_RIGHTS) - 1
    for added_in, right in _RIGHTS_ADDED.items():
        handled |= right if version >= added_in else 0
    attributes = struct.pack("=Q", handled)
    attributes += struct.pack("=Q", _NO_TCP) if version >= 4 else b""
    attributes += struct.pack("=Q", _SCOPED) if version >= 6 else b""
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(ruleset, path, _OF_READERS & handled)
        for path in listed:
            _allow(ruleset, path, _READ_DIR)
        for path in writable:
            both = _OF_READERS | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
            _allow(ruleset, path, both & handled)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """A path that does not exist is left out."""
    try:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(at).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, at)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(at)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise LandlockError(error, f"Landlock: {os.strerror(error)}")
    return result
