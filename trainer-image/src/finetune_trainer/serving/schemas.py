"""Compiles JSON schemas to what constrains an output: in the server, and before that in a process of its own.

A schema is a client's, and may take minutes and gigabytes to compile, whatever llguidance's own limits. So what is
known to be costly is refused at once, the rest is compiled first where time and memory are bounded (schema_worker.py),
and few are at a time.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

import orjson
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from finetune_trainer.process.failures import first_line
from finetune_trainer.serving import schema_worker
from finetune_trainer.serving.schema_worker import MOST_CPU_SECONDS, MOST_MEMORY_BYTES

OPTIONS: Any = {"whitespace_pattern": " ?"}
"""Whitespace in a JSON value: `{"a": 1}` and `{"a":1}` are both answers that models learned, and no more is needed.

Where more may follow, a model that was not trained to write JSON writes little else until its max_tokens.
"""
LONGEST_REASON = 500
MOST_AT_ONCE = 2
MOST_SECONDS = 30.0
"""Of the process, with its start: its limit of CPU time comes first, unless the machine is overloaded."""
MOST_WAIT_SECONDS = 30.0
MOST_MULTIPLE_OF = 10_000
"""The automaton of a `multipleOf` has as many states; a decimal counts without its point."""
MOST_KNOWN = 256
NOT_SCHEMAS = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are data."""
TOO_COSTLY = (
    f"it takes more than {MOST_CPU_SECONDS} seconds of CPU time or {MOST_MEMORY_BYTES // 2**20} MiB to compile; "
    "simplify its patterns and multiples"
)
Compiled = TypeVar("Compiled")
NO_TEXT = "NoExtensionBias"
"""What llguidance stops with where nothing may follow."""


class SchemaError(ValueError):
    """No output can be constrained by the schema; the message says why."""


class SchemasBusyError(RuntimeError):
    """A schema could not be compiled in time, for the server has other things to do; the message says for how long."""


class UnsupportedTokenizerError(ValueError):
    """It is not known which text the tokens of this model's tokenizer stand for."""


@cache
def to_constraint_tokenizer(tokenizer: Any, ends: tuple[int, ...]) -> LLTokenizer:
    """A tokenizer of transformers as llguidance's; the first time takes a second or more.

    `ends`: the tokens that end an output. Raises UnsupportedTokenizerError.
    """
    try:
        return from_tokenizer(tokenizer, eos_token=list(ends) or None)
    except Exception as error:  # whatever a tokenizer of a new kind lacks
        raise UnsupportedTokenizerError(first_line(error)) from error


def compile_schema(tokenizer: LLTokenizer, schema: dict[str, Any]) -> LLMatcher:
    """A matcher for JSON values that match the schema, which has at least one first token. Raises SchemaError."""
    matcher = LLMatcher(tokenizer, grammar_of(schema), log_level=0)
    if not matcher.is_error():
        matcher.compute_logit_bias()
    if matcher.is_error():
        raise SchemaError(reason(matcher.get_error()))
    return matcher


def grammar_of(schema: dict[str, Any]) -> str:
    """The grammar of a schema, in text: not compiled. Raises SchemaError."""
    try:
        return str(LLMatcher.grammar_from_json_schema(orjson.dumps(schema).decode(), overrides=OPTIONS))
    except ValueError as error:
        raise SchemaError(reason(str(error))) from error


def reason(message: str) -> str:
    """One line of a message, which may quote a schema of any length; a regex's error is in the last one."""
    lines = message.splitlines() or ["no reason is known"]
    if lines[0].startswith(NO_TEXT):
        return "no text matches it"
    said = " ".join([lines[0], lines[-1]]) if lines[0] == "regex parse error:" else lines[0]
    return said[:LONGEST_REASON]


class Schemas:
    """Compiles few schemas at a time, each within the limits; remembers those that were."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def compiled(self, schema: dict[str, Any], compile_: Callable[[dict[str, Any]], Compiled]) -> Compiled:
        """What `compile_` makes of a schema, in a thread. Raises SchemaError, SchemasBusyError, and what it raises."""
        refuse_costly(schema)
        grammar = grammar_of(schema)
        async with self._place():
            if grammar not in self._known:
                await check(grammar)
            self._remember(grammar)
            return await asyncio.to_thread(compile_, schema)

    def _remember(self, grammar: str) -> None:
        self._known[grammar] = None
        self._known.move_to_end(grammar)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(MOST_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            why = f"The schemas of other requests were not compiled within {MOST_WAIT_SECONDS:g} seconds."
            raise SchemasBusyError(why) from None
        try:
            yield
        finally:
            self._places.release()


def refuse_costly(schema: Any) -> None:
    """Refuse at once what is known to take long. Raises SchemaError."""
    for value in _multiples_of(schema):
        if _scaled(value) > MOST_MULTIPLE_OF:
            raise SchemaError(
                f"multipleOf: {value} is too large: at most {MOST_MULTIPLE_OF} can be followed, where a decimal counts "
                "without its point (0.05 as 5)."
            )


async def check(grammar: str) -> None:
    """Compile a grammar in a process of its own, within the limits. Raises SchemaError, SchemasBusyError.

    The process is refused by the CPU time that it used; how long that takes is no matter of the schema.
    """
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        schema_worker.__name__,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
    )
    try:
        async with asyncio.timeout(MOST_SECONDS):
            said, _ = await worker.communicate(grammar.encode())
    except TimeoutError:
        why = f"The schema was not compiled within {MOST_SECONDS:g} seconds: the server is busy."
        raise SchemasBusyError(why) from None
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    if worker.returncode != 0:
        raise SchemaError(TOO_COSTLY)
    if said:
        raise SchemaError(reason(said.decode()))


def _multiples_of(schema: Any) -> Iterator[int | float]:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            number = value.get("multipleOf")
            if isinstance(number, int | float) and not isinstance(number, bool):
                yield number
            waiting += [inner for keyword, inner in value.items() if keyword not in NOT_SCHEMAS]


def _scaled(value: float) -> Decimal:
    """A number without its point: 0.05 is 5, and 100 is 100."""
    number = Decimal(repr(value)).normalize()
    exponent = number.as_tuple().exponent
    return abs(number.scaleb(-exponent) if isinstance(exponent, int) and exponent < 0 else number)
