"""The first process of a Pod's container: it runs the command in a child process, and reports how that ended.

It reports what the child itself can't: that it was killed, for its memory or from outside; that it crashed; or that it
makes no progress, in which case it is killed, since a stopped or deadlocked process reacts to nothing else. The last
lines of the log are added to every diagnosis. This process never imports torch, and sleeps except for a check once a
second.

As the container's first process it also passes on SIGTERM and reaps orphans.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import structlog

from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED, EXIT_FAILED, EXIT_SUCCEEDED, Failure
from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.process import heartbeats
from finetune_trainer.supervision.diagnosis import diagnose_end, diagnose_oom_kill
from finetune_trainer.supervision.oom import count_oom_kills
from finetune_trainer.supervision.termination_messages import conclude_for
from finetune_trainer.supervision.watchdog import Watchdog

POLL_SECONDS = 1.0
KILL_SECONDS = 10.0
LOG_BYTES = 16 * 1024
EXIT_KILLED = 128 + signal.SIGKILL
"""The exit code of an agent whose worker was killed."""
_PR_SET_PDEATHSIG = 1

_log = structlog.get_logger()


def supervise(
    command: Callable[[], int],
    *,
    run: TrainRun | None = None,
    beats: Path | None = None,
    watchdog: Watchdog | None = None,
) -> int:
    """Run the command in a child process, and return the exit code for the container.

    `beats`: the file of heartbeats of the processes that train, if that is what the command does.
    """
    oom_kills = count_oom_kills()
    child = _Child(command, beats)
    watchdog = watchdog or Watchdog()
    with _signals(child) as wakeup:
        while child.code is None:
            child.attend(wakeup, POLL_SECONDS)
            found = _poll(child, watchdog)
            if isinstance(found, Failure):
                child.kill()
                return conclude_for(found, child.log)
            if found is not None:
                child.kill()
                return found
    return _conclude_end(child.code, run, child.log, out_of_memory=count_oom_kills() > oom_kills)


def _poll(child: _Child, watchdog: Watchdog) -> Failure | int | None:
    """A stall's diagnosis, or the exit code of a child that was asked to stop and waits for a process that is gone."""
    if child.beats is None or child.code is not None:
        return None
    beats, now = heartbeats.read(child.beats), time.monotonic()
    if child.stop_time is None:
        return watchdog.find_stall(beats, now)
    if watchdog.is_stuck_stopping(beats, child.stop_time, now):
        _log.warning("asked to stop, but the step does not end: another process of the gang is gone")
        return EXIT_DISRUPTED
    return None


def _conclude_end(code: int, run: TrainRun | None, log: str, *, out_of_memory: bool) -> int:
    """Report how a child that ended with this code (a signal: negative) did; returns the container's exit code."""
    if code in (EXIT_SUCCEEDED, EXIT_DISRUPTED):
        return code
    if out_of_memory:
        return conclude_for(diagnose_oom_kill(run), log)
    if code in (-signal.SIGKILL, EXIT_KILLED):
        _log.warning("the trainer was killed from outside (SIGKILL); the next attempt resumes")
    if code in (-signal.SIGKILL, EXIT_KILLED, -signal.SIGTERM):
        return EXIT_DISRUPTED
    how = f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return conclude_for(diagnose_end(how, log), log)


class _Child:
    """The supervised process; what it and its own children write goes through here."""

    def __init__(self, command: Callable[[], int], beats: Path | None) -> None:
        self.beats = beats
        self.code: int | None = None
        self.stop_time: float | None = None
        self._log = b""
        pipes = {target: os.pipe() for target in (1, 2)}
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become_child(command, supervisor, {target: pipe[1] for target, pipe in pipes.items()})
        for _, write_end in pipes.values():
            os.close(write_end)
        self._outputs = {pipe[0]: target for target, pipe in pipes.items()}

    @property
    def log(self) -> str:
        """The end of what it wrote."""
        return self._log.decode(errors="replace")

    def attend(self, wakeup: socket.socket, seconds: float) -> None:
        """Pass on what it writes, for up to `seconds` or until it ends."""
        ready, _, _ = select.select([wakeup.fileno(), *self._outputs], [], [], seconds)
        for descriptor in ready:
            if descriptor in self._outputs:
                self._pass_on(descriptor)
            else:
                wakeup.recv(4096)
        self._reap()
        if self.code is not None:
            self._drain()

    def request_stop(self) -> None:
        """Pass on a SIGTERM."""
        self.stop_time = self.stop_time or time.monotonic()
        if self.code is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and the processes that it started to train."""
        workers = heartbeats.read(self.beats) if self.beats is not None else []
        for pid in {self.pid, *(beat.pid for beat in workers)}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + KILL_SECONDS
        while self.code is None and time.monotonic() < deadline:  # a process that is stuck in a driver may never end
            time.sleep(0.01)
            self._reap()
        self._drain()

    def _pass_on(self, output: int) -> None:
        data = os.read(output, 65536)
        self._log = (self._log + data)[-LOG_BYTES:]
        target = self._outputs[output]
        if not data:
            os.close(output)
            del self._outputs[output]
        while data:
            data = data[os.write(target, data) :]

    def _drain(self) -> None:
        """Pass on what is written already; a process that lives on may hold the pipes open."""
        while ready := select.select(list(self._outputs), [], [], 0)[0]:
            for output in ready:
                self._pass_on(output)

    def _reap(self) -> None:
        """Collect its exit status, and that of the orphans that the first process of a container inherits."""
        anyone = -1 if os.getpid() == 1 else self.pid
        while self.code is None:
            pid, status = os.waitpid(anyone, os.WNOHANG)
            if pid == 0:
                return
            if pid == self.pid:
                self.code = os.waitstatus_to_exitcode(status)


@contextmanager
def _signals(child: _Child) -> Iterator[socket.socket]:
    """Pass SIGTERM on, leave SIGINT to the child (a terminal signals both), and wake up when the child ends."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.request_stop()

    def wake_up(number: int, frame: FrameType | None) -> None:
        """The wakeup descriptor has it."""

    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    handlers = {signal.SIGTERM: pass_on, signal.SIGINT: wake_up, signal.SIGCHLD: wake_up}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        sender.close()
        receiver.close()


def _become_child(command: Callable[[], int], supervisor: int, outputs: dict[int, int]) -> NoReturn:
    """Run the command, and end."""
    code = EXIT_FAILED
    try:
        _die_with(supervisor)
        for target, pipe in outputs.items():
            os.dup2(pipe, target)
        code = command()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else EXIT_FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        end_process(code)


def end_process(code: int) -> NoReturn:
    """End without the interpreter's exit, in which threads of libraries may crash, or wait for a peer that is gone."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with(supervisor: int) -> None:
    """Die with a killed supervisor: on a laptop nothing else would end the child; in a container the kernel does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(EXIT_FAILED)
