"""The `evaluate` command: every model answers every held-out example, and every grader scores every answer."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, Generation, Score
from finetune_api.finetunejob import DatasetSource
from finetune_api.outcome import SCORE_DIGITS, EvaluationReport
from finetune_api.run import EvaluateRun, NamedModel
from finetune_api.sources import parse_s3
from finetune_grading.grader import CompiledGrader, InvalidGraderError
from finetune_grading.graders import compile_graders
from finetune_grading.sample import Sample
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.read.data_files import fetch_files
from finetune_trainer.evaluation.heldout import (
    HeldOutExample,
    encode_prompt,
    keep_images,
    read_held_out,
    tokenize_prompts,
)
from finetune_trainer.evaluation.statistics import estimate, estimate_difference
from finetune_trainer.generate.generation import (
    Generator,
    generate_from_images,
    generate_tokens,
    load_generator,
)
from finetune_trainer.generate.tool_calls import parse_tool_calls, response_template
from finetune_trainer.model.loading import fetch_model
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

REPORT_NAME = "report.json"
SAMPLES_NAME = "samples.jsonl"
Outputs = Mapping[str, Sequence[Sample]]
"""By model: an output for each example."""
Grades = Mapping[str, Mapping[str, Sequence[float]]]
"""By model and grader: a score for each example."""


def evaluate(run: EvaluateRun) -> EvaluationReport:
    """Evaluate, and write report.json and samples.jsonl to output_uri.

    Raises DiagnosedError: InvalidSpec, DatasetNotFound, DatasetInvalid, ModelNotFound, ModelInvalid, or one of the
    storage's.
    """
    try:
        return _evaluate(run)
    except InvalidGraderError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, str(error)) from error


def _evaluate(run: EvaluateRun) -> EvaluationReport:
    storage = Storage(run.storage)
    graders = compile_graders(run.graders)
    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        examples = fetch_held_out(run, storage, graders, Path(scratch))
    outputs = {model.name: answer(model, run, examples, storage) for model in run.models}
    grades = grade(examples, outputs, graders)
    folder = parse_s3(run.output_uri)
    report = EvaluationReport(scores=score(grades), report_uri=folder.join(REPORT_NAME).uri)
    storage.write(folder.join(SAMPLES_NAME), to_samples(examples, outputs, grades))
    storage.write(folder.join(REPORT_NAME), to_report(run, report, len(examples)))
    return report


def fetch_held_out(
    run: EvaluateRun, storage: Storage, graders: Sequence[CompiledGrader], directory: Path
) -> list[HeldOutExample]:
    """The examples of every file that dataset_uri names, up to the limit. Raises DiagnosedError."""
    source, limit = DatasetSource(uri=run.dataset_uri), run.limit_examples
    examples: list[HeldOutExample] = []
    for file in fetch_files(storage, source, directory, allowed=run.allowed_datasets):
        left = None if limit is None else limit - len(examples)
        if left != 0:
            examples += read_held_out(file.path, file.uri, graders, left)
    return examples


def answer(model: NamedModel, run: EvaluateRun, examples: Sequence[HeldOutExample], storage: Storage) -> list[Sample]:
    """One model's answers. The model is fetched and loaded here, and removed from disk and memory afterwards."""
    with tempfile.TemporaryDirectory(prefix="model-") as directory:
        with log_progress(f"{model.name}: fetching {model.model.adapter_uri or model.model.uri}"):
            local = fetch_model(model.model, storage, Path(directory))
        with log_progress(f"{model.name}: loading"):
            generator = load_generator(local)
    with tempfile.TemporaryDirectory(prefix="images-") as directory:
        images = keep_images(ImageStore(Path(directory), storage, tuple(run.allowed_images)), examples, run.dataset_uri)
        prompts = tokenize_prompts(generator.processor, examples, run.dataset_uri, generator.context_length, images)
        outputs = _generate(model.name, generator, run.generation, examples, prompts, images)
    samples = to_answers(generator.tokenizer, examples, prompts, outputs)
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


def grade(examples: Sequence[HeldOutExample], outputs: Outputs, graders: Sequence[CompiledGrader]) -> Grades:
    """Every grader's score of every output. Raises InvalidGraderError for a schema that refers to nothing."""
    return {
        name: {
            grader.name: [grader.grade(example.item, sample) for example, sample in zip(examples, samples, strict=True)]
            for grader in graders
        }
        for name, samples in outputs.items()
    }


def score(grades: Grades) -> list[Score]:
    """The mean scores, with the gain over the baseline for every other model if there is a baseline.

    Rounded here, so that the gate, the status, the report and a person all see the same number.
    """
    return [
        _score(model, grader, scores, None if model == BASELINE else grades.get(BASELINE, {}).get(grader))
        for model, of_model in grades.items()
        for grader, scores in of_model.items()
    ]


def to_samples(examples: Sequence[HeldOutExample], outputs: Outputs, grades: Grades) -> bytes:
    """A JSON line for each example: its line in the dataset, prompt and reference, each model's output and scores.

    Where the example has tools: also the calls of the reference and of each model.
    """
    return b"".join(
        orjson.dumps(
            {
                "line": example.line,
                "prompt": example.prompt.content,
                "reference": example.reference,
                "outputs": {name: samples[index].output_text for name, samples in outputs.items()},
                **_calls(example, {name: samples[index] for name, samples in outputs.items()}),
                "scores": {
                    name: {grader: scores[index] for grader, scores in of_model.items()}
                    for name, of_model in grades.items()
                },
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for index, example in enumerate(examples)
    )


def to_report(run: EvaluateRun, report: EvaluationReport, examples: int) -> bytes:
    """All scores, with the dataset, models, graders and settings that they were measured with."""
    content: dict[str, Any] = {
        "job": run.job.to_wire(),
        "dataset": {"uri": run.dataset_uri, "examples": examples},
        "models": [model.to_wire() for model in run.models],
        "graders": [grader.to_wire() for grader in run.graders],
        "generation": run.generation.to_wire(),
        "scores": [score.to_wire() for score in report.scores],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _calls(example: HeldOutExample, samples: Mapping[str, Sample]) -> dict[str, Any]:
    if not example.prompt.tools:
        return {}
    return {
        "referenceTools": example.reference_tools,
        "outputTools": {name: sample.output_tools for name, sample in samples.items()},
    }


def _without_special_tokens(tokenizer: Any, text: str) -> str:
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, "")
    return text.strip()


def _score(model: str, grader: str, scores: Sequence[float], baseline: Sequence[float] | None) -> Score:
    mean = estimate(scores)
    gain = None if baseline is None else estimate_difference(scores, baseline)
    return Score(
        candidate=model,
        grader=grader,
        score=round(mean.mean, SCORE_DIGITS),
        low=round(mean.low, SCORE_DIGITS),
        high=round(mean.high, SCORE_DIGITS),
        examples=len(scores),
        delta=None if gain is None else round(gain.mean, SCORE_DIGITS),
        delta_low=None if gain is None else round(gain.low, SCORE_DIGITS),
        delta_high=None if gain is None else round(gain.high, SCORE_DIGITS),
    )
