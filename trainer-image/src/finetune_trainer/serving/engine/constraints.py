"""Constrained decoding: which tokens may follow, so that an output is JSON that matches a schema.

The grammars, and the limits of what they may cost, are llguidance's: a schema is a client's, and may be anything.
"""

from __future__ import annotations

from typing import Any

import orjson
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from finetune_trainer.process.failures import first_line

OPTIONS: Any = {"whitespace_pattern": r"\n?[ \t]{0,32}"}
"""Whitespace in a JSON value: enough for any indentation, and no more, for a model may write it forever."""
LONGEST_REASON = 500
ANY_OBJECT: dict[str, Any] = {"type": "object"}


class SchemaError(ValueError):
    """No output can be constrained by the schema; the message says why."""


class UnsupportedTokenizerError(ValueError):
    """It is not known which text the tokens of this model's tokenizer stand for."""


class Constraint:
    """What one output has to match; it advances with the output's tokens."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def copy(self) -> Constraint:
        """Another one, for another output; before any token."""
        return Constraint(self._matcher.deep_copy())

    def apply(self, scores: torch.Tensor) -> torch.Tensor:
        """The scores of a token, with those that may not follow at minus infinity. Raises SchemaError."""
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8).bool()
        self._check()
        mask = torch.zeros(scores.shape[-1], dtype=torch.bool)  # the model's vocabulary may be padded
        shared = min(len(mask), len(allowed))
        mask[:shared] = allowed[:shared]
        return scores.masked_fill(~mask.to(scores.device), -torch.inf)

    def advance(self, token: int) -> bool:
        """Whether the output is complete with this token: nothing but its end may follow. Raises SchemaError."""
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise SchemaError(f"The schema can't be followed: {_reason(self._matcher.get_error())}")


class Constraints:
    """Makes constraints for one tokenizer. `ends`: the tokens that end an output."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._hf = tokenizer
        self._ends = sorted(ends)
        self._tokenizer: LLTokenizer | None = None

    def of_schema(self, schema: dict[str, Any]) -> Constraint:
        """An output that is a JSON value which matches a JSON schema; the first one takes a second or more.

        Raises SchemaError, UnsupportedTokenizerError.
        """
        tokenizer = self._ready()
        try:
            grammar = LLMatcher.grammar_from_json_schema(orjson.dumps(schema).decode(), overrides=OPTIONS)
        except ValueError as error:
            raise SchemaError(_reason(str(error))) from error
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise SchemaError(_reason(matcher.get_error()))
        return Constraint(matcher)

    def _ready(self) -> LLTokenizer:
        if self._tokenizer is None:
            try:
                self._tokenizer = from_tokenizer(self._hf, eos_token=self._ends or None)
            except Exception as error:  # whatever a tokenizer of a new kind lacks
                raise UnsupportedTokenizerError(first_line(error)) from error
        return self._tokenizer


def _reason(message: str) -> str:
    """The first line of a message, which may quote a schema of any length."""
    return (message.splitlines() or ["no reason is known"])[0][:LONGEST_REASON]
