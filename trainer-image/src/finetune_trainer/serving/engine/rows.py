"""One output in a batch: its tokens so far, how its next one is chosen, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from finetune_trainer.serving.engine.logprobs import token_logprob
from finetune_trainer.serving.engine.orders import (
    CancelledRequestError,
    End,
    FinishReason,
    Generation,
    GenerationError,
    Order,
    UnfollowableSchemaError,
)
from finetune_trainer.serving.engine.sampling import Sampler, generation_config
from finetune_trainer.serving.engine.text_stream import TextStream
from finetune_trainer.serving.schemas import SchemaError


@dataclass(frozen=True)
class Vocabulary:
    """What the engine knows about a model's tokens. `backend`: the tokenizer of the tokenizers library."""

    backend: Any
    special: frozenset[int]
    ends: frozenset[int]
    """The tokens that end an output."""
    padding: int

    @classmethod
    def of(cls, tokenizer: Any, config: GenerationConfig) -> Vocabulary:
        """Of a tokenizer, and the generation config of its model."""
        marked = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
        ends = config.eos_token_id
        return cls(
            backend=tokenizer._tokenizer,
            special=frozenset([*marked, *tokenizer.all_special_ids]),
            ends=frozenset([ends] if isinstance(ends, int) else ends or ()),
            padding=config.pad_token_id or 0,
        )


class Row:
    """One output, from its prompt to its end."""

    def __init__(
        self,
        generation: Generation,
        output: int,
        order: Order,
        config: GenerationConfig,
        vocabulary: Vocabulary,
        context_length: int,
        device: torch.device,
    ) -> None:
        settings = generation_config(config, order, context_length)
        self.tokens = list(order.prompt)
        """Of the prompt, and those generated."""
        self.longest = len(order.prompt) + settings.max_new_tokens
        """The number of tokens at which it ends."""
        self.ended = False
        self._generation = generation
        self._output = output
        self._order = order
        self._vocabulary = vocabulary
        self._sampler = Sampler(settings, order, device)
        self._logprobs: torch.Tensor | None = None
        self._text = TextStream(
            vocabulary.backend,
            vocabulary.special,
            order.stop,
            order.marks,
            lambda piece: generation.put(output, piece),
        )

    @property
    def is_cancelled(self) -> bool:
        """Whether its client has left."""
        return self._generation.is_cancelled

    def choose(self, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The next token. `tokens`: its own so far; `scores`: the model's logits."""
        if self._order.alternatives is not None:
            self._logprobs = scores.log_softmax(dim=-1)
        try:
            return self._sampler.choose(tokens, scores)
        except SchemaError as error:
            self.fail(UnfollowableSchemaError(str(error)))
            return tokens.new_tensor(self._vocabulary.padding)

    def take(self, token: int) -> None:
        """Add the token that was chosen, and end if it is the last one."""
        if self.is_cancelled:
            self.cancel()
        if self.ended:
            return
        logprob = self._logprob_of(token)
        self.tokens.append(token)
        if self._text.put(token, logprob):
            self._end("stop")
        elif token in self._vocabulary.ends or self._is_complete_with(token):
            self._text.end()
            self._end("stop")
        elif len(self.tokens) >= self.longest:
            self._end("stop" if self._text.end() else "length")

    def cancel(self) -> None:
        """End it, for its client has left."""
        self.fail(CancelledRequestError("the request was cancelled"))

    def fail(self, error: GenerationError) -> None:
        """End it with an error, if it has not ended."""
        if not self.ended:
            self.ended = True
            self._generation.put(self._output, error)

    def _logprob_of(self, token: int) -> Any:
        if self._logprobs is None or self._order.alternatives is None:
            return None
        backend = self._vocabulary.backend
        return token_logprob(backend, self.tokens[-1], token, self._logprobs, self._order.alternatives)

    def _is_complete_with(self, token: int) -> bool:
        """Whether its constraint allows nothing more."""
        if self._order.constraint is None:
            return False
        try:
            return self._order.constraint.advance(token)
        except SchemaError as error:
            self.fail(UnfollowableSchemaError(str(error)))
            return False

    def _end(self, reason: FinishReason) -> None:
        self.ended = True
        self._generation.put(self._output, End(reason, len(self.tokens) - len(self._order.prompt)))
