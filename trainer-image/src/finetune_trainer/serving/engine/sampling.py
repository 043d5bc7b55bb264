"""Chooses the next token of one output, by its own settings and its own random numbers.

So an output does not depend on what else is generated in the same batch, up to rounding: in half precision, scores of
a batch differ a little from those of one output alone, and answers may differ with them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from finetune_trainer.serving.engine.orders import Order
from finetune_trainer.serving.schemas import SchemaError

DEFAULT_NEW_TOKENS = 1024
DEFAULT_TOP_K = 50
"""transformers' own, which an evaluation has too."""


class Sampler:
    """Chooses the tokens of one output."""

    def __init__(self, config: GenerationConfig, order: Order, device: torch.device) -> None:
        self._constraint = order.constraint
        self._before = _processors(config, order, device)
        self._warpers = _warpers(config) if config.do_sample else None
        self._random = torch.Generator(device)
        if order.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(order.seed)
        self._place, self._at_place = len(order.prompt), self._random.get_state()
        """The number of tokens before the one chosen last, and the state of the random numbers there."""

    def choose(self, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The next token, after `tokens` (those of the prompt first). Raises SchemaError."""
        ids, scores = tokens[None], self._before(tokens[None], scores[None])
        if self._constraint is not None:
            scores = self._constraint.apply(scores)
            if bool(torch.isneginf(scores).all()):
                raise SchemaError("All the tokens that the schema allows here are banned by the model's own settings.")
        if self._warpers is None:
            return scores[0].argmax()
        probabilities = self._warpers(ids, scores).softmax(dim=-1)
        self._rewind(len(tokens))
        return torch.multinomial(probabilities, 1, generator=self._random)[0, 0]

    def _rewind(self, length: int) -> None:
        """The random numbers are those of the place: a token chosen again, after a batch failed, is the same one."""
        if length == self._place:
            self._random.set_state(self._at_place)
        else:
            self._place, self._at_place = length, self._random.get_state()


def generation_config(of_model: GenerationConfig, order: Order, context_length: int) -> GenerationConfig:
    """The model's config with the order's settings; the new tokens are limited by the rest of the context."""
    config = copy.deepcopy(of_model)
    room = context_length - len(order.prompt)
    config.max_new_tokens = min(order.max_tokens or DEFAULT_NEW_TOKENS, room)
    if order.top_p is not None:
        config.top_p, config.do_sample = order.top_p, True
    if order.temperature is not None:
        config.do_sample = order.temperature > 0
        if config.do_sample:
            config.temperature = order.temperature
    return config


def _processors(config: GenerationConfig, order: Order, device: torch.device) -> LogitsProcessorList:
    """What changes the scores of a token, sampled or not."""
    made = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        made.append(RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty)))
    if config.no_repeat_ngram_size:
        made.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.suppress_tokens:
        made.append(SuppressTokensLogitsProcessor(config.suppress_tokens, device=device))
    if order.frequency_penalty or order.presence_penalty:
        made.append(Penalties(len(order.prompt), order.frequency_penalty, order.presence_penalty))
    return made


def _warpers(config: GenerationConfig) -> LogitsProcessorList:
    """What narrows the choice between sampled tokens."""
    made = LogitsProcessorList()
    _add(made, TemperatureLogitsWarper, config.temperature, 1.0)
    _add(made, TopKLogitsWarper, DEFAULT_TOP_K if config.top_k is None else config.top_k, 0)
    _add(made, TopPLogitsWarper, config.top_p, 1.0)
    _add(made, MinPLogitsWarper, config.min_p, 0.0)
    return made


def _add(to: LogitsProcessorList, kind: Callable[[Any], Any], value: Any, without_effect: Any) -> None:
    if value is not None and value != without_effect:
        to.append(kind(type(without_effect)(value)))


class Penalties(LogitsProcessor):
    """OpenAI's frequency and presence penalties, computed from the output only, not from the prompt.

    https://platform.openai.com/docs/api-reference/chat/create
    """

    def __init__(self, prompt_tokens: int, frequency: float, presence: float) -> None:
        self._prompt_tokens = prompt_tokens
        self._frequency = frequency
        self._presence = presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.bincount(input_ids[0, self._prompt_tokens :], minlength=scores.shape[-1])[: scores.shape[-1]]
        return scores - self._frequency * counts - self._presence * (counts > 0)
