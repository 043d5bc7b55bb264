"""Outputs of a model behind an API: one OpenAI chat completion for each sample of an example."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_api.evaluation import Generation
from finetune_api.graders import GraderErrorCode
from finetune_grading.concurrency import for_each
from finetune_grading.grade import GradeError, RowError
from finetune_grading.sample import Sample
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.endpoints.answer_cache import Answer
from finetune_trainer.endpoints.asked_model import CHAT, AskedModel
from finetune_trainer.endpoints.asking import ask_all, cost_of
from finetune_trainer.endpoints.endpoint import Endpoint
from finetune_trainer.outputs.asked import Asked
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt, keep_images, refuse
from finetune_trainer.outputs.output import Output
from finetune_trainer.report.evaluation_progress import OutputCounter
from finetune_trainer.storage.storage import Storage

LONGEST_TOKEN, LEAST_BOUND = 256, 65_536
"""Characters: an output that has more of them for each of its tokens, and at all, is none that was asked for."""
LONGEST_REASON = 100
"""Characters of an API's finish_reason that are shown."""


def ask_model(
    name: str,
    model: AskedModel,
    run: Asked,
    examples: Sequence[HeldOutExample],
    storage: Storage,
    progress: OutputCounter,
) -> list[Output]:
    """The outputs of a model behind an API. Raises DiagnosedError if it can't be asked."""
    endpoint = model.endpoint
    refuse(run.dataset_uri, foreign_tools(examples))
    with tempfile.TemporaryDirectory(prefix="images-") as directory:
        images = keep_images(ImageStore(Path(directory), storage, tuple(run.allowed_images)), examples, run.dataset_uri)
        return ask_all(
            lambda: ask_examples(endpoint, examples, images, run.generation, lambda: progress.made(name)),
            {endpoint.config.name: model},
            f"{name}: asking {endpoint.config.url}",
        )


async def ask_examples(
    endpoint: Endpoint,
    examples: Sequence[HeldOutExample],
    images: Sequence[Sequence[Path]],
    generation: Generation,
    on_output: Callable[[], None] = lambda: None,
) -> list[Output]:
    """The model's outputs, samplesPerExample for each example, in the order of the examples.

    An output that the model did not give has an error that says why. `images`: the image files of each example;
    `on_output` is called after each output. Raises StopGradingError.
    """
    questions = [
        (example.prompt, files, sample)
        for example, files in zip(examples, images, strict=True)
        for sample in range(generation.samples_per_example)
    ]
    outputs: dict[int, Output] = {}

    async def ask(at: int) -> None:
        outputs[at] = await _ask(endpoint, _body(*questions[at], generation), generation)
        on_output()

    # Bodies with images are large, so each is built only when it is sent.
    await for_each(range(len(questions)), ask, at_once=endpoint.config.concurrency)
    return [outputs[at] for at in range(len(questions))]


def _body(prompt: Prompt, images: Sequence[Path], sample: int, generation: Generation) -> dict[str, Any]:
    return {
        "messages": to_messages(prompt, images),
        "temperature": generation.temperature,
        **({} if generation.top_p is None else {"top_p": generation.top_p}),
        # A seed of its own makes each sample a request of its own, which the cache of answers keeps apart.
        "seed": (generation.seed + sample) % 2**32,
        "max_completion_tokens": generation.max_tokens,
        # Only the function: an API must not act on anything else that a dataset puts there, such as a server's address.
        **({"tools": [_function_tool(tool) for tool in prompt.tools]} if prompt.tools else {}),
    }


def _function_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tool[name] for name in ("type", "function") if name in tool}


def foreign_tools(examples: Sequence[HeldOutExample]) -> list[LineError]:
    """The lines with tools that are not functions.

    An API may run such a tool itself, on a server that the dataset names, and bill for it.
    """
    return [
        example.error(f"Tools of type {tool.get('type')!r} are not sent to an API, only those of type 'function'.")
        for example in examples
        for tool in example.prompt.tools
        if tool.get("type") != "function"
    ]


async def _ask(endpoint: Endpoint, body: Mapping[str, Any], generation: Generation) -> Output:
    try:
        answer = await endpoint.post(CHAT, body, is_output)
    except RowError as error:
        is_over = error.error.code is GraderErrorCode.BUDGET_EXCEEDED
        return Output(Sample(""), error.error if is_over else replace(error.error, code=GraderErrorCode.NO_OUTPUT))
    return _to_output(endpoint, answer, generation)


