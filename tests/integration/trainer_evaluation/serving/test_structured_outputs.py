"""Answers that match a JSON schema, choices and log probabilities: what OpenAI's client gets."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import requests
from jsonschema import validate
from pydantic import BaseModel

from tests.integration.trainer_evaluation.serving.served import CHAT, NAME, Server
from tests.integration.trainer_evaluation.tiny_models import PlainGeneration

QUESTION = "What is this?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
SCHEMA = {
    "type": "object",
    "properties": {"team": {"enum": ["billing", "technical"]}, "urgent": {"type": "boolean"}},
    "required": ["team", "urgent"],
    "additionalProperties": False,
}


def format_of(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "route", "schema": schema, "strict": True}}


def ask(server: Server, **changes: Any) -> Any:
    settings = {"model": NAME, "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    return server.openai.chat.completions.create(**{**settings, **changes})


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_an_answer_matches_its_schema(server: Server, temperature: float) -> None:
    """The model has random weights: left to itself, it writes no JSON at all."""
    answer = ask(server, response_format=format_of(SCHEMA), temperature=temperature, seed=5, max_tokens=110)
    assert answer.choices[0].finish_reason == "stop"
    validate(json.loads(answer.choices[0].message.content), SCHEMA)


class Route(BaseModel):
    urgent: bool


def test_openais_client_parses_the_answer_into_a_model(server: Server) -> None:
    answer = server.openai.chat.completions.parse(
        model=NAME, messages=MESSAGES, temperature=0, max_tokens=110, response_format=Route
    )
    assert isinstance(answer.choices[0].message.parsed, Route)


def test_a_stream_matches_the_schema_too(server: Server) -> None:
    chunks = list(ask(server, response_format=format_of(SCHEMA), stream=True, max_tokens=110))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    validate(json.loads(text), SCHEMA)
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) > 3


def test_json_mode_begins_an_object(server: Server) -> None:
    """A model with random weights does not end it; with those that learned to, it does."""
    answer = ask(server, response_format={"type": "json_object"}, max_tokens=30)
    assert answer.choices[0].message.content.startswith("{")


def test_an_answer_cut_by_its_limit_says_so(server: Server) -> None:
    answer = ask(server, response_format=format_of(SCHEMA), max_tokens=2)
    assert answer.choices[0].finish_reason == "length"


def test_a_schema_that_can_not_be_followed_is_refused(server: Server) -> None:
    for schema, why in (
        ({"not": {"type": "string"}}, "not"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "http://127.0.0.1:1/schema"),
        ({"type": "nonsense"}, "nonsense"),
        ({"multipleOf": 999_983}, "multipleOf"),
        ({"$ref": "#"}, "no text matches it"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "pattern": f"^{'(a?)' * 500}a{{500}}$"}, "too many"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(server, response_format=format_of(schema))
        assert why in refused.value.message
        assert refused.value.param == "response_format"


def test_a_schema_that_takes_minutes_to_compile_is_refused_and_holds_up_no_other_request(server: Server) -> None:
    """Each multiple takes a part of a second, and megabytes. A busy machine may not find it out in time: then 503."""
    multiples = {f"p{number}": {"type": "integer", "multipleOf": 9_999 - number} for number in range(200)}
    patient = server.openai.with_options(timeout=120, max_retries=5)
    with pytest.raises(openai.BadRequestError, match="simplify its patterns and multiples") as refused:
        patient.chat.completions.create(
            model=NAME, messages=MESSAGES, response_format=format_of({"type": "object", "properties": multiples})
        )
    assert refused.value.param == "response_format"
    test_an_answer_matches_its_schema(server, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_fails_within_an_answer_is_the_requests_fault(server: Server, stream: bool) -> None:
    """After the first brace, more may follow than the grammar's limits allow. A client would repeat a 503."""
    wide = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(2000)}}
    with pytest.raises(openai.APIError, match="can't be followed") as refused:
        list(ask(server, response_format=format_of(wide), stream=stream))
    assert refused.value.code == "invalid_value"
    assert stream or isinstance(refused.value, openai.BadRequestError)


def test_a_request_without_a_schema_is_free_beside_one_with_it(server: Server, plain_tuned: PlainGeneration) -> None:
    async def both() -> list[Any]:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        settings: Any = {"model": NAME, "messages": MESSAGES, "temperature": 0}
        async with client:
            return await asyncio.gather(
                client.chat.completions.create(**settings, max_tokens=110, response_format=format_of(SCHEMA)),
                client.chat.completions.create(**settings, max_tokens=20),
            )

    constrained, free = asyncio.run(both())
    validate(json.loads(constrained.choices[0].message.content), SCHEMA)
    assert free.choices[0].message.content == plain_tuned.answer(QUESTION, 20)


def test_n_gives_as_many_answers(server: Server) -> None:
    answer = ask(server, n=3, temperature=1.5, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) > 1
    again = ask(server, n=3, temperature=1.5, seed=1)
    assert [choice.message.content for choice in again.choices] == texts
    assert ask(server, temperature=1.5, seed=1).choices[0].message.content == texts[0]
    assert answer.usage.completion_tokens > 12
    assert answer.usage.prompt_tokens == ask(server).usage.prompt_tokens


