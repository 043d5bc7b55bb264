"""What a grader's code may try, and what comes of it: a real process, behind the real walls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

from tests.integration.trainer.sandbox.sandboxed import SECRET, RunningSandbox, error_of

HEAD = """
import ctypes, os, platform, signal, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"

def call(on_x86, on_arm, *arguments):
    result = libc.syscall(on_x86 if x86 else on_arm, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""

REFUSED = {
    "reads a file": "open(item['secret']).read()",
    "reads a file by its descriptor's path": "os.open(item['secret'], os.O_RDONLY)",
    "reads the passwords": "open('/etc/passwd').read()",
    "reads the environment of the first process": "open('/proc/1/environ').read()",
    "reads its own environment of old": "open('/proc/self/environ').read()",
    "reads the environment of its parent": "open(f'/proc/{os.getppid()}/environ').read()",
    "reads the memory of its parent": "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "opens what its parent has open": "os.open(f'/proc/{os.getppid()}/fd/0', os.O_RDWR)",
    "sees what its parent has open": "os.readlink(f'/proc/{os.getppid()}/fd/0')",
    "reads the memory of its parent by a call": "call(310, 270, os.getppid(), 0, 0, 0, 0, 0)",
    "lists the folder of tokens": "os.listdir('/var/run')",
    "lists the root": "os.listdir('/')",
    "opens a TCP socket": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "opens a TCP socket of version 6": "socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
    "opens a UDP socket": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "opens a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW)",
    "opens a Unix socket": "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "opens a pair of sockets": "socket.socketpair()",
    "opens a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "opens a vsock socket": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "asks the metadata address": "socket.create_connection(('169.254.169.254', 80), 1)",
    "connects to its own machine": "socket.create_connection(('127.0.0.1', 1), 1)",
    "forks": "os.fork() or os._exit(0)",
    "forks by a call": "call(56, 220, 17, 0, 0, 0, 0)",
    "starts a program": "subprocess.run(['/bin/true'], check=True)",
    "starts a shell": "os.system('exit 0') in (-1, 32512) and os.fork()",
    "becomes a shell": "os.execv('/bin/sh', ['/bin/sh', '-c', 'exit 0'])",
    "kills its parent": "os.kill(os.getppid(), 0)",
    "kills its group": "os.killpg(os.getpgid(0), 0)",
    "kills by a descriptor": "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)",
    "traces its parent": "call(101, 117, 16, os.getppid(), 0, 0)",
    "takes a namespace": "call(272, 97, 0x10000000)",
    "takes a network namespace": "call(272, 97, 0x40000000)",
    "starts a process in a namespace": "call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)",
    "uses io_uring": "call(425, 425, 1, ctypes.create_string_buffer(120))",
    "uses bpf": "call(321, 280, 0, ctypes.create_string_buffer(120), 120)",
    "mounts": "call(165, 40, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "writes beside its folder": "open(item['secret'] + '.new', 'w')",
    "overwrites a file": "open(item['secret'], 'w')",
    "writes into its libraries": "open(os.__file__, 'a')",
    "deletes a file": "os.remove(item['secret'])",
    "links a file": "os.link(item['secret'], 'mine')",
    "points at a file": "os.symlink(item['secret'], 'mine')",
    "makes a pipe with a name": "os.mkfifo('pipe')",
    "makes a file in memory that can be run": "os.memfd_create('program')",
    "raises its limits": "call(302, 261, 0, 4, ctypes.create_string_buffer(16), 0)",
    "lowers its parent's limits": "__import__('resource').prlimit(os.getppid(), 4, (0, 0))",
    "tells a process of its files": "__import__('fcntl').fcntl(0, 8, os.getppid())",
    "types into a terminal": "__import__('fcntl').ioctl(0, 0x5412, b'x')",
    "changes its priority": "os.nice(1)",
}
"""Each is refused by the kernel, as PermissionError."""


def attempt(statement: str) -> str:
    """A grader that returns 1 if the statement is refused."""
    body = f"try:\n    {statement}\nexcept PermissionError:\n    return 1\nraise AssertionError('it was not refused')\n"
    return f"{HEAD}\ndef grade(sample, item):\n{indent(body, '    ')}"


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
def test_the_kernel_refuses_what_the_code_has_no_business_with(sandbox: RunningSandbox, statement: str) -> None:
    (grade,) = sandbox.grade(attempt(statement), {"secret": str(sandbox.secret)})
    assert grade.score == 1.0, error_of(grade)
    assert sandbox.secret.read_text() == SECRET
    assert [one.name for one in sandbox.path.parent.iterdir() if one.name not in ("scratch", "socket", "secret")] == []


OUTSIDE = (
    "reads a file", "reads the environment of its parent", "lists the root", "opens a TCP socket", "opens a UDP socket",
    "opens a Unix socket", "forks", "starts a program", "kills its parent", "writes beside its folder",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_without_the_walls_none_of_this_would_be_refused(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    program = f"{attempt(REFUSED[name])}\ngrade({{}}, {{'secret': {str(secret)!r}}})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "AssertionError: it was not refused" in ended.stderr


def test_the_code_has_no_environment_and_none_of_our_modules(sandbox: RunningSandbox) -> None:
    (grade,) = sandbox.grade("""
        import os, sys

        def grade(sample, item):
            names = set(os.environ) - {"HOME", "TMPDIR", "LANG", "LC_CTYPE", "MPLCONFIGDIR"}
            assert all(name.endswith("_NUM_THREADS") for name in names), names
            assert not [name for name in sys.modules if "finetune" in name]
            for module in ("finetune_trainer.sandbox.server", "finetune_operator", "finetune_api.pod_contracts.run"):
                try:
                    __import__(module)
                except (ImportError, PermissionError):
                    continue
                raise AssertionError(module)
            return 1
        """)
    assert grade.score == 1.0, error_of(grade)


CODE = """
def bad(sample, item):
    {statement}

def grade(sample, item):
    return bad(sample, item) if item["bad"] else 1
"""


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("[bytearray(1 << 28) for _ in range(64)]", "MemoryError (line 3)"),
        ("'x' * (1 << 33)", "MemoryError (line 3)"),
        ("bad(sample, item)", "RecursionError: maximum recursion depth exceeded"),
        ("import sys; sys.exit(0)", "SystemExit: 0 (line 3)"),
        ("import os; os._exit(0)", "Its process ended with exit code 0 before it returned."),
        ("import os; os.abort()", "Its process was killed by SIG"),
        ("import ctypes; ctypes.string_at(0)", "Its process was killed by SIGSEGV"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (line 3)"),
        ("raise ValueError('x' * 50_000_000)", f"ValueError: {'x' * 500} (line 3)"),
        ("open('big', 'wb').write(bytes(100_000_000))", "File too large"),
        ("[open(__import__('os').devnull) for _ in range(1000)]", "PermissionError"),
        ("[open(str(number), 'w') for number in range(1000)]", "Too many open files"),
    ],
)
def test_what_takes_too_much_costs_its_own_row_alone(sandbox: RunningSandbox, statement: str, error: str) -> None:
    bad, good = sandbox.grade(CODE.format(statement=statement), {"bad": True}, {"bad": False})
    assert error in error_of(bad)
    assert error_of(bad).startswith("python_grader_runtime_error: ")
    assert good.score == 1.0


@pytest.mark.parametrize(
    "statement", ["while True: pass", "while True: print('x' * 1_000_000)", "import time; time.sleep(600)"]
)
def test_what_never_ends_is_killed_when_its_time_is_over(sandbox: RunningSandbox, statement: str) -> None:
    bad, good = sandbox.grade(CODE.format(statement=statement), {"bad": True}, {"bad": False}, timeout=5)
    assert error_of(bad) == (
        "python_grader_runtime_error: It took more than 5 s (timeoutSeconds) for this output, and was killed."
    )
    assert good.score == 1.0


def test_a_signal_handler_does_not_keep_it_alive(sandbox: RunningSandbox) -> None:
    (grade,) = sandbox.grade(
        """
        import signal

        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)

        def grade(sample, item):
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    pass
        """,
        timeout=2,
    )
    assert "It took more than 2 s" in error_of(grade)


def test_nothing_of_it_is_left_behind(sandbox: RunningSandbox) -> None:
    sandbox.grade("def grade(sample, item):\n    open('mine', 'w').write('x')\n    return 1\n")
    assert list(sandbox.scratch.iterdir()) == []
