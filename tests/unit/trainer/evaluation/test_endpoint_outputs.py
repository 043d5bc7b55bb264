"""What an API's answer is as an output."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from finetune_api.evaluation import Generation
from finetune_grading.sample import Sample
from finetune_trainer.endpoints.answer_cache import Answer
from finetune_trainer.endpoints.endpoint import Endpoint
from finetune_trainer.outputs.endpoint_outputs import LEAST_BOUND, ask_examples
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt
from finetune_trainer.outputs.output import Output


def output_of(finish_reason: Any = "stop", **message: Any) -> Output:
    """The output of an API that answers with this message."""

    async def post(*_: object) -> Answer:
        return Answer({"choices": [{"message": message, "finish_reason": finish_reason}]})

    endpoint = SimpleNamespace(config=SimpleNamespace(name="large", concurrency=1, prices=None), post=post)
    generation = Generation(max_tokens=16, temperature=0, samples_per_example=1, seed=1)
    asked = [HeldOutExample(1, Prompt("Say 1"), {})]
    (output,) = asyncio.run(ask_examples(cast(Endpoint, endpoint), asked, [[]], generation))
    return output


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "x" * (LEAST_BOUND + 1)},
        {"content": None, "refusal": "x" * (LEAST_BOUND + 1)},
        {"content": None, "tool_calls": [call("look_up", f'"{"x" * LEAST_BOUND}"')]},
        {"content": None, "tool_calls": [call("look_up", " " * LEAST_BOUND + "{}")]},
        {"content": None, "tool_calls": [call("x" * (LEAST_BOUND + 1), "{}")]},
        {"content": "x" * (LEAST_BOUND // 2), "tool_calls": [call("f", "{}")] * LEAST_BOUND},
    ],
    ids=["text", "refusal", "arguments", "spaces", "name", "together"],
)
def test_an_answer_far_longer_than_asked_for_is_none_whatever_part_of_it_is_long(message: dict[str, Any]) -> None:
    output = output_of(**message)
    assert (output.sample, output.refused) == (Sample(""), False)
    assert output.error is not None
    assert "the model 'large' answered with" in output.error.details


def test_what_ended_an_answer_is_known_and_never_long() -> None:
    assert output_of(content="yes").finish_reason == "stop"
    assert output_of("content_filter", content="half").finish_reason == "content_filter"
    assert output_of(None, content="yes").finish_reason is None
    assert len(output_of("x" * 9999, content="yes").finish_reason or "") == 100
