"""64 requests at once to the engine of the Transformers server, generated together against one after another.

    python -m benchmarks.serving [--json FILE]

The model is a Llama of 34 M parameters with random weights, on a GPU where there is one. Both sides take turns, so that
other load on the machine affects both, and the fastest turns are compared, by wall and by CPU time. The answers have to
be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import string
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune_trainer.generate.generation import Generator
from finetune_trainer.serving.engine.capacity import Capacity
from finetune_trainer.serving.engine.engine import Engine
from finetune_trainer.serving.engine.orders import Order, Text

REQUESTS, TURNS = 64, 2
NEW_TOKENS = 16
END = "<|end|>"
CONTEXT = 512
LEAST_RATIO = 3.0


@dataclass(frozen=True)
class Turn:
    """What one turn took, and what was said in it."""

    wall: float
    cpu: float
    answers: list[str]


def make_generator() -> Generator:
    """A model of the shape of the small ones that people tune, with few layers."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.train_from_iterator([], trainers.BpeTrainer(special_tokens=[END], initial_alphabet=list(string.printable)))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=END)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Generator(LlamaForCausalLM(config).to(device).eval(), tokenizer, tokenizer)


async def all_at_once(engine: Engine, orders: list[Order]) -> list[str]:
    """The answers of all orders, submitted together."""

    async def answer(order: Order) -> str:
        generation = engine.submit([order])
        return "".join([piece.text async for _, piece in generation.pieces() if isinstance(piece, Text)])

    return list(await asyncio.gather(*(answer(order) for order in orders)))


def turn(engine: Engine, orders: list[Order]) -> Turn:
    """Generate all of them, and say what it took."""
    wall, cpu = time.monotonic(), time.process_time()
    answers = asyncio.run(all_at_once(engine, orders))
    return Turn(time.monotonic() - wall, time.process_time() - cpu, answers)


def measure() -> dict[str, Any]:
    """The figures. Raises AssertionError where the two sides' answers differ."""
    torch.set_num_threads(1)  # else CPU time has what threads spend on waiting for each other
    generator = make_generator()
    numbers = torch.Generator().manual_seed(2)
    lengths = torch.randint(8, 96, (REQUESTS,), generator=numbers).tolist()
    prompts = [torch.randint(1, 90, (length,), generator=numbers).tolist() for length in lengths]
    orders = [Order(prompt, max_tokens=NEW_TOKENS, temperature=0.0) for prompt in prompts]
    together, alone = (Engine(generator, Capacity(tokens=REQUESTS * CONTEXT, rows=rows)) for rows in (REQUESTS, 1))
    turn(together, orders[:4]), turn(alone, orders[:2])  # imports, threads
    batched, single = [], []
    for _ in range(TURNS):
        batched.append(turn(together, orders))
        single.append(turn(alone, orders))
        assert batched[-1].answers == single[-1].answers, "a request's answer depends on its batch"
    wall, cpu = ([min(getattr(one, name) for one in turns) for turns in (single, batched)] for name in ("wall", "cpu"))
    return {
        "requests": REQUESTS,
        "newTokens": NEW_TOKENS,
        "oneByOneSeconds": round(wall[0], 2),
        "togetherSeconds": round(wall[1], 2),
        "ratio": round(wall[0] / wall[1], 1),
        "oneByOneCpuSeconds": round(cpu[0], 2),
        "togetherCpuSeconds": round(cpu[1], 2),
        "cpuRatio": round(cpu[0] / cpu[1], 1),
    }


def main() -> int:
    """Print the figures; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    figures = measure()
    text = json.dumps(figures, indent=2)
    sys.stdout.write(f"{text}\n")
    if arguments.json is not None:
        arguments.json.write_text(f"{text}\n")
    return 0 if figures["cpuRatio"] >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
