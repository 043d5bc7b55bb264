"""A process of its own for one grader on one output: what takes too long, or too much memory, ends with it.

It reads the request from the standard input, and writes the body of the answer, or {"refused": why}.
"""

from __future__ import annotations

import asyncio
import resource
import sys

import orjson

from finetune_openai.graders.request import RunRequest
from finetune_openai.graders.run import InvalidRequestError, run

MEMORY_BYTES = 384 * 2**20
"""Of data; METEOR's WordNet takes the most."""
CPU_SECONDS = 30


def main() -> None:
    """The command."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = RunRequest.model_validate_json(sys.stdin.buffer.read())
    try:
        answer = asyncio.run(run(request))
    except InvalidRequestError as error:
        answer = {"refused": str(error)}
    sys.stdout.buffer.write(orjson.dumps(answer))


if __name__ == "__main__":
    main()
