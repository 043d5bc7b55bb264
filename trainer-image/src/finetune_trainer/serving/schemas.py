"""Compiles JSON schemas to what constrains an output: in the server, and before that in the prompt worker.

A schema is a client's, and may take minutes and gigabytes to compile, whatever llguidance's own limits. So the prompt
worker compiles it first, where time and memory are bounded (prompt_worker.py).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from finetune_trainer.process.failures import first_line

OPTIONS: Any = {"whitespace_pattern": r"\n?[ \t]{0,32}"}
"""Whitespace in a JSON value: enough for any indentation, and no more, for a model may write it forever."""
LONGEST_REASON = 500
NO_TEXT = "NoExtensionBias"
"""What llguidance stops with where nothing may follow."""


class SchemaError(ValueError):
    """No output can be constrained by the schema; the message says why."""


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
    try:
        grammar = LLMatcher.grammar_from_json_schema(orjson.dumps(schema).decode(), overrides=OPTIONS)
    except ValueError as error:
        raise SchemaError(reason(str(error))) from error
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    if not matcher.is_error():
        matcher.compute_logit_bias()
    if matcher.is_error():
        raise SchemaError(reason(matcher.get_error()))
    return matcher


def reason(message: str) -> str:
    """One line of a message, which may quote a schema of any length; a regex's error is in the last one."""
    lines = message.splitlines() or ["no reason is known"]
    if lines[0].startswith(NO_TEXT):
        return "no text matches it"
    said = " ".join([lines[0], lines[-1]]) if lines[0] == "regex parse error:" else lines[0]
    return said[:LONGEST_REASON]
