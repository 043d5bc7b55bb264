"""Responses as OpenAI's objects: whole, or as a stream of chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import structlog
from transformers.utils.chat_parsing import ResponseParser

from finetune_grading.tool_calls import ToolCall
from finetune_trainer.generate.tool_calls import ResponseTemplate, to_calls
from finetune_trainer.process.failures import first_line
from finetune_trainer.serving.engine import End, Text

Kind = Literal["content", "reasoning_content"]

_log = structlog.get_logger()


@dataclass(frozen=True)
class Part:
    """A part of a response as the client gets it: text of one kind, or a tool call."""

    kind: Kind = "content"
    text: str = ""
    call: ToolCall | None = None


class AnswerParser:
    """Separates tool calls and reasoning from text by the model's response template; without one, all is text."""

    def __init__(self, template: ResponseTemplate | None, prompt: str) -> None:
        self._parser = None if template is None else ResponseParser(dict(template), prefix=prompt)
        self._unread = ""
        self._special: set[str] = set()

    def begin(self) -> list[Part]:
        """The parts of the start of the response that is at the end of the prompt."""
        return [] if self._parser is None else list(self._parts(self._parser.initial_events))

    def feed(self, piece: Text) -> list[Part]:
        """The parts that a piece of the output completes."""
        if self._parser is None:
            return [] if piece.special else [Part(text=piece.text)]
        if piece.special:
            self._special.add(piece.text)
        self._unread += piece.text
        try:
            return list(self._parts(self._parser.feed(piece.text)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return self._give_up(error)

    def finish(self) -> list[Part]:
        """The parts that the end of the output completes."""
        if self._parser is None:
            return []
        try:
            return list(self._parts(self._parser.finalize()[1]))
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            return self._give_up(error)

    def _parts(self, events: Iterable[Mapping[str, Any]]) -> Iterable[Part]:
        for event in events:
            region, kind = event.get("field"), event["type"]
            if kind == "region_chunk" and not event.get("dirty") and event.get("text"):
                if region in ("content", "thinking"):
                    self._unread = ""
                    yield Part("content" if region == "content" else "reasoning_content", self._plain(event["text"]))
            elif kind == "region_close" and region == "tool_calls":
                calls = to_calls([event.get("value")])
                self._unread = ""
                yield from (Part(call=call) for call in calls)

    def _plain(self, text: str) -> str:
        """The text without special tokens that the parser did not recognize as delimiters."""
        for token in self._special:
            text = text.replace(token, "")
        return text

    def _give_up(self, error: Exception) -> list[Part]:
        """Return an invalid tool call, and everything after it, as text, so that the client sees the output."""
        _log.info(f"an output is not in the model's format: {first_line(error)}")
        text, self._parser, self._unread = self._plain(self._unread), None, ""
        return [Part(text=text)] if text else []


def marks_in(template: Any) -> str:
    """All text of a response template, with patterns unescaped."""
    if isinstance(template, Mapping):
        template = list(template.values())
    if isinstance(template, list | tuple):
        return "\n".join(marks_in(item) for item in template)
    return template.replace("\\", "") if isinstance(template, str) else ""


@dataclass
class Answer:
    """A response in progress, of either route."""

    route: Literal["chat.completion", "text_completion"]
    model: str
    prompt_tokens: int
    parser: AnswerParser
    revision: str
    """Of the model: OpenAI's `system_fingerprint`, by which a client knows that another one answers."""
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))
    calls: int = 0
    end: End | None = None

    def __post_init__(self) -> None:
        prefix = "chatcmpl" if self.route == "chat.completion" else "cmpl"
        self.id = f"{prefix}-{uuid.uuid4().hex}"

    async def parts(self, pieces: AsyncIterator[Text | End]) -> AsyncIterator[Part]:
        """The parts as they arrive; `end` is set after the last one."""
        for part in self.parser.begin():
            yield part
        async for piece in pieces:
            if isinstance(piece, End):
                for part in self.parser.finish():
                    yield self._counted(part)
                self.end = piece
            else:
                for part in self.parser.feed(piece):
                    yield self._counted(part)

    async def whole(self, pieces: AsyncIterator[Text | End]) -> dict[str, Any]:
        """The response as one object."""
        parts = [part async for part in self.parts(pieces)]
        texts = {kind: "".join(part.text for part in parts if part.kind == kind) for kind in _KINDS}
        calls = [part.call for part in parts if part.call is not None]
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason, "logprobs": None}
        if self.route == "text_completion":
            choice["text"] = texts["content"]
        else:
            message: dict[str, Any] = {"role": "assistant", "content": texts["content"] or (None if calls else "")}
            message["refusal"] = None
            if texts["reasoning_content"]:
                message["reasoning_content"] = texts["reasoning_content"]
            if calls:
                message["tool_calls"] = [self._call(number, call) for number, call in enumerate(calls)]
            choice["message"] = message
        return self._object(self.route, [choice]) | {"usage": self.usage}

    async def events(
        self, pieces: AsyncIterator[Text | End], *, with_usage: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The response as chunks; if requested, the last one has the usage and no choice."""
        if self.route == "chat.completion":
            yield self._chunk({"role": "assistant", "content": ""})
        async for part in self.parts(pieces):
            if part.call is not None:
                yield self._chunk({"tool_calls": [{"index": self.calls - 1, **self._call(self.calls - 1, part.call)}]})
            else:
                yield self._chunk({part.kind: part.text})
        yield self._chunk({}, self.finish_reason)
        if with_usage:
            yield self._object(self._chunk_kind, []) | {"usage": self.usage}

    @property
    def finish_reason(self) -> str:
        """OpenAI's finish reason."""
        assert self.end is not None
        return "tool_calls" if self.calls else self.end.reason

    @property
    def usage(self) -> dict[str, int]:
        """The token counts of prompt and completion."""
        assert self.end is not None
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.end.tokens,
            "total_tokens": self.prompt_tokens + self.end.tokens,
        }

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.route == "chat.completion" else self.route

    def _counted(self, part: Part) -> Part:
        self.calls += part.call is not None
        return part

    def _call(self, number: int, call: ToolCall) -> dict[str, Any]:
        return {"id": f"call_{self.id[-24:]}_{number}", **call.to_wire()}

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        if self.route == "chat.completion":
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        return self._object(self._chunk_kind, [choice])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.revision,
            "choices": choices,
        }


_KINDS: tuple[Kind, Kind] = ("content", "reasoning_content")


def to_event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"
