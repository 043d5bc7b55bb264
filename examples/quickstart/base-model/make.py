"""Makes the quickstart's base model from WordNet 3.0: a Llama of 4.2 million parameters and its tokenizer.

    python make.py --wordnet /usr/share/wordnet --out .

The seed fixes the text, its order and the first weights. Sums in floating point depend on the processor and the
number of threads, so another machine makes a model that is as good, but not the same to the last bit.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import corpus
import torch
import wordnet
from corpus import END_OF_TEXT, TURN_END, TURN_START
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 17
VOCABULARY = 4096
CONTEXT = 512
ROWS_PER_STEP = 8  # of CONTEXT tokens
MATRIX_RATE, OTHER_RATE = 0.02, 3e-3
WARMUP_STEPS = 40

# ChatML. TRL learns from the `generation` markers which tokens are the assistant's.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text has tokens, and decoding gives back the same text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens = [END_OF_TEXT, TURN_START, TURN_END]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pack(documents: list[str], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Whole documents side by side in rows of CONTEXT token ids, the rest of each row padded: [rows, CONTEXT]."""
    rows: list[list[int]] = [[]]
    for ids in tokenizer(documents, truncation=True, max_length=CONTEXT)["input_ids"]:
        if len(rows[-1]) + len(ids) > CONTEXT:
            rows.append([])
        rows[-1].extend(ids)
    return torch.tensor([row + [tokenizer.pad_token_id] * (CONTEXT - len(row)) for row in rows])


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embeddings and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then the cosine's half wave down to zero."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)))


def train(model: LlamaForCausalLM, steps: Sequence[torch.Tensor]) -> Iterator[float]:
    """Takes one step on each batch of token ids [ROWS_PER_STEP, CONTEXT] and yields its loss, in nats per token."""
    chosen = optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, len(steps))) for optimizer in chosen
    ]
    model.train()
    for token_ids in steps:
        padding = (token_ids == model.config.pad_token_id) & (token_ids.roll(1, 1) == model.config.pad_token_id)
        labels = token_ids.masked_fill(padding, -100)  # but for the first, which ends the last document
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=token_ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(chosen, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        yield loss.item()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)  # the template in tokenizer_config.json
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True, help="folder of data.noun and its like")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)

    synsets = wordnet.read(arguments.wordnet)
    print(f"{len(synsets)} synsets, {len(corpus.entries(synsets))} of them for the base model", flush=True)
    documents = corpus.documents(synsets, random.Random(SEED))
    tokenizer = train_tokenizer(documents)
    rows = pack(documents, tokenizer)
    steps = rows[: len(rows) // ROWS_PER_STEP * ROWS_PER_STEP].split(ROWS_PER_STEP)
    model = new_model(tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters} parameters, {len(steps)} steps of {steps[0].numel()} tokens", flush=True)

    started = time.monotonic()
    for step, loss in enumerate(train(model, steps), start=1):
        if step % 10 == 0 or step == len(steps):
            elapsed = time.monotonic() - started
            left = elapsed / step * (len(steps) - step)
            print(f"step {step}/{len(steps)}  loss {loss:.3f}  {elapsed:.0f} s, {left:.0f} s left", flush=True)
    save(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()
