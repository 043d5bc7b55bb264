"""Clients that send slowly, never end, or come by the hundred: the others are answered meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
import requests

from finetune_trainer.serving.engine.engine import MOST_WAITING
from finetune_trainer.serving.transport.connections import MOST_CONNECTIONS
from tests.integration.trainer_evaluation.serving.served import CHAT, Server

HALF_HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n".encode()
HALF_BODY = HALF_HEAD + b"Content-Length: 1000\r\n\r\n{"
DEADLINE = 120
"""Of a test: of the server's own limits, none is as long."""


@contextmanager
def connections(server: Server, number: int, sent: bytes) -> Iterator[list[socket.socket]]:
    address = urlsplit(server.url)
    with ExitStack() as opened:
        sockets = []
        for _ in range(number):
            connection = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=DEADLINE)
            sockets.append(opened.enter_context(connection))
            connection.sendall(sent)
        yield sockets


def until_the_end(connection: socket.socket) -> bytes:
    """What the server sends until it ends the connection. Raises TimeoutError if it does not."""
    received = b""
    try:
        while more := connection.recv(4096):
            received += more
    except ConnectionResetError:
        pass
    return received


def test_half_sent_bodies_take_no_place_of_others(server: Server) -> None:
    with connections(server, MOST_WAITING, HALF_BODY):
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200  # after all of those came
        assert server.ask("hello")[0] == 200


@pytest.mark.parametrize("sent", [HALF_HEAD, HALF_BODY])
def test_connections_are_limited_and_the_oldest_without_a_request_makes_room(server: Server, sent: bytes) -> None:
    with connections(server, MOST_CONNECTIONS + 5, sent) as sockets:
        assert server.ask("hello")[0] == 200
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
        for connection in sockets[:5]:
            assert until_the_end(connection) == b"", "cut, not told that its time is over"


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + HALF_HEAD])
def test_a_head_that_does_not_come_in_time_ends_its_connection(server: Server, sent: bytes) -> None:
    with connections(server, 1, sent) as (connection,):
        until_the_end(connection)


def test_a_client_that_goes_on_sending_after_its_answer_is_cut(server: Server) -> None:
    with connections(server, 1, b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n") as (
        connection,
    ):
        connection.settimeout(1)
        for _ in range(DEADLINE):
            try:
                connection.sendall(b"x")
                if not connection.recv(4096):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("it may send for ever")
