"""Generates rows together with transformers' `generate`, a token of each at a time.

Rows are padded on the left, so that each continues at its end. Where the cache of the model is a plain one of keys and
values, rows join and leave between two tokens: `generate` is interrupted, the cache is changed, and it goes on with it.
Other caches (sliding windows, states of linear attention, positions of images) can't be changed so: the rows of such a
model start together, and others wait until all of them have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer

from finetune_trainer.serving.engine.rows import Row

Interrupt = Callable[[], bool]


class Batch:
    """The rows in generation, and the cache of all their tokens but the last."""

    def __init__(self, model: Any, padding: int) -> None:
        self.rows: list[Row] = []
        """Those that have not ended."""
        self._model = model
        self._padding = padding
        self._cache: DynamicCache | None = None
        self.is_open = _has_plain_cache(model)
        """Whether rows may join while others are in generation."""

    def run(self, new: Sequence[Row], interrupt: Interrupt) -> None:
        """Generate until all rows have ended, or until an interrupt, with rows that join.

        An open batch only: `interrupt` is asked after each token. Raises what the model raises; call `abandon` then.
        """
        if not self.is_open:
            self.rows = [*self.rows, *new]
            self._generate(self.rows, None, lambda: False)
            self._drop_ended()
            return
        if new:
            joining = Batch(self._model, self._padding)
            joining.rows, joining._cache = list(new), DynamicCache(config=self._model.config)
            running, self.rows = self.rows, [*self.rows, *new]  # all of them are lost if the model fails
            joining._continue(lambda: True)
            self.rows = running
            self._join(joining)
        if self.rows:
            self._continue(lambda: interrupt() or sum(row.ended for row in self.rows) * 2 >= len(self.rows))

    def abandon(self) -> list[Row]:
        """The rows that have not ended; none is left in the batch, and no cache."""
        rows = [row for row in self.rows if not row.ended]
        self.rows, self._cache = [], None
        return rows

    def _continue(self, until: Interrupt) -> None:
        self._generate(self.rows, self._cache, until)
        self._drop_ended()

    def _drop_ended(self) -> None:
        live = [index for index, row in enumerate(self.rows) if not row.ended]
        if self._cache is not None and len(live) < len(self.rows):
            if live:
                longest = max(len(self.rows[index].tokens) for index in live)
                for layer in self._cache.layers:
                    indices = torch.tensor(live, device=layer.keys.device)
                    layer.keys = layer.keys[indices, :, -(longest - 1) :]
                    layer.values = layer.values[indices, :, -(longest - 1) :]
            else:
                self._cache = None
        self.rows = [self.rows[index] for index in live]

    def _join(self, other: Batch) -> None:
        """Take over the rows of another batch, whose first tokens have been generated."""
        if self._cache is None:
            self._cache = other._cache
        elif other._cache is not None:
            width = max(self._cache.get_seq_length(), other._cache.get_seq_length())
            for layer, others in zip(self._cache.layers, other._cache.layers, strict=True):
                layer.keys = torch.cat([_padded(layer.keys, width), _padded(others.keys, width)])
                layer.values = torch.cat([_padded(layer.values, width), _padded(others.values, width)])
                others.reset()
        self.rows = [*self.rows, *other.rows]

    def _generate(self, rows: Sequence[Row], cache: DynamicCache | None, until: Interrupt) -> None:
        width = max(len(row.tokens) for row in rows)
        ids = torch.full((len(rows), width), self._padding)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, width - len(row.tokens) :] = torch.tensor(row.tokens)
            mask[index, width - len(row.tokens) :] = 1
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(row.longest - len(row.tokens) for row in rows),
            pad_token_id=self._padding,
        )
        self._model.generate(
            input_ids=ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            generation_config=config,
            past_key_values=cache,
            logits_processor=LogitsProcessorList([_Choose(rows, self._padding)]),
            stopping_criteria=StoppingCriteriaList([_Take(rows, until)]),
        )


class _Choose(LogitsProcessor):
    """Makes `generate`, which takes the token with the highest score, take the one that its row chooses."""

    def __init__(self, rows: Sequence[Row], padding: int) -> None:
        self._rows = rows
        self._padding = padding

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = torch.stack(
            [
                input_ids.new_tensor(self._padding)
                if row.ended
                else row.choose(tokens[-len(row.tokens) :], of_row).to(input_ids.device)
                for row, tokens, of_row in zip(self._rows, input_ids, scores, strict=True)
            ]
        )
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


class _Take(StoppingCriteria):
    """Gives each row its token, and ends `generate` once all rows have ended, or between two tokens."""

    def __init__(self, rows: Sequence[Row], until: Interrupt) -> None:
        self._rows = rows
        self._until = until

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.take(token)
        over = all(row.ended for row in self._rows) or self._until()
        return torch.full((len(self._rows),), over, device=input_ids.device)


def _padded(states: torch.Tensor, width: int) -> torch.Tensor:
    """Keys or values, padded on the left: [rows, heads, tokens, size]."""
    return pad(states, (0, 0, width - states.shape[-2], 0))


def _has_plain_cache(model: Any) -> bool:
    text = model.config.get_text_config()
    if text is not model.config:  # a vision-language model counts positions by images
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=text).layers)
