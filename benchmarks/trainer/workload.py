"""What both contenders train: a random Llama, and chats of random words, of a size for this machine."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.trainer_evaluation.tiny_models import chat, make_tokenizer

MODEL = "model"
DATA = "data.jsonl"
WORKLOAD = "workload.json"
CONTEXT = 4096
SEED = 17
BETA = 0.1
"""Of DPO."""


@dataclass(frozen=True)
class Workload:
    """Lengths in tokens, which are characters here. `layers`, `width`, `hidden`, `heads`, `groups`: Llama's shape."""

    adapter: str
    method: str
    layers: int
    width: int
    hidden: int
    heads: int
    groups: int
    vocabulary: int
    max_length: int
    packing: bool
    batch: int
    steps: int
    warm_up: int
    """Steps at the start that are not measured."""
    save_every: int
    processes: int
    plain_per_pass: int
    """Examples in a forward pass of plain TRL: as many as the memory allows."""

    @property
    def examples(self) -> int:
        """As many as the steps take; where they are packed, four lie in about three rows."""
        return self.steps * self.batch * 4 // 3 if self.packing else self.steps * self.batch

    def save(self, directory: Path, models: Path) -> None:
        """Write it, the model and the data into a folder; the weights are hard links to those in `models`.

        Workloads of one shape have one model there, which the first of them makes.
        """
        (directory / WORKLOAD).write_text(json.dumps(vars(self)))
        shape = models / f"{self.layers}-{self.width}-{self.vocabulary}"
        if not shape.exists():
            _save_llama(self, shape)
        (directory / MODEL).mkdir()
        for file in shape.iterdir():
            os.link(file, directory / MODEL / file.name)
        make_tokenizer().save_pretrained(directory / MODEL)
        with (directory / DATA).open("w") as stream:
            for line in _chats(self):
                stream.write(json.dumps(line) + "\n")


def load_workload(directory: Path) -> Workload:
    """What `save` wrote."""
    return Workload(**json.loads((directory / WORKLOAD).read_text()))


def on_cpu(adapter: str, method: str = "SFT") -> Workload:
    """7.5 million parameters."""
    return Workload(
        adapter,
        method,
        layers=4,
        width=256,
        hidden=704,
        heads=8,
        groups=8,
        vocabulary=8192,
        max_length=192,
        packing=False,
        batch=4,
        steps=36,
        warm_up=6,
        save_every=18,
        processes=1,
        plain_per_pass=4,
    )


def on_gpu(adapter: str, processes: int, method: str = "SFT") -> Workload:
    """The shape of Llama-3-8B at a context of 4096 tokens, packed; for Full on one GPU that of Llama-3.2-1B.

    Full saves at its end only: writing 18 GB takes a disk longer than all steps, and two such checkpoints fill it.
    """
    small = adapter == "Full" and processes == 1
    return Workload(
        adapter,
        method,
        layers=16 if small else 32,
        width=2048 if small else 4096,
        hidden=8192 if small else 14336,
        heads=32,
        groups=8,
        vocabulary=128_256,
        max_length=4096 if method == "SFT" else 2048,
        packing=method == "SFT",
        batch=4 * processes,
        steps=16,
        warm_up=4,
        save_every=1000 if adapter == "Full" else 8,
        processes=processes,
        plain_per_pass=4,
    )


def _save_llama(workload: Workload, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    on_gpu = torch.cuda.is_available()
    with torch.device("cuda" if on_gpu else "cpu"):
        config = LlamaConfig(
            vocab_size=workload.vocabulary,
            hidden_size=workload.width,
            intermediate_size=workload.hidden,
            num_hidden_layers=workload.layers,
            num_attention_heads=workload.heads,
            num_key_value_heads=workload.groups,
            max_position_embeddings=CONTEXT,
            bos_token_id=None,
            eos_token_id=0,
            dtype="bfloat16" if on_gpu else "float32",
        )
        model = LlamaForCausalLM(config).to(torch.bfloat16 if on_gpu else torch.float32)
    model.save_pretrained(folder)
    del model
    if on_gpu:
        torch.cuda.empty_cache()  # for the contenders


def _chats(workload: Workload) -> list[dict[str, Any]]:
    """Of lengths between a third of the maximum and a little below it."""
    chance = random.Random(SEED)

    def text(length: int) -> str:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=length))

    usable = workload.max_length - 60  # the chat template's own
    lines = []
    for _ in range(workload.examples):
        length = chance.randint(usable // 3, usable)
        question, answer = text(length // 2), text(length - length // 2)
        lines.append(chat(question, answer) if workload.method == "SFT" else _pair(question, answer, answer[::-1]))
    return lines


def _pair(question: str, preferred: str, other: str) -> dict[str, Any]:
    """In OpenAI's form."""
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": preferred}],
        "non_preferred_output": [{"role": "assistant", "content": other}],
    }
