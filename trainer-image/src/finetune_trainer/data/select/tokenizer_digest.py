"""Identifies what makes tokens of text: the same digest means the same tokens for the same examples."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

from finetune_trainer.data.encode.chat_template import text_tokenizer

SET_BY_CALLS = ("truncation", "padding")
"""Of a backend tokenizer's state; the files don't determine it."""


def tokenizer_digest(processor: Any) -> str:
    """The SHA-256, in hex, of a fast tokenizer as it is loaded, with its chat template and its special tokens."""
    tokenizer = text_tokenizer(processor)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    loaded = {name: value for name, value in backend.items() if name not in SET_BY_CALLS}
    named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    identity = [loaded, processor.chat_template, named, sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def tokenizer_libraries() -> str:
    """The libraries whose versions determine how a tokenizer's files are read: digests of others are not comparable."""
    return ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "transformers"))
