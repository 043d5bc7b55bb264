"""The process that renders messages with the model's chat template and tokenizes them.

A template is code from a model's folder, and a text may have megabytes. In a process of their own both are bounded: the
server kills the process when it takes too long, and the kernel limits its memory to MOST_MEMORY_BYTES.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import orjson

if TYPE_CHECKING:
    from finetune_trainer.data.encode.prompt_parts import PromptPart

MOST_MEMORY_BYTES = 4 * 2**30
"""Limit of the address space, of which the libraries take about 1 GiB."""
LENGTH_BYTES = 4
LONGEST_MESSAGE = 500


def frame(message: Mapping[str, Any]) -> bytes:
    """A message for the pipe: its length, followed by its JSON. Raises orjson.JSONEncodeError."""
    body = orjson.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def main(folder: Path) -> None:
    """Answer requests from stdin on stdout, until stdin ends."""
    from finetune_trainer.process import environment

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a library prints must not be taken for a response.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    environment.prepare()
    environment.hide_torch()
    from finetune_trainer.data.encode.prompt_parts import parts_left_out
    from finetune_trainer.model.loading import LocalModel, load_processor

    processor = load_processor(LocalModel(folder))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    left_out = parts_left_out(processor)
    _write(answers, {"ready": True})
    while request := _read(sys.stdin.buffer):
        _write(answers, answer(processor, request, left_out))


def answer(processor: Any, request: Mapping[str, Any], left_out: frozenset[PromptPart] = frozenset()) -> dict[str, Any]:
    """The `tokens` of a request and their `text`, or why it is `refused`: any exception of a template is a refusal.

    `left_out`: what the template would leave out, which is refused by its `parameter`.
    """
    from finetune_trainer.data.encode.chat_template import TemplateError, text_tokenizer
    from finetune_trainer.data.encode.prompt_parts import PromptPart, part_of
    from finetune_trainer.process.failures import DiagnosedError

    if "messages" in request and (part := part_of(request["messages"], request["tools"], left_out)) is not None:
        parameter = "tools" if part is PromptPart.TOOLS else "messages"
        why = f"The model's chat template has no place for {part.value}: the model would not see them. Send none."
        return {"refused": why, "parameter": parameter}
    try:
        tokens = list(_encode(processor, request))
        return {"tokens": tokens, "text": text_tokenizer(processor).decode(tokens)}
    except msgspec.ValidationError as error:
        return {"refused": f"messages: {error}"}
    except (TemplateError, DiagnosedError) as error:
        return {"refused": str(error)[:LONGEST_MESSAGE]}
    except MemoryError:
        return {"refused": "The model's chat template takes too much memory for these messages."}
    except Exception as error:
        return {"refused": f"The model's chat template rejects these messages: {str(error)[:LONGEST_MESSAGE]}"}


def _encode(processor: Any, request: Mapping[str, Any]) -> list[int]:
    from finetune_trainer.data.encode.chat_template import text_tokenizer
    from finetune_trainer.data.encode.placeholders import prompt_ids
    from finetune_trainer.data.read.examples import ChatExample
    from finetune_trainer.data.read.messages import Messages

    if "prompt" in request:
        tokens: list[int] = text_tokenizer(processor)(request["prompt"])["input_ids"]
        return tokens
    chat = ChatExample(msgspec.convert(request["messages"], Messages))
    return prompt_ids(processor, chat.to_template(), request["tools"], request["variables"], chat.arguments())


def _read(stream: BinaryIO) -> Any:
    """The next message; None at the end of the stream."""
    head = stream.read(LENGTH_BYTES)
    return orjson.loads(stream.read(int.from_bytes(head, "big"))) if len(head) == LENGTH_BYTES else None


def _write(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    stream.write(frame(message))
    stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