def _to_output(endpoint: Endpoint, answer: Answer, generation: Generation) -> Output:
    choice = answer.body["choices"][0]
    message, reason = choice["message"], choice.get("finish_reason")
    calls, counted = read_calls(message.get("tool_calls") or []) or (), isinstance(answer.body.get("usage"), Mapping)
    # A refusal is an output as well: users would read it.
    text, refusal = message.get("content") or "", message.get("refusal") or ""
    why = None if (text or refusal).strip() or calls else _why_silent(endpoint, reason, generation)
    if (size := _characters(message)) > max(LEAST_BOUND, LONGEST_TOKEN * generation.max_tokens):
        text, refusal, calls = "", "", ()
        why = f"the model {endpoint.config.name!r} answered with {size:,} characters"
    return Output(
        Sample(text or refusal, calls),
        None if why is None else GradeError(GraderErrorCode.NO_OUTPUT, why),
        prompt_tokens=answer.prompt_tokens if counted else None,
        completion_tokens=answer.completion_tokens if counted else None,
        cost=cost_of(endpoint.config.prices, answer.prompt_tokens, answer.completion_tokens) if counted else None,
        seconds=answer.seconds,
        without=answer.without,
        truncated=reason == "length",
        finish_reason=None if reason is None else str(reason)[:LONGEST_REASON],
        refused=bool(refusal.strip()) and not text.strip() and not calls,
    )


def _characters(message: Mapping[str, Any]) -> int:
    """Of all that a message of a known form says."""
    called = [call["function"] for call in message.get("tool_calls") or []]
    said = [message.get("content") or "", message.get("refusal") or ""]
    return sum(map(len, said)) + sum(len(one["name"]) + len(one["arguments"]) for one in called)


def _why_silent(endpoint: Endpoint, reason: object, generation: Generation) -> str | None:
    """Why an empty output does not count as one; None if the model just had nothing to say."""
    model = f"the model {endpoint.config.name!r}"
    if reason == "content_filter":
        return f"a content filter of {model} withheld it"
    if reason == "length":
        used = f"spec.generation.maxTokens ({generation.max_tokens})"
        return f"{model} used up {used} before it said anything, for example by reasoning; raise it"
    return None


def is_output(body: Mapping[str, Any]) -> bool:
    """Whether a body is a response of OpenAI's chat/completions with a text, a refusal, or tool calls."""
    match body:
        case {"choices": [{"message": {**message}}, *_]}:
            said = [message.get("content"), message.get("refusal")]
            calls = read_calls(message.get("tool_calls") or [])
            is_known = "content" in message or "refusal" in message or bool(calls)
            return is_known and calls is not None and all(text is None or isinstance(text, str) for text in said)
    return False


def read_calls(value: object) -> tuple[ToolCall, ...] | None:
    """Tool calls in OpenAI's format; None for anything else. Arguments that are not JSON stay text."""
    if not isinstance(value, list):
        return None
    calls: list[ToolCall] = []
    for call in value:
        match call:
            case {"function": {"name": str(name), "arguments": str(arguments)}}:
                try:
                    calls.append(ToolCall.from_wire(call))
                except ValueError:
                    calls.append(ToolCall(name, arguments))
            case _:
                return None
    return tuple(calls)


def to_messages(prompt: Prompt, images: Sequence[Path]) -> list[dict[str, Any]]:
    """A prompt as OpenAI's API takes it: plain text becomes a message of the user.

    Images are data URIs of the same pixels that a model loaded in this Pod would get.
    """
    if isinstance(prompt.content, str):
        return [{"role": "user", "content": prompt.content}]
    files, ids = iter(images), _Ids()
    written = prompt.arguments or [()] * len(prompt.content)
    return [_message(one, arguments, files, ids) for one, arguments in zip(prompt.content, written, strict=True)]


class _Ids:
    """The ids of tool calls: the dataset's, or numbers, which are assigned to the tools' results in the same order."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[str] = []

    def of_call(self, known: str | None) -> str:
        self._count += 1
        self._open.append(known or f"call_{self._count}")
        return self._open[-1]

    def of_result(self, known: str | None) -> str | None:
        if known is None:
            return self._open.pop(0) if self._open else None
        if known in self._open:
            self._open.remove(known)
        return known


def _message(message: Mapping[str, Any], written: Sequence[str], files: Iterator[Path], ids: _Ids) -> dict[str, Any]:
    asked = {name: value for name, value in message.items() if name in ("role", "name", "content")}
    if isinstance(message["content"], list):
        asked["content"] = [_part(part, files) for part in message["content"]]
    if "tool_calls" in message:
        asked["tool_calls"] = [
            {
                "id": ids.of_call(call.get("id")),
                "type": "function",
                "function": {"name": call["function"]["name"], "arguments": arguments},
            }
            for call, arguments in zip(message["tool_calls"], written, strict=True)
        ]
    if message["role"] == "tool" and (found := ids.of_result(message.get("tool_call_id"))) is not None:
        asked["tool_call_id"] = found
    return asked


def _part(part: Mapping[str, Any], files: Iterator[Path]) -> dict[str, Any]:
    if part["type"] != "image":
        return dict(part)
    content = base64.b64encode(next(files).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}}
