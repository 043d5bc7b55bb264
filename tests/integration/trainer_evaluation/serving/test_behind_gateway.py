"""Our own server behind the gateway: what a client gets is what the server gives."""

from __future__ import annotations

import asyncio

from finetune_gateway.servers import by_name
from tests.integration.gateway.gateways import CHAT, gateway
from tests.integration.trainer_evaluation.serving.served import NAME, Server

ASKED = {"model": NAME, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "temperature": 0}


async def test_answers_streams_models_and_errors_are_the_servers(server: Server) -> None:
    _, direct = await asyncio.to_thread(server.ask, "hello")
    async with gateway([server.url]) as found:
        async with found.session.post(found.url + CHAT, json=ASKED) as response:
            assert response.headers["x-finetune-revision"] == "sha256:aa"
            answer = await response.json()
        assert (answer["choices"], answer["usage"]) == (direct["choices"], direct["usage"])
        client = found.openai
        stream = await client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "hello"}], max_tokens=12, temperature=0, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == direct["choices"][0]["message"]["content"]
        assert [model.id async for model in client.models.list()] == [NAME]
        await client.close()
        status, error = await found.ask(model="another")
        assert (status, error["error"]["code"]) == (404, "model_not_found")


async def test_a_client_that_leaves_the_gateway_ends_its_generation(server: Server) -> None:
    async with gateway([server.url]) as found:
        left = 'finetune_serving_requests_total{code="499",route="/v1/chat/completions"}'
        found.metrics_url, its_own = server.url, found.metrics_url
        before = await found.sample(left)
        response = await found.session.post(
            found.url + CHAT, json={**ASKED, "max_tokens": 100, "n": 16, "stream": True}
        )
        await response.content.readany()
        response.close()
        await found.until(left, before + 1)
        found.metrics_url = its_own


async def test_the_servers_are_the_addresses_of_a_name() -> None:
    assert "http://127.0.0.1:8000" in await by_name("localhost", 8000)()
