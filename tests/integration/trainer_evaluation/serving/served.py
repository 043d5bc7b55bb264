"""A running `finetune-trainer serve`, and a hub that it could reach."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from openai import OpenAI

from e2e.cluster.machine.children import with_parent
from e2e.cluster.machine.ports import free_ports

NAME = "router"
START_SECONDS = 120
STOP_SECONDS = 15
CHAT = "/v1/chat/completions"
# `finetune-trainer serve`, but for the folder and the port, which are fixed in a Pod.
PROGRAM = """
import pathlib, sys
from finetune_trainer.process import environment
environment.exit_on_sigterm()
environment.prepare()
from finetune_trainer.serving.serve import serve
folder, port, linger = sys.argv[1:]
serve(pathlib.Path(folder), "sha256:aa", port=int(port), host="127.0.0.1", linger_seconds=float(linger))
"""


@dataclass
class Hub:
    """Stands where the model hub would be, and counts who comes."""

    listener: socket.socket
    visitors: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def watch(self) -> None:
        while True:
            try:
                connection, address = self.listener.accept()
            except OSError:  # closed: the test is over
                return
            self.visitors.append(address)
            connection.close()


@dataclass(frozen=True)
class Server:
    """A running `finetune-trainer serve`."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", timeout=30, max_retries=0)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        response = requests.post(self.url + path, json=body, timeout=30)
        return response.status_code, response.json()

    def ask(self, question: str, **changes: Any) -> tuple[int, Any]:
        messages = [{"role": "user", "content": question}]
        return self.post(CHAT, {"model": NAME, "messages": messages, "max_tokens": 12, "temperature": 0, **changes})


@contextmanager
def serving(model: Path, scratch: Path, hub: Hub, *, linger_seconds: float = 0) -> Iterator[Server]:
    """The real process, as a Pod runs it: no home to write to, no credential, and a hub that it could reach."""
    folder = shutil.copytree(model, scratch / "models" / NAME)
    (port,) = free_ports(1)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(port), str(linger_seconds)]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": "/nonexistent",
        "HF_ENDPOINT": hub.url,
    }
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(with_parent(command), env=environment, stdout=log, stderr=subprocess.STDOUT)
    running = Server(f"http://127.0.0.1:{port}", process)
    try:
        wait_until_healthy(running, process, scratch / "log")
        yield running
        process.send_signal(signal.SIGTERM)
        # Before uvicorn gives up on requests that do not end; well, or a Pod that is scaled away ends as Error.
        assert linger_seconds or process.wait(STOP_SECONDS) == 0
    finally:
        process.kill()
        process.wait(30)


def wait_until_healthy(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    pytest.fail(f"the server is not healthy after {START_SECONDS} s:\n{log.read_text()[-3000:]}")
