"""Outputs of a model that is loaded here."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_api.evaluation import Generation
from finetune_api.run import EvaluateRun, ModelSource
from finetune_grading.sample import Sample
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.evaluation.heldout import HeldOutExample, encode_prompt, keep_images, tokenize_prompts
from finetune_trainer.evaluation.output import Output, repeat
from finetune_trainer.generate.generation import Generator, generate_from_images, generate_tokens, load_generator
from finetune_trainer.generate.tool_calls import parse_tool_calls, response_template
from finetune_trainer.model.loading import fetch_model
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage


def generate_outputs(
    name: str, model: ModelSource, run: EvaluateRun, examples: Sequence[HeldOutExample], storage: Storage
) -> list[Output]:
    """One model's outputs, as many to each example as are drawn, one after another.

    The model is fetched and loaded here, and removed from disk and memory afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="model-") as directory:
        with log_progress(f"{name}: fetching {model.adapter_uri or model.uri}"):
            local = fetch_model(model, storage, Path(directory))
        with log_progress(f"{name}: loading"):
            generator = load_generator(local)
    with tempfile.TemporaryDirectory(prefix="images-") as directory:
        images = keep_images(ImageStore(Path(directory), storage, tuple(run.allowed_images)), examples, run.dataset_uri)
        prompts = tokenize_prompts(generator.processor, examples, run.dataset_uri, generator.context_length, images)
        times = run.generation.samples_per_example
        asked, prompts, images = repeat(examples, times), repeat(prompts, times), repeat(images, times)
        made = _generate(name, generator, run.generation, asked, prompts, images)
    samples = _to_samples(generator.tokenizer, asked, prompts, [one.tokens for one in made])
    del generator
    gc.collect()
    torch.cuda.empty_cache()
    return [
        Output(
            sample, prompt_tokens=len(prompt), completion_tokens=len(one.tokens), seconds=one.seconds, batch=one.batch
        )
        for sample, prompt, one in zip(samples, prompts, made, strict=True)
    ]


@dataclass(frozen=True)
class _Made:
    """The tokens of an output, and the batch that it was made in."""

    tokens: list[int]
    batch: int
    seconds: float


def _generate(
    name: str,
    generator: Generator,
    generation: Generation,
    examples: Sequence[HeldOutExample],
    prompts: Sequence[list[int]],
    images: Sequence[Sequence[Path]],
) -> list[_Made]:
    """The outputs in the order of the examples; those with images one at a time, the others in batches."""
    seen = [index for index, example in enumerate(examples) if example.prompt.images]
    read = [index for index, example in enumerate(examples) if not example.prompt.images]
    batches: dict[int, tuple[int, float]] = {}
    last, count = time.monotonic(), 0
    with log_progress(f"{name}: generating", lambda: {"examples": f"{len(batches)}/{len(examples)}"}):

        def on_batch(indices: Sequence[int]) -> None:
            nonlocal last, count
            now = time.monotonic()
            batches.update({index: (count, now - last) for index in indices})
            last, count = now, count + 1

        of_text = generate_tokens(
            generator,
            [prompts[index] for index in read],
            generation,
            lambda batch: on_batch([read[index] for index in batch]),
        )
        with_pixels = (
            encode_prompt(generator.processor, examples[index].prompt, images[index], "pt") for index in seen
        )
        of_images = generate_from_images(
            generator, with_pixels, generation, lambda batch: on_batch([seen[index] for index in batch])
        )
    found = dict(zip([*read, *seen], [*of_text, *of_images], strict=True))
    return [_Made(found[index], *batches[index]) for index in range(len(examples))]


def _to_samples(
    tokenizer: Any,
    examples: Sequence[HeldOutExample],
    prompts: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
) -> list[Sample]:
    """The outputs as graders see them: text without special tokens, and tool calls if the example has tools."""
    template = response_template(tokenizer) if any(example.prompt.tools for example in examples) else None
    samples = []
    for example, prompt, output in zip(examples, prompts, outputs, strict=True):
        text = tokenizer.decode(output, skip_special_tokens=True)
        calls: tuple[ToolCall, ...] = ()
        if template is not None and example.prompt.tools:
            said, calls = parse_tool_calls(
                template, tokenizer.decode(output), tokenizer.decode(prompt), example.prompt.tools
            )
            text = _without_special_tokens(tokenizer, said) if calls else text
        samples.append(Sample(text, calls))
    return samples


def _without_special_tokens(tokenizer: Any, text: str) -> str:
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, "")
    return text.strip()