def test_a_stream_of_several_choices_has_each_in_its_order(server: Server) -> None:
    whole = ask(server, n=3, temperature=1.5, seed=1)
    texts, ends = ["", "", ""], []
    for chunk in ask(server, n=3, temperature=1.5, seed=1, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends.append(choice.index)
    assert texts == [choice.message.content for choice in whole.choices]
    assert sorted(ends) == [0, 1, 2]


def test_log_probabilities_are_the_models_own(server: Server, plain_tuned: PlainGeneration) -> None:
    answer = ask(server, logprobs=True, top_logprobs=3, temperature=0)
    entries = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == answer.choices[0].message.content
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].token == entry.token, "greedy: the likeliest one"
        assert entry.top_logprobs[0].logprob == entry.logprob <= 0
        assert bytes(entry.bytes).decode() == entry.token
    expected = plain_tuned.logprobs(QUESTION, answer.choices[0].message.content)
    assert all(math.isclose(entry.logprob, value, abs_tol=1e-3) for entry, value in zip(entries, expected, strict=True))


def test_a_stream_has_the_log_probabilities_of_its_text(server: Server) -> None:
    whole = ask(server, logprobs=True).choices[0].logprobs.content
    chunks = list(ask(server, logprobs=True, stream=True))
    parts = [choice.logprobs.content for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert [entry.token for part in parts for entry in part] == [entry.token for entry in whole]
    for chunk in chunks:
        if chunk.choices[0].logprobs:
            text = "".join(entry.token for entry in chunk.choices[0].logprobs.content)
            assert text == chunk.choices[0].delta.content


def test_nothing_of_a_stop_string_is_in_the_log_probabilities(server: Server, plain_tuned: PlainGeneration) -> None:
    text = plain_tuned.answer(QUESTION, 12)
    answer = ask(server, logprobs=True, stop=text[4:7]).choices[0]
    assert "".join(entry.token for entry in answer.logprobs.content) == answer.message.content


def test_a_completion_has_log_probabilities_in_its_own_form(server: Server) -> None:
    answer = server.openai.completions.create(model=NAME, prompt="import ", max_tokens=6, temperature=0, logprobs=2)
    logprobs: Any = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.text_offset == list(range(len(logprobs.tokens)))
    assert all(len(top) == 2 for top in logprobs.top_logprobs)


async def _all_at_once(server: Server, questions: list[str]) -> list[str]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=240, max_retries=0) as client:

        async def stream(question: str) -> str:
            chunks = await client.chat.completions.create(
                model=NAME,
                messages=[{"role": "user", "content": question}],
                temperature=0,
                max_tokens=16,
                stream=True,
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        return list(await asyncio.gather(*(stream(question) for question in questions)))


def test_64_streams_at_once_are_all_answered_each_in_its_order(server: Server, plain_tuned: PlainGeneration) -> None:
    questions = [f"{'What is ' * (number % 5)}number {number}?" for number in range(64)]
    said = asyncio.run(_all_at_once(server, questions))
    assert said == [plain_tuned.answer(question, 16) for question in questions]


def ask_and_leave(server: Server, body: bytes, length: int) -> None:
    """Send a request to the server, and leave."""
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + body)


@pytest.mark.parametrize("sent", ["all of the body", "a part of it"])
def test_a_client_that_leaves_is_no_fault_of_the_server(server: Server, sent: str) -> None:
    """It counts as 499, as nginx has it: an alert on 5xx is about the server."""

    def counted(code: str) -> float:
        lines = requests.get(f"{server.url}/metrics", timeout=10).text.splitlines()
        found = [line for line in lines if line.startswith(f'finetune_serving_requests_total{{code="{code}"')]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    before = {code: counted(code) for code in ("499", "500", "503")}
    body = json.dumps({"model": NAME, "messages": MESSAGES, "max_tokens": 90, "n": 16}).encode()
    ask_and_leave(server, body if sent == "all of the body" else body[:20], len(body))
    for _ in range(200):
        after = {code: counted(code) for code in before}
        if after != before:
            break
        time.sleep(0.1)
    assert after == {**before, "499": before["499"] + 1}


def test_metrics_count_requests_tokens_and_times(server: Server) -> None:
    def value(name: str) -> float:
        lines = requests.get(f"{server.url}/metrics", timeout=10).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def counted() -> dict[str, float]:
        prefix = "finetune_serving_"
        return {
            "ok": value(f'{prefix}requests_total{{code="200",route="{CHAT}"}}'),
            "refused": value(f'{prefix}requests_total{{code="400",route="{CHAT}"}}'),
            "first": value(f"{prefix}time_to_first_token_seconds_count"),
            "tokens": value(f"{prefix}output_tokens_total"),
            "prompt": value(f"{prefix}prompt_tokens_total"),
        }

    before = counted()
    usage = ask(server, n=2).usage
    server.ask("hello", n=0)
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        "ok": 1,
        "refused": 1,
        "first": 1,
        "tokens": usage.completion_tokens,
        "prompt": usage.prompt_tokens,
    }
    assert value("finetune_serving_outputs_running") == value("finetune_serving_outputs_waiting") == 0
