"""The `evaluate` command: every model answers every held-out example, and every grader scores every answer."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from finetune_api.conditions import Reason
from finetune_api.evaluation import Generation
from finetune_api.finetunejob import DatasetSource
from finetune_api.outcome import EvaluationReport
from finetune_api.run import EvaluateRun, NamedModel
from finetune_api.sources import parse_s3
from finetune_grading.graders.interface import CompiledGrader, InvalidGraderError
from finetune_grading.registered_graders import compile_graders, load_graders
from finetune_grading.sample import Sample
from finetune_grading.scores import (
    Counting,
    Examples,
    Graded,
    grading_errors,
    grading_failure,
    lacks_answers,
    scores_of,
)
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.read.data_files import fetch_files
from finetune_trainer.evaluation.grading import asked_models, grade, repeat, try_graders, usage_of
from finetune_trainer.evaluation.heldout import (
    HeldOutExample,
    encode_prompt,
    keep_images,
    read_held_out,
    tokenize_prompts,
)
from finetune_trainer.evaluation.report import MOST_ERRORS, to_report, to_samples
from finetune_trainer.evaluation.slices import Slice, labels, largest, slices_of
from finetune_trainer.generate.generation import (
    Generator,
    generate_from_images,
    generate_tokens,
    load_generator,
)
from finetune_trainer.generate.tool_calls import parse_tool_calls, response_template
from finetune_trainer.model.loading import fetch_model, find_model
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

REPORT_NAME = "report.json"
SAMPLES_NAME = "samples.jsonl"


def evaluate(run: EvaluateRun) -> EvaluationReport:
    """Evaluate, and write report.json and samples.jsonl to output_uri.

    Raises DiagnosedError: InvalidSpec, DatasetNotFound, DatasetInvalid, ModelNotFound, ModelInvalid, EndpointDenied,
    EndpointUnreachable, GraderFailed, or one of the storage's.
    """
    try:
        return _evaluate(run)
    except InvalidGraderError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, str(error)) from error


def _evaluate(run: EvaluateRun) -> EvaluationReport:
    storage = Storage(run.storage)
    models = asked_models(run, storage)
    graders = compile_graders(run.graders, models, models)
    load_graders(run.graders)
    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        examples = fetch_held_out(run, storage, graders, Path(scratch))
    warnings = try_graders(examples, graders, models)
    for model in run.models:
        find_model(model.model, storage)  # before the first one generates
    outputs = {model.name: answer(model, run, examples, storage) for model in run.models}
    grades = grade(examples, outputs, graders, models, run.generation.samples_per_example)
    folder = parse_s3(run.output_uri)
    # Before anything is judged: rows that were graded are not lost.
    storage.write(folder.join(SAMPLES_NAME), to_samples(examples, outputs, grades))
    report, slices = judge(run, graders, examples, grades)
    update = {"report_uri": folder.join(REPORT_NAME).uri, "usage": usage_of(models), "warnings": warnings}
    report = report.model_copy(update=update)
    storage.write(folder.join(REPORT_NAME), to_report(run, report, len(examples), slices, grades))
    return report


def judge(
    run: EvaluateRun, graders: Sequence[CompiledGrader], examples: Sequence[HeldOutExample], grades: Graded
) -> tuple[EvaluationReport, list[Slice]]:
    """The scores of all examples and of each slice. Raises DiagnosedError (GraderFailed)."""
    counting = Counting(run.on_error, run.max_errored_percent, run.generation.reducer)
    thresholds = {grader.name: grader.pass_threshold for grader in graders}
    graded = Examples(
        lines=[example.line for example in examples],
        clusters=None if run.cluster_by is None else labels(run.cluster_by, examples),
        samples=run.generation.samples_per_example,
    )
    failure = grading_failure(grades, graded, counting)
    if failure is not None:
        # What an API failed to answer it may answer another time; what it has answered is kept.
        raise DiagnosedError(Reason.GRADER_FAILED, failure, retryable=lacks_answers(grades))
    slices = slices_of(run.slices, examples, grades, thresholds, graded, counting)
    report = EvaluationReport(
        scores=scores_of(grades, thresholds, graded, counting),
        slices=largest(slices),
        errors=grading_errors(grades, graded, MOST_ERRORS),
    )
    return report, slices


def fetch_held_out(
    run: EvaluateRun, storage: Storage, graders: Sequence[CompiledGrader], directory: Path
) -> list[HeldOutExample]:
    """The examples of every file that dataset_uri names, up to the limit. Raises DiagnosedError."""
    source, limit = DatasetSource(uri=run.dataset_uri), run.limit_examples
    templates = [*run.slices, *([] if run.cluster_by is None else [run.cluster_by])]
    examples: list[HeldOutExample] = []
    for file in fetch_files(storage, source, directory, allowed=run.allowed_datasets):
        left = None if limit is None else limit - len(examples)
        if left != 0:
            examples += read_held_out(file.path, file.uri, graders, left, templates)
    return examples


def answer(model: NamedModel, run: EvaluateRun, examples: Sequence[HeldOutExample], storage: Storage) -> list[Sample]:
    """One model's answers, as many to each example as are drawn, one after another.

    The model is fetched and loaded here, and removed from disk and memory afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="model-") as directory:
        with log_progress(f"{model.name}: fetching {model.model.adapter_uri or model.model.uri}"):
            local = fetch_model(model.model, storage, Path(directory))
        with log_progress(f"{model.name}: loading"):
            generator = load_generator(local)
    with tempfile.TemporaryDirectory(prefix="images-") as directory:
        images = keep_images(ImageStore(Path(directory), storage, tuple(run.allowed_images)), examples, run.dataset_uri)
        prompts = tokenize_prompts(generator.processor, examples, run.dataset_uri, generator.context_length, images)
        times = run.generation.samples_per_example
        asked, prompts, images = repeat(examples, times), repeat(prompts, times), repeat(images, times)
        outputs = _generate(model.name, generator, run.generation, asked, prompts, images)
    samples = to_answers(generator.tokenizer, asked, prompts, outputs)
    del generator
    gc.collect()
    torch.cuda.empty_cache()
    return samples


def _generate(
    name: str,
    generator: Generator,
    generation: Generation,
    examples: Sequence[HeldOutExample],
    prompts: Sequence[list[int]],
    images: Sequence[Sequence[Path]],
) -> list[list[int]]:
    """The outputs in the order of the examples; those with images one at a time, the others in batches."""
    seen = [index for index, example in enumerate(examples) if example.prompt.images]
    read = [index for index, example in enumerate(examples) if not example.prompt.images]
    done = 0
    with log_progress(f"{name}: generating", lambda: {"examples": f"{done}/{len(examples)}"}):

        def on_progress(count: int) -> None:
            nonlocal done
            done = count

        of_text = generate_tokens(generator, [prompts[index] for index in read], generation, on_progress)
        with_pixels = (
            encode_prompt(generator.processor, examples[index].prompt, images[index], "pt") for index in seen
        )
        of_images = generate_from_images(
            generator, with_pixels, generation, lambda count: on_progress(len(read) + count)
        )
    found = dict(zip([*read, *seen], [*of_text, *of_images], strict=True))
    return [found[index] for index in range(len(examples))]


def to_answers(
    tokenizer: Any,
    examples: Sequence[HeldOutExample],
    prompts: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
) -> list[Sample]:
    """The answers: text without special tokens, and tool calls if the example has tools."""
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
