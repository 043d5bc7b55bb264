"""The engine behind the server: what it does when the model hangs, when too many ask, and with penalties."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from transformers import GenerationConfig, LlamaConfig

from finetune_trainer.generate.generation import Generator
from finetune_trainer.serving import serve as serve_module
from finetune_trainer.serving.engine import engine as engine_module
from finetune_trainer.serving.engine.capacity import Capacity
from finetune_trainer.serving.engine.engine import Engine
from finetune_trainer.serving.engine.orders import EngineBusyError, GenerationError, Order
from finetune_trainer.serving.engine.sampling import Penalties
from finetune_trainer.serving.serve import build_app
from tests.integration.trainer_evaluation.tiny_models import CONTEXT, make_tokenizer


class Model(torch.nn.Module):
    """Generates as the test says."""

    def __init__(self, generate: Any) -> None:
        super().__init__()
        self.generate = generate
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.generation_config = GenerationConfig()
        self.config = LlamaConfig(max_position_embeddings=CONTEXT)


def generator(generate: Any) -> Generator:
    tokenizer = make_tokenizer()
    return Generator(Model(generate), tokenizer, tokenizer)


@dataclass(frozen=True)
class Hung:
    """A model that does not answer until the test is over, and whether it has been asked."""

    generator: Generator
    asked: threading.Event


@pytest.fixture
def hung() -> Iterator[Hung]:
    asked, over = threading.Event(), threading.Event()

    def generate(**_: Any) -> Any:
        asked.set()
        over.wait(60)
        raise RuntimeError("the test is over")

    yield Hung(generator(generate), asked)
    over.set()


async def test_an_engine_that_hangs_is_stuck_and_its_health_fails(
    hung: Hung, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    made: list[Engine] = []
    monkeypatch.setattr(
        "finetune_trainer.serving.serve.Engine", lambda generator: made.append(Engine(generator)) or made[-1]
    )
    client = TestClient(build_app(tmp_path / "router", hung.generator, "1"))  # without its worker: no prompt is made
    assert client.get("/health").status_code == 200
    made[0].submit([Order([1, 2])])
    assert hung.asked.wait(30)
    assert client.get("/health").status_code == 200
    monkeypatch.setattr(engine_module, "STUCK_SECONDS", 0.3)
    await asyncio.sleep(0.4)
    assert client.get("/health").status_code == 503
    assert client.get("/health").json()["error"]["code"] == "engine_stuck"


async def test_who_would_wait_for_very_many_others_is_refused(hung: Hung, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MOST_WAITING", 2)
    busy = Engine(hung.generator)
    busy.submit([Order([1])])
    assert hung.asked.wait(30), "it is no longer queued"
    busy.submit([Order([1])])
    busy.submit([Order([1])])
    with pytest.raises(EngineBusyError):
        busy.submit([Order([1])])


async def test_a_model_that_fails_fails_one_request() -> None:
    def generate(**_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    failing = Engine(generator(generate))
    for _ in range(2):
        with pytest.raises(GenerationError, match="CUDA out of memory"):
            [piece async for piece in failing.submit([Order([1])]).pieces()]
    assert not failing.is_stuck
    assert failing.lost is None


async def test_a_device_that_computes_nothing_any_more_fails_the_health(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """As CUDA after an illegal access: the error comes again at whatever is asked for, until the process ends."""
    made: list[Engine] = []
    monkeypatch.setattr(
        "finetune_trainer.serving.serve.Engine", lambda generator: made.append(Engine(generator)) or made[-1]
    )

    def generate(**_: Any) -> Any:
        monkeypatch.setattr(torch, "ones", fail)
        fail()

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    client = TestClient(build_app(tmp_path / "router", generator(generate), "1"))
    assert client.get("/health").status_code == 200
    with pytest.raises(GenerationError, match="illegal memory access"):
        [piece async for piece in made[0].submit([Order([1])]).pieces()]
    async with asyncio.timeout(5):
        while (health := client.get("/health")).status_code == 200:  # noqa: ASYNC110 (the engine's thread)
            await asyncio.sleep(0.01)
    assert health.json()["error"]["code"] == "engine_lost"


async def test_a_request_whose_client_left_ends_without_being_generated() -> None:
    first, over = threading.Event(), threading.Event()
    asked = []

    def generate(**given: Any) -> Any:
        asked.append(given["input_ids"].tolist())
        first.set()
        over.wait(10)
        raise RuntimeError("asked for")

    engine = Engine(generator(generate), Capacity(tokens=CONTEXT, rows=1))
    engine.submit([Order([1])])
    left = engine.submit([Order([2])])
    first.wait(10)
    left.cancel()
    over.set()
    async with asyncio.timeout(5):
        with pytest.raises(GenerationError):
            [piece async for piece in left.pieces()]
    assert asked == [[[1]]]


def test_penalties_are_openais_and_leave_the_prompt_alone() -> None:
    scores = torch.zeros(1, 5)
    said = torch.tensor([[4, 4, 1, 1, 2]])  # the prompt, and three tokens of the answer
    penalized = Penalties(2, frequency=0.5, presence=1.0)(said, scores)
    assert penalized.tolist() == [[0.0, -2.0, -1.5, 0.0, 0.0]]


async def ask(app: Any, path: str, receive: Any) -> tuple[int, dict[str, Any]]:
    """The status and the error object that a request gets."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)["error"]


async def test_bodies_that_do_not_end_take_no_places_of_others(
    hung: Hung, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """As many as there are places for requests: one with a whole body is answered all the same."""
    monkeypatch.setattr(serve_module, "MOST_WAITING", 3)
    app = build_app(tmp_path / "router", hung.generator, "1")
    reading, over = asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> dict[str, Any]:
        reading.release()
        await over.wait()
        return {"type": "http.request", "body": b"{", "more_body": False}

    async def whole() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"model": "other", "prompt": "a"}', "more_body": False}

    async with asyncio.timeout(10):
        first = [asyncio.create_task(ask(app, "/v1/chat/completions", slow)) for _ in range(3)]
        for _ in first:
            await reading.acquire()
        status, error = await ask(app, "/v1/completions", whole)
        assert (status, error["code"]) == (404, "model_not_found")
        over.set()
        assert [(await one)[0] for one in first] == [400] * 3  # "{" is no JSON
