"""How many rows a batch may have: as many as the memory holds keys and values of, at their full length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune_trainer.process.memory import available_memory
from finetune_trainer.serving.engine.rows import Row

MOST_ROWS = 64
MOST_PREFILL_TOKENS = 8_192
"""Prompt tokens, with padding, that are processed at once: bounds the memory of activations."""
SHARE_OF_MEMORY = 0.5
"""The rest is for activations and for the copies while a cache grows."""


@dataclass(frozen=True)
class Capacity:
    """The limits of a batch. One row always fits: the context of a model is its own limit."""

    tokens: int
    """Prompt and new tokens of all rows, with padding."""
    rows: int = MOST_ROWS

    @classmethod
    def of(cls, model: Any) -> Capacity:
        """Of a loaded model, by the memory that is left beside it."""
        return cls(int(_free_bytes(model.device) * SHARE_OF_MEMORY) // _bytes_per_token(model))

    def fits(self, rows: Sequence[Row], joining: Sequence[Row], another: Row) -> bool:
        """Whether another row may join, in addition to those that are about to."""
        count = len(rows) + len(joining) + 1
        longest = max([another.longest, *(row.longest for row in rows), *(row.longest for row in joining)])
        prefill = (len(joining) + 1) * max([len(another.tokens), *(len(row.tokens) for row in joining)])
        if joining and prefill > MOST_PREFILL_TOKENS:
            return False
        return count == 1 or (count <= self.rows and count * longest <= self.tokens)

    def halved(self, rows: int) -> Capacity:
        """After the memory did not suffice for so many rows."""
        return Capacity(self.tokens // 2, max(1, min(self.rows, rows) // 2))

    def doubled(self, most: Capacity) -> Capacity:
        """Of twice the room, up to the most."""
        return Capacity(min(self.tokens * 2 + 1, most.tokens), min(self.rows * 2, most.rows))


def _bytes_per_token(model: Any) -> int:
    """Of the keys and values of one token in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()
