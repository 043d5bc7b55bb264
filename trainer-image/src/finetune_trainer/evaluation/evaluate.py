"""The `evaluate` command: every model answers every held-out example, every grader judges every answer."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch

from finetune_api.evaluation import BASELINE, Score
from finetune_api.finetunejob import DatasetSource
from finetune_api.outcome import SCORE_DIGITS, EvaluationReport
from finetune_api.run import EvaluateRun, NamedModel
from finetune_api.sources import parse_s3
from finetune_trainer.data.data_files import fetch_files
from finetune_trainer.evaluation.generation import generate, load_generator
from finetune_trainer.evaluation.graders import CompiledGrader, compile_graders
from finetune_trainer.evaluation.heldout import HeldOutExample, read_held_out, tokenize_prompts
from finetune_trainer.evaluation.statistics import estimate, estimate_difference
from finetune_trainer.models.models import fetch_model
from finetune_trainer.process.narration import narrated
from finetune_trainer.s3.storage import Storage

REPORT_NAME = "report.json"
SAMPLES_NAME = "samples.jsonl"
Outputs = Mapping[str, Sequence[str]]
"""By model: an output for each example."""
Grades = Mapping[str, Mapping[str, Sequence[float]]]
"""By model and grader: a score for each example."""


def evaluate(run: EvaluateRun) -> EvaluationReport:
    """Evaluate, and write report.json and samples.jsonl to output_uri.

    Raises DiagnosedError: InvalidSpec, DatasetNotFound, DatasetInvalid, ModelNotFound, ModelInvalid, or one of the
    storage's.
    """
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


def answer(model: NamedModel, run: EvaluateRun, examples: Sequence[HeldOutExample], storage: Storage) -> list[str]:
    """One model's outputs. It is fetched and loaded here, and gone from disk and memory afterwards."""
    with tempfile.TemporaryDirectory(prefix="model-") as directory:
        with narrated(f"{model.name}: fetching {model.model.adapter_uri or model.model.uri}"):
            local = fetch_model(model.model, storage, Path(directory))
        with narrated(f"{model.name}: loading"):
            generator = load_generator(local)
    prompts = tokenize_prompts(generator.tokenizer, examples, run.dataset_uri, generator.context_length)
    done = 0

    def on_progress(count: int) -> None:
        nonlocal done
        done = count

    with narrated(f"{model.name}: generating", lambda: {"examples": f"{done}/{len(examples)}"}):
        outputs = generate(generator, prompts, run.generation, on_progress)
    del generator
    gc.collect()
    torch.cuda.empty_cache()
    return outputs


def grade(examples: Sequence[HeldOutExample], outputs: Outputs, graders: Sequence[CompiledGrader]) -> Grades:
    """Every grader's score of every output. Raises DiagnosedError (InvalidSpec) for a schema that refers to nothing."""
    return {
        name: {
            grader.name: [grader.grade(example.item, output) for example, output in zip(examples, texts, strict=True)]
            for grader in graders
        }
        for name, texts in outputs.items()
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
    """A JSON line for each example: its line in the dataset, prompt and reference, each model's output and scores."""
    return b"".join(
        orjson.dumps(
            {
                "line": example.line,
                "prompt": example.prompt.content,
                "reference": example.reference,
                "outputs": {name: texts[index] for name, texts in outputs.items()},
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
    """All scores, with what they were measured on and how."""
    content: dict[str, Any] = {
        "job": run.job.to_wire(),
        "dataset": {"uri": run.dataset_uri, "examples": examples},
        "models": [model.to_wire() for model in run.models],
        "graders": [grader.to_wire() for grader in run.graders],
        "generation": run.generation.to_wire(),
        "scores": [score.to_wire() for score in report.scores],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


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
