"""Ports for servers that start later: nobody has them, and nobody else is given them."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.cluster import ports


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(ports, "LAST", ports.FIRST + 400)
    with ThreadPoolExecutor(8) as pool:
        given = [port for found in pool.map(ports.free_ports, [2] * 50) for port in found]
    assert len(given) == len(set(given)) == 100


def test_a_port_that_is_taken_at_any_address_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "FIRST", port)
        monkeypatch.setattr(ports, "LAST", port + 1)
        assert ports.free_ports(1) == []
