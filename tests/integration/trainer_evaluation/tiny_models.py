"""Tiny models with random weights, whose outputs differ by seed, and what transformers itself generates with them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 128
LONG_CONTEXT = 2048
"""A benchmark's prompt is longer than what the other tests ask."""
BYTE_LEVEL_SPACES = "ĠĊ"
"""The space and the line break."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each ASCII character. The token that ends a turn is not the one that ends a text."""
    inner = Tokenizer(models.BPE())
    inner.decoder = decoders.Fuse()
    inner.train_from_iterator(
        [],
        trainers.BpeTrainer(
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=[*string.ascii_letters, *string.digits, *string.punctuation, " ", "\n"],
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """The same tokens, as the tokenizers of most models write them: a model with it can be held to a JSON schema."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.train_from_iterator(
        [],
        trainers.BpeTrainer(
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=[*string.ascii_letters, *string.digits, *string.punctuation, *BYTE_LEVEL_SPACES],
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_model(folder: Path, seed: int, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """A whole model of 0.1 M parameters."""
    tokenizer = tokenizer or make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_long_model(folder: Path, seed: int) -> Path:
    """A whole model with a long context."""
    save_model(folder, seed)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": LONG_CONTEXT}))
    return folder


def save_adapter(folder: Path, base: Path, seed: int) -> Path:
    """A LoRA for the base that changes its outputs, with the tokenizer that it was trained with."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def chat(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    """A line of a chat dataset."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **fields}


class PlainGeneration:
    """What transformers generates greedily, one prompt at a time and with nothing padded."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def answer(self, question: str, max_tokens: int) -> str:
        messages = [{"role": "user", "content": question}]
        return self.complete(
            self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False), max_tokens
        )

    def complete(self, text: str, max_tokens: int) -> str:
        prompt = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)
        stop = self._tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
        with torch.inference_mode():
            tokens = self._model.generate(**prompt, max_new_tokens=max_tokens, do_sample=False, eos_token_id=stop)
        return str(self._tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))

    def logprobs(self, question: str, answer: str) -> list[float]:
        """The log probability of each token of an answer, by one pass over all of it."""
        messages = [{"role": "user", "content": question}]
        asked = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        before, tokens = (self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, answer))
        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([before + tokens])).logits[0, len(before) - 1 : -1]
        return [float(row[token]) for row, token in zip(logits.log_softmax(dim=-1), tokens, strict=True)]
