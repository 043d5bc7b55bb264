"""Responses as OpenAI's objects: whole, or as a stream of chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from finetune_grading.tool_calls import ToolCall
from finetune_trainer.serving.engine.orders import End, Piece
from finetune_trainer.serving.responses.answer_parser import AnswerParser, Kind, Part
from finetune_trainer.serving.responses.logprob_objects import chat_logprobs, completion_logprobs

Route = Literal["chat.completion", "text_completion"]


@dataclass
class Choice:
    """One of the outputs of a response."""

    index: int
    parser: AnswerParser
    parts: list[Part] = field(default_factory=list)
    calls: int = 0
    content_characters: int = 0
    end: End | None = None

    def feed(self, piece: Piece) -> list[Part]:
        """The parts that a piece of the output completes, or its end."""
        if isinstance(piece, End):
            self.end = piece
            return self._kept(self.parser.finish())
        return self._kept(self.parser.feed(piece))

    def begin(self) -> list[Part]:
        """The parts that the prompt ends with."""
        return self._kept(self.parser.begin())

    def text(self, kind: Kind) -> str:
        """All text of a kind so far."""
        return "".join(part.text for part in self.parts if part.kind == kind)

    @property
    def finish_reason(self) -> str:
        """OpenAI's finish reason."""
        assert self.end is not None
        return "tool_calls" if self.calls else self.end.reason

    def _kept(self, parts: list[Part]) -> list[Part]:
        self.parts += parts
        self.calls += sum(part.call is not None for part in parts)
        self.content_characters += sum(len(part.text) for part in parts if part.kind == "content")
        return parts


@dataclass
class Answer:
    """A response in progress, of either route."""

    route: Route
    model: str
    prompt_tokens: int
    choices: Sequence[Choice]
    revision: str
    """Of the model: OpenAI's `system_fingerprint`, by which a client knows that another one answers."""
    with_logprobs: bool = False
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        prefix = "chatcmpl" if self.route == "chat.completion" else "cmpl"
        self.id = f"{prefix}-{uuid.uuid4().hex}"

    async def whole(self, pieces: AsyncIterator[tuple[int, Piece]]) -> dict[str, Any]:
        """The response as one object."""
        for choice in self.choices:
            choice.begin()
        async for index, piece in pieces:
            self.choices[index].feed(piece)
        made = [self._whole_choice(choice) for choice in self.choices]
        return self._object(self.route, made) | {"usage": self.usage}

    async def events(
        self, pieces: AsyncIterator[tuple[int, Piece]], *, with_usage: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The response as chunks; if requested, the last one has the usage and no choice."""
        for choice in self.choices:
            if self.route == "chat.completion":
                yield self._chunk(choice, {"role": "assistant", "content": ""})
            for part in choice.begin():
                yield self._part_chunk(choice, part)
        async for index, piece in pieces:
            choice = self.choices[index]
            for part in choice.feed(piece):
                yield self._part_chunk(choice, part)
            if choice.end is not None:
                yield self._chunk(choice, {}, choice.finish_reason)
        if with_usage:
            yield self._object(self._chunk_kind, []) | {"usage": self.usage}

    @property
    def usage(self) -> dict[str, int]:
        """The token counts of the prompt and of all outputs."""
        completion = sum(choice.end.tokens for choice in self.choices if choice.end is not None)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.route == "chat.completion" else self.route

    def _whole_choice(self, choice: Choice) -> dict[str, Any]:
        made: dict[str, Any] = {
            "index": choice.index,
            "finish_reason": choice.finish_reason,
            "logprobs": self._logprobs(choice.parts),
        }
        content = choice.text("content")
        if self.route == "text_completion":
            return {**made, "text": content}
        calls = [part.call for part in choice.parts if part.call is not None]
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
        if reasoning := choice.text("reasoning_content"):
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [self._call(choice, number, call) for number, call in enumerate(calls)]
        return {**made, "message": message}

    def _part_chunk(self, choice: Choice, part: Part) -> dict[str, Any]:
        if part.call is None:
            return self._chunk(choice, {part.kind: part.text}, logprobs=self._logprobs([part], choice))
        number = sum(before.call is not None for before in choice.parts[: _position(choice.parts, part)])
        return self._chunk(choice, {"tool_calls": [{"index": number, **self._call(choice, number, part.call)}]})

    def _chunk(
        self, choice: Choice, delta: Mapping[str, Any], finish_reason: str | None = None, logprobs: Any = None
    ) -> dict[str, Any]:
        made: dict[str, Any] = {"index": choice.index, "finish_reason": finish_reason, "logprobs": logprobs}
        if self.route == "chat.completion":
            made["delta"] = delta
        else:
            made["text"] = delta.get("content", "")
        return self._object(self._chunk_kind, [made])

    def _logprobs(self, parts: Sequence[Part], of: Choice | None = None) -> dict[str, Any] | None:
        """Those of some parts; `of`: the choice whose latest part it is, if it is one chunk of it."""
        if not self.with_logprobs:
            return None
        entries = [entry for part in parts for entry in part.logprobs]
        if self.route == "chat.completion":
            return chat_logprobs(entries)
        before = 0 if of is None else of.content_characters - sum(len(part.text) for part in parts)
        return completion_logprobs(entries, before)

    def _call(self, choice: Choice, number: int, call: ToolCall) -> dict[str, Any]:
        return {"id": f"call_{self.id[-24:]}_{choice.index}_{number}", **call.to_wire()}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.revision,
            "choices": choices,
        }


def _position(parts: Sequence[Part], part: Part) -> int:
    return next(index for index, other in enumerate(parts) if other is part)


def to_event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"
