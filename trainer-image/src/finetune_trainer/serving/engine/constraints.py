"""Constrained decoding: which tokens may follow, so that an output is JSON that matches a schema.

The grammars are llguidance's (schemas.py), and so are the limits of what each token may cost.
"""

from __future__ import annotations

from typing import Any

import torch
from llguidance import LLMatcher

from finetune_trainer.serving.schemas import SchemaError, compile_schema, reason, to_constraint_tokenizer

ANY_OBJECT: dict[str, Any] = {"type": "object"}


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
            raise SchemaError(f"The schema can't be followed: {reason(self._matcher.get_error())}")


class Constraints:
    """Makes constraints for one tokenizer. `ends`: the tokens that end an output."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.ends = tuple(sorted(ends))

    def of_schema(self, schema: dict[str, Any]) -> Constraint:
        """An output that is a JSON value which matches a JSON schema; the first one takes a second or more.

        Raises SchemaError, UnsupportedTokenizerError.
        """
        return Constraint(compile_schema(to_constraint_tokenizer(self._tokenizer, self.ends), schema))
