"""Separates what a model says into text, reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import structlog
from transformers.utils.chat_parsing import ResponseParser

from finetune_grading.tool_calls import ToolCall
from finetune_trainer.generate.tool_calls import ResponseTemplate, to_calls
from finetune_trainer.process.failures import first_line
from finetune_trainer.serving.engine.orders import Text, TokenLogprob

Kind = Literal["content", "reasoning_content"]

_log = structlog.get_logger()


@dataclass(frozen=True)
class Part:
    """A part of a response as the client gets it: text of one kind, or a tool call."""

    kind: Kind = "content"
    text: str = ""
    call: ToolCall | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens that this part completes: of content alone."""


class AnswerParser:
    """Separates tool calls and reasoning from text by the model's response template; without one, all is text."""

    def __init__(self, template: ResponseTemplate | None, prompt: str) -> None:
        self._parser = None if template is None else ResponseParser(dict(template), prefix=prompt)
        self._unread = ""
        self._special: set[str] = set()
        self._logprobs: tuple[TokenLogprob, ...] = ()
        """Of the tokens whose text no part has yet."""

    def begin(self) -> list[Part]:
        """The parts of the start of the response that is at the end of the prompt."""
        return [] if self._parser is None else list(self._parts(self._parser.initial_events))

    def feed(self, piece: Text) -> list[Part]:
        """The parts that a piece of the output completes; the log probabilities go with the first content."""
        self._logprobs += piece.logprobs
        return self._with_logprobs(self._fed(piece))

    def _fed(self, piece: Text) -> list[Part]:
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
        return self._with_logprobs(self._finished())

    def _finished(self) -> list[Part]:
        if self._parser is None:
            return []
        try:
            return list(self._parts(self._parser.finalize()[1]))
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            return self._give_up(error)

    def _with_logprobs(self, parts: list[Part]) -> list[Part]:
        """The parts, the first content with what is known of its tokens; of other parts OpenAI has none."""
        if parts:
            first = next(
                (index for index, part in enumerate(parts) if part.call is None and part.kind == "content"), None
            )
            if first is not None:
                parts[first] = replace(parts[first], logprobs=self._logprobs)
            self._logprobs = ()
        return parts

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
