from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from openai import OpenAI

from e2e.children import with_parent
from tests.integration.trainer_evaluation.tiny_models import CONTEXT, PlainGeneration

NAME = "router"
START_SECONDS = 120
CHAT = "/v1/chat/completions"
# `finetune-trainer serve`, but for the folder and the port, which are fixed in a Pod.
PROGRAM = """
import pathlib, sys
from finetune_trainer.process import environment
environment.exit_on_sigterm()
environment.prepare()
from finetune_trainer.serving.serve import serve
serve(pathlib.Path(sys.argv[1]), port=int(sys.argv[2]), host="127.0.0.1")
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

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", timeout=30, max_retries=0)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        response = requests.post(self.url + path, json=body, timeout=30)
        return response.status_code, response.json()

    def ask(self, question: str, **changes: Any) -> tuple[int, Any]:
        messages = [{"role": "user", "content": question}]
        return self.post(CHAT, {"model": NAME, "messages": messages, "max_tokens": 12, "temperature": 0, **changes})


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watched = Hub(listener)
        threading.Thread(target=watched.watch, daemon=True).start()
        yield watched


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tuned: Path, hub: Hub) -> Iterator[Server]:
    """The real process, as a Pod runs it: no home to write to, no credential, and a hub that it could reach."""
    scratch = tmp_path_factory.mktemp("serve")
    folder = shutil.copytree(tuned, scratch / "models" / NAME)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, str(folder), str(port)]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": "/nonexistent",
        "HF_ENDPOINT": hub.url,
    }
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(with_parent(command), env=environment, stdout=log, stderr=subprocess.STDOUT)
    running = Server(f"http://127.0.0.1:{port}")
    try:
        wait_until_healthy(running, process, scratch / "log")
        yield running
        process.send_signal(signal.SIGTERM)
        process.wait(30)
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


def test_it_answers_the_openai_client_as_the_model_does(server: Server, plain_tuned: PlainGeneration) -> None:
    answer = server.openai.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "What is this?"}], max_tokens=12, temperature=0
    )
    assert answer.model == NAME
    assert answer.choices[0].message.content == plain_tuned.answer("What is this?", 12)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None and answer.usage.completion_tokens <= 12


def test_it_completes_text(server: Server, plain_tuned: PlainGeneration) -> None:
    answer = server.openai.completions.create(model=NAME, prompt="import ", max_tokens=9, temperature=0)
    assert answer.choices[0].text == plain_tuned.complete("import ", 9)


def test_it_streams(server: Server, plain_tuned: PlainGeneration) -> None:
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]
    chunks = list(
        server.openai.chat.completions.create(
            model=NAME, messages=messages, max_completion_tokens=12, temperature=0, stream=True
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain_tuned.answer("What is this?", 12)
    assert len(chunks) > 3
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_a_stream_ends_as_the_protocol_says(server: Server) -> None:
    body = {"model": NAME, "prompt": "x", "max_tokens": 2, "stream": True}
    response = requests.post(f"{server.url}/v1/completions", json=body, timeout=30)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")


def test_the_only_model_is_listed(server: Server) -> None:
    assert [model.id for model in server.openai.models.list()] == [NAME]


@pytest.mark.parametrize("model", ["gpt2", "org/other", "../tuned", "/etc", f"{NAME}@main", f"{NAME}:x.gguf", ""])
def test_another_model_does_not_exist_and_is_not_looked_for(server: Server, hub: Hub, model: str) -> None:
    status, answer = server.ask("hello", model=model)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert server.post("/v1/completions", {"model": model, "prompt": "x"})[0] == 404
    assert hub.visitors == []


@pytest.mark.parametrize(
    "path", ["/load_model", "/reset", "/v1/responses", "/v1/systemone", "/v1/audio/transcriptions", "/docs"]
)
def test_the_routes_of_transformers_serve_that_load_or_unload_are_not_there(
    server: Server, hub: Hub, path: str
) -> None:
    assert server.post(path, {"model": "org/other"})[0] == 404
    assert hub.visitors == []
    assert server.ask("still there?")[0] == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": []}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages.0",
        ),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n:"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"generation_config": "{}"}, "generation_config"),
        ({"chat_template_kwargs": {"chat_template": "{{ 7 * 7 }}"}}, "may not set chat_template"),
        ({"messages": [{"role": "user", "content": "x" * CONTEXT}]}, f"context has {CONTEXT} tokens"),
    ],
)
def test_what_it_would_not_honour_it_refuses(server: Server, changes: dict[str, Any], message: str) -> None:
    status, answer = server.ask("hello", **changes)
    assert status == 400
    assert message in answer["error"]["message"]


def test_an_answer_ends_with_the_context(server: Server) -> None:
    status, answer = server.ask("hello", max_tokens=100_000)
    assert status == 200
    assert answer["usage"]["total_tokens"] <= CONTEXT


def test_a_temperature_samples_and_a_seed_repeats(server: Server) -> None:
    def said(**changes: Any) -> str:
        _, answer = server.ask("Say something", temperature=1.5, max_tokens=20, **changes)
        return str(answer["choices"][0]["message"]["content"])

    assert said(seed=1) == said(seed=1)
    assert said(seed=1) != said(seed=2)
