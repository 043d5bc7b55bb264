"""Ports for servers that start later: nobody has them, and nobody else is given them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.cluster.machine import ports


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(ports, "LAST", ports.FIRST + 400)
    with ThreadPoolExecutor(8) as pool:
        given = [port for found in pool.map(ports.free_ports, [2] * 50) for port in found]
    assert len(given) == len(set(given)) == 100


def test_no_port_is_given_to_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of one run of the tests, or two runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = (
        "import sys\n"
        "from e2e.cluster.machine import ports\n"
        "ports.FIRST, ports.LAST = 11000, 11060\n"
        "print(*ports.free_ports(60), flush=True)\n"
        "sys.stdin.read()\n"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path
        )
        for _ in range(2)
    )
    given = [run.stdout.readline().split() for run in (first, second) if run.stdout is not None]
    for run in (first, second):
        run.communicate(timeout=20)
    assert not set(given[0]) & set(given[1])
    command = [sys.executable, "-c", program]
    third = subprocess.run(command, input="", capture_output=True, text=True, env=path, check=True)
    assert set(third.stdout.split()) >= set(given[0]) | set(given[1]), "who has ended needs none"


def test_a_port_that_is_taken_at_any_address_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "FIRST", port)
        monkeypatch.setattr(ports, "LAST", port + 1)
        assert ports.free_ports(1) == []
