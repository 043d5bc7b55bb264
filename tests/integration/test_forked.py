"""A forked process of a test goes with the run of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from e2e.cluster.machine import processes

SECONDS = 20.0
PROGRAM = """
import time
from tests.integration.forked import start_forked
if __name__ == "__main__":
    print(start_forked(time.sleep, 60).pid, flush=True)
    time.sleep(60)
"""


def test_it_dies_when_the_run_is_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment)
    assert run.stdout is not None
    forked = processes.identify(int(run.stdout.readline()))
    assert forked is not None
    run.kill()
    run.communicate(timeout=SECONDS)
    deadline = time.monotonic() + SECONDS
    while processes.is_alive(forked):
        assert time.monotonic() < deadline
        time.sleep(0.05)
