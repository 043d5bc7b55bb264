"""spec.generate: a teacher completes prompts, graders filter, and what is kept becomes a file of examples.

What was answered is kept as it arrives: an API's answers in the answer cache, and a loaded model's outputs in the run's
folder. So a try that is killed costs at most what was being made, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from finetune_api.conditions import Reason
from finetune_api.dataset import MOST_COMPLETIONS, Generate, GenerationContent
from finetune_api.evaluation import Generation
from finetune_api.model_usage import Budget, ModelUsage
from finetune_api.pod_contracts.run import DatasetRun, ModelSource
from finetune_api.sources import StorageLocation, parse_s3
from finetune_grading.grade_rows import grade_rows
from finetune_grading.graders.interface import CompiledGrader, InvalidGraderError
from finetune_grading.registered_graders import compile_graders, load_graders
from finetune_grading.sample import Row, Sample
from finetune_trainer.checkpoint.loadable import find_loadable
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.dataset.prompts import PromptLine, read_prompts, to_line
from finetune_trainer.dataset.selection import Completion, best_alone, completion_of, graded, not_kept
from finetune_trainer.endpoints.answer_cache import Answers
from finetune_trainer.endpoints.asked_model import AskedModel
from finetune_trainer.endpoints.asking import ask_all, usage_of
from finetune_trainer.endpoints.endpoint import Endpoint
from finetune_trainer.endpoints.limits import Ledger
from finetune_trainer.generate.generation import Generator
from finetune_trainer.model.folders import model_version
from finetune_trainer.outputs.endpoint_outputs import ask_model
from finetune_trainer.outputs.heldout import refuse_without_tools
from finetune_trainer.outputs.loaded_outputs import generate_outputs, loaded_once
from finetune_trainer.outputs.output import Output
from finetune_trainer.process.failures import DiagnosedError, sentence
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.report.evaluation_progress import NoProgress
from finetune_trainer.sandbox.client import sandbox_of
from finetune_trainer.storage.storage import Storage

GENERATED_NAME = "generated.jsonl"
"""In the run's folder: the examples, before duplicates and the like are left out."""
GENERATION_NAME = "generation.jsonl"
"""In the run's folder: every completion, with its scores, and why it is not kept."""
BUDGET_NAME = "budget.json"
OUTPUTS = "outputs"


@dataclass(frozen=True)
class Generated:
    """The examples in a file, and what they were made of."""

    file: DataFile
    prompts: Sequence[DataFile]
    prompt_of: Sequence[int]
    """For each example the number of its file in `prompts`."""
    content: GenerationContent
    usage: list[ModelUsage]
    warnings: list[str]


@dataclass(frozen=True)
class _Asked:
    """What the teacher is asked (outputs/asked.py)."""

    dataset_uri: str
    generation: Generation
    allowed_images: Sequence[str]
    outputs_uri: str | None


