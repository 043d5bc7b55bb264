"""Outputs of a model that is loaded here."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_api.pod_contracts.run import ModelSource
from finetune_grading.sample import Sample
from finetune_trainer.checkpoint.loadable import fetch_loadable, fetched_uri
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.generate.generation import (
    Generator,
    batches,
    generate_from_images,
    generate_tokens,
    load_generator,
)
from finetune_trainer.generate.output_samples import to_sample
from finetune_trainer.generate.tool_calls import response_template
from finetune_trainer.outputs.asked import Asked
from finetune_trainer.outputs.heldout import HeldOutExample, encode_prompt, keep_images, tokenize_prompts
from finetune_trainer.outputs.kept_outputs import KeptOutputs
from finetune_trainer.outputs.output import Output
from finetune_trainer.outputs.shard import WHOLE, Shard
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.gpu_requirements import require_gpu_driver
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.report.evaluation_progress import OutputCounter
from finetune_trainer.storage.storage import Storage

Load = Callable[[], Generator]
"""Loads the model at the first call."""
_SEED_OF_NEXT_POD = 0x9E3779B1
"""Further apart than the seeds of tries."""


@contextmanager
def loaded_once(name: str, model: ModelSource, storage: Storage) -> Iterator[Load]:
    """What fetches and loads the model when it is needed first. At the end it is removed from memory."""
    loaded: list[Generator] = []

    def load() -> Generator:
        if not loaded:
            loaded.append(_load(name, model, storage))
        return loaded[0]

    yield load
    if loaded:
        loaded.clear()
        gc.collect()
        torch.cuda.empty_cache()


def generate_outputs(
    name: str,
    model: ModelSource,
    run: Asked,
    examples: Sequence[HeldOutExample],
    storage: Storage,
    progress: OutputCounter,
    load: Load,
    shard: Shard = WHOLE,
) -> list[Output]:
    """One model's outputs, samplesPerExample for each example, in the order of the examples.

    Outputs that an earlier try, or another Pod, has saved are used; the model is loaded for the others. Of those, only
    this Pod's shard is generated.
    """
    kept = KeptOutputs(storage, run.outputs_uri, model, run.generation, examples)
    found = kept.find()
    progress.found(name, len(found))
    missing = [at for at in range(len(examples) * run.generation.samples_per_example) if at not in found]
    if missing:
        generator = load()
        try:
            found |= _generate(_Task(name, generator, run, examples, storage, kept, progress, shard), missing, found)
        except BaseException:
            # The disk is full, or the Pod got SIGTERM: that is the cause, whatever the storage answers.
            with suppress(DiagnosedError):
                kept.write()
            raise
        kept.write()
    return [found[at] for at in sorted(found)]


def _load(name: str, model: ModelSource, storage: Storage) -> Generator:
    require_gpu_driver()
    with tempfile.TemporaryDirectory(prefix="model-") as directory:
        with log_progress(f"{name}: fetching {fetched_uri(model)}"):
            local = fetch_loadable(model, storage, Path(directory))
        with log_progress(f"{name}: loading"):
            return load_generator(local)


@dataclass(frozen=True)
class _Task:
    """What one loaded model has to answer."""

    name: str
    generator: Generator
    run: Asked
    examples: Sequence[HeldOutExample]
    storage: Storage
    kept: KeptOutputs
    progress: OutputCounter
    shard: Shard


def _generate(task: _Task, wanted: Sequence[int], found: Mapping[int, Output]) -> dict[int, Output]:
    """The outputs at these positions: those with images one at a time, the others in batches."""
    run, examples, generator = task.run, task.examples, task.generator
    times = run.generation.samples_per_example
    with tempfile.TemporaryDirectory(prefix="images-") as directory:
        store = ImageStore(Path(directory), task.storage, tuple(run.allowed_images))
        images = keep_images(store, examples, run.dataset_uri)
        prompts = tokenize_prompts(generator.processor, examples, run.dataset_uri, generator.context_length, images)
        wanted = _of_shard(task, wanted, prompts)
        seen = [at for at in wanted if examples[at // times].prompt.images]
        read = [at for at in wanted if not examples[at // times].prompt.images]
        # Another try or Pod needs another seed: with the same one, two samples of an example could be equal.
        seed = run.generation.seed + len(found) + task.shard.index * _SEED_OF_NEXT_POD
        generation = run.generation.model_copy(update={"seed": seed % 2**32})
        made: dict[int, Output] = {}
        # Batches have numbers of their own, whoever makes them.
        count = task.shard.first_number(after=max((one.batch or 0 for one in found.values()), default=-1))
        last = time.monotonic()

        def on_batch(places: Sequence[int], outputs: Sequence[list[int]]) -> None:
            nonlocal last, count
            now = time.monotonic()
            asked, given = [examples[at // times] for at in places], [prompts[at // times] for at in places]
            samples = _to_samples(generator.tokenizer, asked, given, outputs)
            batch = {
                at: Output(
                    sample,
                    prompt_tokens=len(prompt),
                    completion_tokens=len(tokens),
                    seconds=now - last,
                    batch=count,
                    is_unfinished=not generator.has_ended(tokens),
                )
                for at, sample, prompt, tokens in zip(places, samples, given, outputs, strict=True)
            }
            made.update(batch)
            task.kept.keep(batch)
            task.progress.made(task.name, len(batch))
            last, count = time.monotonic(), count + task.shard.nodes

        with log_progress(f"{task.name}: generating", lambda: {"outputs": f"{len(made)}/{len(wanted)}"}):
            generate_tokens(
                generator,
                [prompts[at // times] for at in read],
                generation,
                lambda batch, outputs: on_batch([read[index] for index in batch], outputs),
            )
            with_pixels = (
                encode_prompt(generator.processor, examples[at // times].prompt, images[at // times], "pt")
                for at in seen
            )
            generate_from_images(
                generator,
                with_pixels,
                generation,
                lambda batch, outputs: on_batch([seen[index] for index in batch], outputs),
            )
    return made


def _of_shard(task: _Task, wanted: Sequence[int], prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    """The wanted positions that are this Pod's: whole batches, as a lone Pod makes them, and images one by one.

    It depends on all positions: what is saved already looks different to each Pod.
    """
    shard, times = task.shard, task.run.generation.samples_per_example
    if shard.nodes == 1:
        return wanted
    everything = range(len(task.examples) * times)
    seen = [at for at in everything if task.examples[at // times].prompt.images]
    read = [at for at in everything if not task.examples[at // times].prompt.images]
    lengths = [len(prompts[at // times]) for at in read]
    dealt = shard.of(batches(lengths, task.run.generation.max_tokens, task.generator.context_length))
    mine = {read[index] for batch, _ in dealt for index in batch} | set(shard.of(seen))
    return [at for at in wanted if at in mine]


def _to_samples(
    tokenizer: Any,
    examples: Sequence[HeldOutExample],
    prompts: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
) -> list[Sample]:
    """The outputs as graders see them: text without special tokens, and tool calls if the example has tools."""
    template = response_template(tokenizer) if any(example.prompt.tools for example in examples) else None
    return [
        to_sample(tokenizer, template, example.prompt.tools, prompt, output)
        for example, prompt, output in zip(examples, prompts, outputs, strict=True)
    ]
