"""seccomp: the system calls that a process may make, from now on and for good.

What is not listed fails with EPERM. There is no maintained binding to libseccomp that works without its shared library,
a compiler or a writable folder, and the filter is short: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_DENY, _UNKNOWN = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Of classic BPF: an absolute word; jumps by a constant; the verdict."""
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in the kernel's struct seccomp_data."""
_X32 = 0x40000000
"""From here on, x86-64 takes numbers for those of another ABI."""
_THREADS = (0x003D0F00, 0x007D0F00)
"""The flags with which glibc and musl start a thread. No others: those of a process, or of a namespace."""
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)
"""What Python asks of files: TCGETS, TIOCGWINSZ, FIONREAD, FIONCLEX, FIOCLEX."""
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
"""F_DUPFD to F_SETLKW, and F_DUPFD_CLOEXEC. F_SETOWN would send signals to others."""

_CALLS: dict[str, tuple[int | None, int | None]] = {
    # Memory.
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "mincore": (27, 232), "membarrier": (324, 283),
    # Files: which ones, Landlock decides.
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "open": (2, None), "openat": (257, 56),
    "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "ftruncate": (77, 46), "fsync": (74, 82), "fdatasync": (75, 83), "fallocate": (285, 47),
    "fadvise64": (221, 223), "copy_file_range": (326, 285), "sendfile": (40, 71), "flock": (73, 32),
    "umask": (95, 166),
    # Descriptors.
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None),
    "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    # Time, and random numbers.
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    "getrandom": (318, 278),
    # Itself, its signal handlers and its threads.
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158), "sysinfo": (99, 179), "uname": (63, 160),
    "getcpu": (309, 168), "sched_getaffinity": (204, 123), "sched_yield": (24, 124), "arch_prctl": (158, None),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "futex": (202, 98), "set_tid_address": (218, 96), "set_robust_list": (273, 99),
    "rseq": (334, 293), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""What graders may call, by its numbers on x86-64 and on aarch64."""


@dataclass(frozen=True)
class _Special:
    """The numbers of calls of which the arguments count."""

    clone: int
    clone3: int
    prlimit64: int
    ioctl: int
    fcntl: int


_ARCHITECTURES = {
    "x86_64": (0xC000003E, 0, _Special(clone=56, clone3=435, prlimit64=302, ioctl=16, fcntl=72)),
    "aarch64": (0xC00000B7, 1, _Special(clone=220, clone3=435, prlimit64=261, ioctl=29, fcntl=25)),
}
"""Their number in AUDIT_ARCH_*, their column in _CALLS, and their special calls."""


class SeccompError(OSError):
    """The kernel does not filter the process's system calls."""


def set_no_new_privileges() -> None:
    """Give up all privileges that a file could bring, which Landlock and seccomp require. Raises SeccompError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def restrict() -> None:
    """Leave this thread, and those that it starts, only the calls listed. Raises SeccompError."""
    program = _program(platform.machine())
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    whole = Program(len(program) // 8, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(whole))


def _program(machine: str) -> bytes:
    """The filter, in the kernel's struct sock_filter."""
    if machine not in _ARCHITECTURES:
        raise SeccompError(f"there is no filter for {machine}, only for {', '.join(_ARCHITECTURES)}")
    architecture, column, special = _ARCHITECTURES[machine]
    numbers = sorted(number for call in _CALLS.values() if (number := call[column]) is not None)
    lines = [
        _line(_LOAD, _ARCHITECTURE),
        *_unless(_EQUAL, architecture, _KILL_PROCESS),
        _line(_LOAD, _NUMBER),
        *_if(_AT_LEAST, _X32, _KILL_PROCESS),
        # Without it, glibc starts threads by clone, whose flags can be read.
        *_if(_EQUAL, special.clone3, _UNKNOWN),
        *_by_argument(special.clone, 0, [line for one in _THREADS for line in _if(_EQUAL, one, _ALLOW)]),
        *_by_argument(special.ioctl, 1, [line for one in _IOCTLS for line in _if(_EQUAL, one, _ALLOW)]),
        *_by_argument(special.fcntl, 1, [line for one in _FCNTLS for line in _if(_EQUAL, one, _ALLOW)]),
        *_reads_limits(special.prlimit64),
        *(line for number in numbers for line in _if(_EQUAL, number, _ALLOW)),
        _line(_RETURN, _DENY),
    ]
    return b"".join(lines)


def _reads_limits(number: int) -> list[bytes]:
    """prlimit64 without new limits: neither half of the pointer to them is set."""
    low = _ARGUMENTS + 2 * 8
    inside = [
        _line(_LOAD, low),
        *_unless(_EQUAL, 0, _DENY),
        _line(_LOAD, low + 4),
        *_unless(_EQUAL, 0, _DENY),
        _line(_RETURN, _ALLOW),
    ]
    return [_line(_EQUAL, number, 0, len(inside)), *inside]


def _by_argument(number: int, argument: int, allowing: list[bytes]) -> list[bytes]:
    """For one call, the lower half of an argument decides; what is not allowed is denied."""
    inside = [_line(_LOAD, _ARGUMENTS + 8 * argument), *allowing, _line(_RETURN, _DENY)]
    return [_line(_EQUAL, number, 0, len(inside)), *inside]


def _if(test: int, value: int, verdict: int) -> list[bytes]:
    return [_line(test, value, 0, 1), _line(_RETURN, verdict)]


def _unless(test: int, value: int, verdict: int) -> list[bytes]:
    return [_line(test, value, 1, 0), _line(_RETURN, verdict)]


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [*arguments, *([0] * (4 - len(arguments)))]
    if libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(one) for one in padded)) != 0:
        error = ctypes.get_errno()
        raise SeccompError(error, f"seccomp: {os.strerror(error)}")
