from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.integration.trainer_evaluation.serving.served import NAME, Hub, Server
from tests.integration.trainer_evaluation.tiny_models import CONTEXT, PlainGeneration
from tests.unit.docs.pages import blocks


def test_it_answers_the_openai_client_as_the_model_does(server: Server, plain_tuned: PlainGeneration) -> None:
    answer = server.openai.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "What is this?"}], max_tokens=12, temperature=0
    )
    assert answer.model == NAME
    assert answer.choices[0].message.content == plain_tuned.answer("What is this?", 12)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None and answer.usage.completion_tokens <= 12


def test_the_documentations_code_asks_it(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code = [block.text for block in blocks() if block.page.name == "use-a-model.md" and block.language == "python"]
    names: dict[str, object] = {"__name__": "__main__"}
    for block in code:
        code_of_test = block.replace("http://localhost:8000", server.url).replace('"support"', repr(NAME))
        exec(compile(code_of_test, "use-a-model.md", "exec", dont_inherit=True), names)  # noqa: S102
    said = capsys.readouterr().out.strip().splitlines()
    assert said[-1].startswith("team=") and "urgent=" in said[-1]


def test_a_completion_is_what_the_model_generates_by_itself(server: Server, plain_tuned: PlainGeneration) -> None:
    answer = server.openai.completions.create(model=NAME, prompt="import ", max_tokens=9, temperature=0)
    assert answer.choices[0].text == plain_tuned.complete("import ", 9)


def test_a_stream_has_the_text_of_the_whole_answer_in_parts(server: Server, plain_tuned: PlainGeneration) -> None:
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
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"n": 17}, "'n'"),
        ({"logit_bias": {"7": 1}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs"),
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
