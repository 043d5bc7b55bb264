"""What both contenders train: a random Llama of 3.3 million parameters, on prompts that ask for a word.

Its vocabulary is the tokenizer's: every answer is text, which resembles the one asked for more or less, so that the
rewards of a prompt's answers differ from the first step on.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.integration.trainer_evaluation.tiny_models import make_tokenizer

MODEL, TRAINING, VALIDATION = "model", "training.jsonl", "validation.jsonl"
PROMPTS = 8
"""Of a step, each answered COMPLETIONS times."""
COMPLETIONS = 8
TOKENS = 32
STEPS, WARM_UP = 8, 2
LEARNING_RATE = 1e-4
SEED = 17
_WORDS = ("red", "green", "blue", "black", "white", "brown", "grey", "pink")


def save(directory: Path) -> None:
    """Write the model and the data into a folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory / MODEL)
    tokenizer.save_pretrained(directory / MODEL)
    _write(directory / TRAINING, STEPS * PROMPTS)
    _write(directory / VALIDATION, PROMPTS)


def _write(file: Path, count: int) -> None:
    chance = random.Random(SEED)
    lines = (_prompt(chance.choice(_WORDS), number) for number in range(count))
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _prompt(word: str, number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"{number}: say {word} as often as you can"}], "answer": word * 4}
