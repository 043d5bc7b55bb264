"""The process that renders messages in the model's chat template, and tokenizes.

A template is code out of a model's folder, and a text may have megabytes. Here both can be given up: the server kills
this process when it takes too long, and the kernel refuses it memory beyond MOST_MEMORY_BYTES.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import orjson

MOST_MEMORY_BYTES = 4 * 2**30
"""Of address space; the libraries take about one GiB of it."""
LENGTH_BYTES = 4
LONGEST_MESSAGE = 500


def frame(message: Mapping[str, Any]) -> bytes:
    """A message as it goes through a pipe: its length, and its JSON. Raises orjson.JSONEncodeError."""
    body = orjson.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def main(folder: Path) -> None:
    """Answer requests from stdin on stdout, until stdin ends."""
    from finetune_trainer.process import environment

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not an answer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    environment.prepare()
    environment.hide_torch()
    from finetune_trainer.model.loading import LocalModel, load_processor

    processor = load_processor(LocalModel(folder))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    _write(answers, {"ready": True})
    while request := _read(sys.stdin.buffer):
        _write(answers, answer(processor, request))


def answer(processor: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """`tokens` and the `text` that they stand for; or `refused`, with why. Whatever a template raises is a refusal."""
    from finetune_trainer.data.encode.chat_template import TemplateError, text_tokenizer
    from finetune_trainer.process.failures import DiagnosedError

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
        return {"refused": f"The model's chat template refuses these messages: {str(error)[:LONGEST_MESSAGE]}"}


def _encode(processor: Any, request: Mapping[str, Any]) -> list[int]:
    from finetune_trainer.data.encode.chat_template import text_tokenizer
    from finetune_trainer.data.encode.placeholders import prompt_ids
    from finetune_trainer.data.read.examples import ChatExample
    from finetune_trainer.data.read.messages import Messages

    if "prompt" in request:
        tokens: list[int] = text_tokenizer(processor)(request["prompt"])["input_ids"]
        return tokens
    asked = ChatExample(msgspec.convert(request["messages"], Messages))
    return prompt_ids(processor, asked.to_template(), request["tools"], request["variables"], asked.arguments())


def _read(stream: BinaryIO) -> Any:
    """The next message; None at the end."""
    head = stream.read(LENGTH_BYTES)
    return orjson.loads(stream.read(int.from_bytes(head, "big"))) if len(head) == LENGTH_BYTES else None


def _write(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    stream.write(frame(message))
    stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