def generate(
    run: DatasetRun, settings: Generate, files: Sequence[DataFile], storage: Storage, directory: Path
) -> Generated:
    """Complete the prompts in these files, and write what is kept to `directory` and the run's folder.

    Raises DiagnosedError: InvalidSpec, DatasetInvalid, ModelNotFound, ModelInvalid, EndpointDenied,
    EndpointUnreachable, ModelChanged, SandboxUnavailable, or one of the storage's.
    """
    output = parse_s3(run.output_uri)
    models = _asked_models(run, settings, storage, output)
    try:
        sandbox = sandbox_of(settings.graders, run.python_sandbox)
        graders = compile_graders(settings.graders, models, models, runner=sandbox)
        load_graders(settings.graders)
    except InvalidGraderError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"spec.generate: {error}") from error
    with log_progress("reading the prompts"):
        prompts = read_prompts(files, graders, settings.prompts.max_examples)
    _refuse_too_many(len(prompts), settings)
    refuse_without_tools(files[0].uri, [one.example for one in prompts], graders)
    teacher = _teacher_of(run, settings, storage)
    outputs = _outputs(run, settings, prompts, models, storage, output, teacher)
    times = settings.samples_per_prompt
    made = [completion_of(at // times, at % times, one) for at, one in enumerate(outputs)]
    made = _usable(made, prompts)
    made = _graded(made, prompts, graders, models)
    if settings.best_by is not None:
        made = best_alone(made, settings.best_by)
    content = GenerationContent(
        **teacher,
        prompts=len(prompts),
        completions=len(made),
        kept=sum(one.cause is None for one in made),
        not_kept=not_kept(made),
        settings=settings,
        prompts_revision=run.prompts_revision,
    )
    file = _write(made, prompts, content, directory, storage, output)
    _refuse_nothing(content, made, output)
    number = {prompt.path: at for at, prompt in enumerate(files)}
    return Generated(
        file,
        files,
        [number[prompts[one.prompt].file.path] for one in made if one.cause is None],
        content,
        [*usage_of(models), *_usage_of_loaded(settings, outputs)],
        list(_warnings(made, models)),
    )


def _asked_models(
    run: DatasetRun, settings: Generate, storage: Storage, output: StorageLocation
) -> dict[str, AskedModel]:
    """The models of the class that are asked, by name. Sends nothing."""
    if run.answers_uri is None:
        return {}
    answers = Answers(storage, parse_s3(run.answers_uri))
    ledger = Ledger(settings.budget or Budget(), storage, output.join(BUDGET_NAME), "spec.generate.budget")
    return {one.name: AskedModel(Endpoint(one, run.job.namespace, answers, ledger)) for one in run.endpoints}


def _refuse_too_many(prompts: int, settings: Generate) -> None:
    count = prompts * settings.samples_per_prompt
    if count > MOST_COMPLETIONS:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"spec.generate asks for {count:,} completions ({prompts:,} prompts, {settings.samples_per_prompt} each), "
            f"and one Dataset makes at most {MOST_COMPLETIONS:,}. Use fewer prompts (prompts.maxExamples) or samples.",
        )


def _outputs(
    run: DatasetRun,
    settings: Generate,
    prompts: Sequence[PromptLine],
    models: Mapping[str, AskedModel],
    storage: Storage,
    output: StorageLocation,
    teacher: Mapping[str, Any],
) -> list[Output]:
    """samplesPerPrompt outputs for each prompt, one prompt after another."""
    generation = Generation(
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        samples_per_example=settings.samples_per_prompt,
        seed=run.seed,
    )
    asked = _Asked(prompts[0].file.uri, generation, run.allowed_images, output.join(OUTPUTS).uri)
    examples = [one.example for one in prompts]
    endpoint, uri = settings.teacher.endpoint, settings.teacher.uri
    if endpoint is not None:
        return ask_model("teacher", models[endpoint.name], asked, examples, storage, NoProgress())
    source = ModelSource(uri=uri or "")
    find_loadable(source, storage)
    with loaded_once("teacher", source, storage) as load:

        def load_unchanged() -> Generator:
            generator = load()
            if _teacher_of(run, settings, storage) != teacher:
                message = f"The files of the teacher {uri} were changed while they were fetched."
                raise DiagnosedError(Reason.MODEL_CHANGED, message, retryable=True)
            return generator

        return generate_outputs("teacher", source, asked, examples, storage, NoProgress(), load_unchanged)


def _usable(made: Sequence[Completion], prompts: Sequence[PromptLine]) -> list[Completion]:
    """Without those of which no line can be made that training reads."""
    return [
        replace(one, cause="unusable")
        if one.cause is None and to_line(prompts[one.prompt], one.output.sample, {}) is None
        else one
        for one in made
    ]


def _graded(
    made: Sequence[Completion],
    prompts: Sequence[PromptLine],
    graders: Sequence[CompiledGrader],
    models: Mapping[str, AskedModel],
) -> list[Completion]:
    """With the scores of each that may be kept."""
    there = [at for at, one in enumerate(made) if one.cause is None]
    if not graders or not there:
        return list(made)
    rows = [Row(prompts[made[at].prompt].example.item, made[at].output.sample) for at in there]
    grades = ask_all(lambda: grade_rows(graders, rows), models, "grading")
    found = dict(enumerate(made))
    for number, at in enumerate(there):
        found[at] = graded(made[at], {name: of_rows[number] for name, of_rows in grades.items()}, graders)
    return list(found.values())


def _teacher_of(run: DatasetRun, settings: Generate, storage: Storage) -> dict[str, Any]:
    """The teacher's name, and what tells it from another one at the same place."""
    if settings.teacher.endpoint is not None:
        config = next(one for one in run.endpoints if one.name == settings.teacher.endpoint.name)
        return {"teacher": config.name, "teacher_digest": config.digest}
    source = ModelSource(uri=settings.teacher.uri or "")
    version = hashlib.sha256(orjson.dumps(model_version(source, storage))).hexdigest()
    return {"teacher": source.uri, "teacher_digest": f"sha256:{version}"}


def _write(
    made: Sequence[Completion],
    prompts: Sequence[PromptLine],
    content: GenerationContent,
    directory: Path,
    storage: Storage,
    output: StorageLocation,
) -> DataFile:
    """Write the examples, and what became of each completion. Returns the file of the examples."""
    directory.mkdir(parents=True, exist_ok=True)
    path, journal = directory / GENERATED_NAME, directory / GENERATION_NAME
    with path.open("wb") as examples, journal.open("wb") as all_made:
        for one in made:
            prompt = prompts[one.prompt]
            origin = {"teacher": content.teacher, "prompt": prompt.place, "sample": one.sample}
            scores = {name: round(score, 6) for name, score in one.scores.items()}
            if one.cause is None:
                line = to_line(prompt, one.output.sample, origin | ({"scores": scores} if scores else {}))
                assert line is not None, "it has been made before, with less"
                examples.write(line + b"\n")
            record = {
                **origin,
                "output_text": one.output.sample.output_text,
                **({"output_tools": tools} if (tools := _called(one.output.sample)) else {}),
                **({"scores": scores} if scores else {}),
                **({"not_kept": one.cause} if one.cause is not None else {}),
                **({"error": one.error.details} if one.error is not None else {}),
            }
            all_made.write(_json_line(record) + b"\n")
    stored = storage.upload(path, output.join(GENERATED_NAME))
    storage.upload(journal, output.join(GENERATION_NAME))
    return DataFile(GENERATED_NAME, path, stored.sha256)


def _called(sample: Sample) -> list[dict[str, Any]]:
    try:
        return sample.output_tools
    except (TypeError, ValueError):  # Arguments that JSON does not have: it is not kept.
        return [{"type": "function", "function": {"name": call.name}} for call in sample.tool_calls]


def _json_line(line: Mapping[str, Any]) -> bytes:
    # Of an output that is not UTF-8, which is not kept, what can be written.
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _refuse_nothing(content: GenerationContent, made: Sequence[Completion], output: StorageLocation) -> None:
    """Raises DiagnosedError if no completion is kept: a dataset is never empty."""
    if content.kept:
        return
    errors = [one.error for one in made if one.error is not None]
    if len(errors) == len(made) and all(error.passing for error in errors):
        raise DiagnosedError(Reason.ENDPOINT_UNREACHABLE, errors[0].details, retryable=True)
    first = f" The first error: {sentence(errors[0].details)}" if errors else ""
    raise DiagnosedError(
        Reason.DATASET_INVALID,
        f"None of {content.completions} completions was kept: {_counts(content)}.{first} "
        f"{output.join(GENERATION_NAME).uri} has each of them. Change graders, maxTokens, budget or teacher of "
        "spec.generate, and change spec.runId: an API is not asked again what it has answered, and a teacher that the "
        "Pod loads starts again.",
    )


def _counts(content: GenerationContent) -> str:
    found = {} if content.not_kept is None else content.not_kept.to_wire()
    return ", ".join(f"{name} {count}" for name, count in found.items() if count)


def _usage_of_loaded(settings: Generate, outputs: Sequence[Output]) -> list[ModelUsage]:
    if settings.teacher.uri is None:
        return []
    tokens = [(one.prompt_tokens or 0, one.completion_tokens or 0) for one in outputs]
    return [
        ModelUsage(
            model=settings.teacher.uri,
            requests=len(outputs),
            prompt_tokens=sum(asked for asked, _ in tokens),
            completion_tokens=sum(said for _, said in tokens),
        )
    ]


def _warnings(made: Sequence[Completion], models: Mapping[str, AskedModel]) -> Iterator[str]:
    errors = [one.error for one in made if one.error is not None]
    if errors:
        yield f"{len(errors)} of {len(made)} completions were not made or graded; the first: {errors[0].details}"
    without = dict.fromkeys(option for one in made for option in one.output.without)
    if without:
        yield f"The teacher's API refuses {', '.join(without)}: it completed without, by its own settings."
    for name, model in models.items():
        if model.endpoint.hides_revision:
            yield (
                f"The ModelDeployment of the model {name!r} does not say which revision answers: a rollout meanwhile "
                "could not be detected."
            )
