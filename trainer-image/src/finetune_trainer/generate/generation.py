"""Batched, reproducible generation with a causal language model.

Prompts are sorted by length and padded on the left, so that a batch has little padding and every row continues at its
end. Greedy outputs do not depend on the batch, except for ties decided by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune_api.evaluation import Generation
from finetune_trainer.data.encode.chat_template import TemplateError, render_chat, special_tokens, text_tokenizer
from finetune_trainer.model import loading
from finetune_trainer.model.loading import LocalModel, load_model, load_processor

SAMPLING_PARAMETERS = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "suppress_tokens",
)
MAX_BATCH_PROMPTS = 32
MAX_BATCH_TOKENS = 8_192
"""Prompt and new tokens of a batch, with padding: bounds the key-value cache."""


OnBatch = Callable[[Sequence[int], Sequence[list[int]]], None]
"""Called with the indices of the outputs that were just generated."""


@dataclass(frozen=True)
class Generator:
    """A model ready for generation, and its tokenizer.

    `processor`: the processor of a vision-language model, otherwise the tokenizer again.
    """

    model: Any
    tokenizer: Any
    processor: Any

    @property
    def context_length(self) -> int:
        """The maximum number of tokens of prompt and output together."""
        return context_length(self.model.config)

    def has_ended(self, output: Sequence[int]) -> bool:
        """Whether these tokens end with one that ends an output, rather than where there was no more room."""
        return bool(output) and output[-1] in _stops(self.model)


def load_generator(local: LocalModel) -> Generator:
    """Load a model for generation: on a GPU in its own precision, on a CPU in float32.

    Evaluation and serving both use this, so that they stop at the same tokens.

    Raises DiagnosedError (ModelInvalid).
    """
    on_gpu = torch.cuda.is_available()
    processor = load_processor(local)
    device = torch.cuda.current_device() if on_gpu else None
    model = load_model(local, stored_dtype(local) if on_gpu else torch.float32, device=device)
    model = model.to("cuda" if on_gpu else "cpu").eval()
    model.generation_config = _generation_config(model.generation_config, processor)
    return Generator(model, text_tokenizer(processor), processor)


def stored_dtype(local: LocalModel) -> torch.dtype:
    """The dtype in the model's config, otherwise float32."""
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(local.base, trust_remote_code=False, local_files_only=True).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def context_length(config: Any) -> int:
    """The context length of a model's config."""
    return loading.context_length(config) or 1_048_576


def generate(
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    generation: Generation,
) -> list[str]:
    """The output for each prompt as text, without special tokens; otherwise as `generate_tokens`."""
    outputs = generate_tokens(generator, prompts, generation)
    texts: list[str] = generator.tokenizer.batch_decode(outputs, skip_special_tokens=True)
    return texts


def generate_tokens(
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    generation: Generation,
    on_batch: OnBatch = lambda indices, outputs: None,
) -> list[list[int]]:
    """The output for each prompt (token ids, at least one, fewer than the context length), in the order of the prompts.

    Settings that the spec leaves open come from the model's own generation config, as in serving. An output includes
    the token that ended it.
    """
    outputs: list[list[int]] = [[] for _ in prompts]
    with torch.random.fork_rng(_devices()), torch.inference_mode():
        torch.manual_seed(generation.seed)
        for indices, new_tokens in batches([len(p) for p in prompts], generation.max_tokens, generator.context_length):
            batch = _generate_batch(generator, [prompts[index] for index in indices], new_tokens, generation)
            for index, output in zip(indices, batch, strict=True):
                outputs[index] = output
            on_batch(indices, batch)
    return outputs


def generate_from_images(
    generator: Generator,
    prompts: Iterable[Mapping[str, Any]],
    generation: Generation,
    on_batch: OnBatch = lambda indices, outputs: None,
) -> list[list[int]]:
    """The output for each encoded prompt of a vision-language model, with pixels, one at a time.

    Otherwise as `generate_tokens`.
    """
    outputs: list[list[int]] = []
    with torch.random.fork_rng(_devices()), torch.inference_mode():
        torch.manual_seed(generation.seed)
        for prompt in prompts:
            room = generator.context_length - prompt["input_ids"].shape[1]
            made = _continue(generator, prompt, min(generation.max_tokens, room), generation)
            outputs += made
            on_batch([len(outputs) - 1], made)
    return outputs


def batches(lengths: Sequence[int], max_tokens: int, context: int) -> Iterator[tuple[list[int], int]]:
    """The prompt indices of each batch, longest first, and the maximum number of new tokens of each prompt in it.

    A prompt near the context length gets only the rest of the context, and shares a batch only with equal prompts.
    """
    batch: list[int] = []
    batch_limit = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        limit = min(max_tokens, context - lengths[index])
        if batch:
            # The first prompt of a batch is its longest.
            tokens = (len(batch) + 1) * (lengths[batch[0]] + batch_limit)
            if limit != batch_limit or len(batch) == MAX_BATCH_PROMPTS or tokens > MAX_BATCH_TOKENS:
                yield batch, batch_limit
                batch = []
        batch.append(index)
        batch_limit = limit
    if batch:
        yield batch, batch_limit


def _generate_batch(
    generator: Generator, prompts: Sequence[Sequence[int]], new_tokens: int, generation: Generation
) -> list[list[int]]:
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), generator.tokenizer.pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
        attention_mask[row, width - len(prompt) :] = 1
    padded = {"input_ids": input_ids, "attention_mask": attention_mask}
    return _continue(generator, padded, new_tokens, generation)


def _continue(
    generator: Generator, inputs: Mapping[str, Any], new_tokens: int, generation: Generation
) -> list[list[int]]:
    """The tokens generated after left-padded prompts."""
    from transformers import GenerationConfig

    model, width = generator.model, inputs["input_ids"].shape[1]
    sampled = {"temperature": generation.temperature, "top_p": generation.top_p} if generation.temperature > 0 else {}
    sequences = model.generate(
        **{name: value.to(model.device) for name, value in inputs.items()},
        generation_config=GenerationConfig(max_new_tokens=new_tokens, do_sample=generation.temperature > 0, **sampled),
    )
    stop = _stops(model)
    return [_until(output, stop) for output in sequences[:, width:].tolist()]


def _devices() -> list[int]:
    """Those whose random numbers are used: none of another GPU that is in sight."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def _stops(model: Any) -> frozenset[int]:
    return frozenset(model.generation_config.eos_token_id or ())


def _until(output: list[int], stop: frozenset[int]) -> list[int]:
    """The tokens up to and including the first stop token; padding follows it."""
    end = next((position for position, token in enumerate(output) if token in stop), len(output))
    return output[: end + 1]


def _generation_config(of_model: Any, processor: Any) -> Any:
    """Only the sampling parameters of the model's config: no beam search, no multiple sequences."""
    from transformers import GenerationConfig

    return GenerationConfig(
        **{name: getattr(of_model, name, None) for name in SAMPLING_PARAMETERS},
        eos_token_id=stop_tokens(of_model.eos_token_id, processor),
        pad_token_id=text_tokenizer(processor).pad_token_id,
    )


def stop_tokens(of_model: int | list[int] | None, processor: Any) -> list[int] | None:
    """The tokens that end an output: the model's, the tokenizer's, and the one that ends the assistant's turn.

    The end token of a base model often differs from the one with which its chat template ends a turn, and fine-tuning
    on chats teaches the latter.
    """
    known = [of_model] if isinstance(of_model, int) else list(of_model or [])
    others = [text_tokenizer(processor).eos_token_id, _end_of_turn(processor)]
    return list(dict.fromkeys([*known, *(token for token in others if token is not None)])) or None


def _end_of_turn(processor: Any) -> int | None:
    """The special token after an assistant's message; None without a chat template, or if it adds no such token."""
    if not processor.chat_template:
        return None
    conversation = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    try:
        text = render_chat(processor, conversation, None).rstrip()
    except TemplateError:  # The template requires another kind of conversation.
        return None
    tokenizer = text_tokenizer(processor)
    last = max((token for token in special_tokens(tokenizer) if text.endswith(token)), key=len, default=None)
    return None if last is None else int(tokenizer.convert_tokens_to_ids(last))
