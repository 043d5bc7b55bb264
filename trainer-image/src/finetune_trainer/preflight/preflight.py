"""Preflight: everything that a run needs is read and tried before a GPU is asked for. Works without torch."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import structlog

from finetune_api.auto import length_bound, resolve_hyperparameters
from finetune_api.conditions import Reason
from finetune_api.finetunejob import (
    Checkpoints,
    DatasetError,
    DatasetStatus,
    FileStatistics,
    MemoryEstimate,
    ModelStatus,
)
from finetune_api.outcome import Failure, PreflightReport
from finetune_api.run import PreflightRun
from finetune_api.sources import S3Location, parse_s3
from finetune_trainer.data import examples, subsets, tokenization
from finetune_trainer.data.chat_rendering import reads_images
from finetune_trainer.data.examples import Example, NumberedExample, format_of, read_examples
from finetune_trainer.data.images import ImageError, ImageStore
from finetune_trainer.data.jsonl import LineError
from finetune_trainer.data.vision import too_many_image_tokens
from finetune_trainer.gang.batches import split_batch
from finetune_trainer.models.models import InspectedModel, inspect_model
from finetune_trainer.preflight import memory
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.narration import narrated
from finetune_trainer.s3.storage import Storage

FileName = Literal["training", "validation"]

REPORT_NAME = "preflight.json"
LISTED_ERRORS = 20
MESSAGE_LENGTH = 1000

_log = structlog.get_logger()


@dataclass
class Survey:
    """What one file holds."""

    file: FileName
    path: Path
    uri: str
    format: examples.Format | None = None
    fingerprints: list[bytes] = field(default_factory=list)
    """One for each example, in order."""
    error_count: int = 0
    errors: list[DatasetError] = field(default_factory=list)
    """The first of them."""

    def add_error(self, line: int, message: str) -> None:
        self.error_count += 1
        if len(self.errors) < LISTED_ERRORS:
            self.errors.append(DatasetError(file=self.file, line=line, message=message[:MESSAGE_LENGTH]))


def preflight(run: PreflightRun, directory: Path) -> PreflightReport:
    """Read and try everything. Raises DiagnosedError; the storage has the report of either end."""
    storage = Storage(run.storage)
    output = parse_s3(run.output_uri)
    check_storage(storage, output)
    _log.info(f"{output.uri} can be written, read, listed and deleted")
    try:
        report = _examine(run, storage, directory)
    except DiagnosedError as error:
        with contextlib.suppress(DiagnosedError):  # the first failure is the one to tell of
            _store_report(storage, output, error.failure)
        raise
    _store_report(storage, output, report)
    return report


def check_storage(storage: Storage, output: S3Location) -> None:
    """List, write, read and delete below the run's folder. Listing comes first: some servers make a missing bucket."""
    probe = output.join(f"preflight-{uuid.uuid4().hex}")
    storage.list_objects(output)
    storage.write(probe, b"finetune-operator")
    storage.read(probe)
    storage.delete([probe])


def _examine(run: PreflightRun, storage: Storage, directory: Path) -> PreflightReport:
    training = _download(storage, "training", run.dataset.training.uri, directory)
    surveys = [training]
    validation = None
    if run.dataset.validation is not None and run.dataset.validation.uri is not None:
        validation = _download(storage, "validation", run.dataset.validation.uri, directory)
        surveys.append(validation)
    with narrated("reading every line"):
        for survey in surveys:
            _survey(survey)
    _refuse_invalid(surveys)
    with narrated(f"reading what {run.model.uri} is"):
        model = inspect_model(run.model, storage, directory / "model")
    _log.info(f"{run.model.uri} is a {model.status.architecture} of {model.status.parameters} parameters")
    if training.format == "Chat" and not model.tokenizer.chat_template:
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"The tokenizer of {run.model.uri} has no chat template, and the dataset is chat messages. "
            "Use an instruction-tuned model, or prompt/completion pairs.",
        )
    max_length = _max_length(run, model.status)
    if reads_images(model.tokenizer) and run.parallelism.strategy == "FSDP":
        raise DiagnosedError(
            Reason.INVALID_SPEC, "parallelism.strategy FSDP does not know vision-language models yet. Use DDP."
        )
    images = ImageStore(directory / "images", storage, tuple(run.allowed_images))
    with narrated("counting tokens"):
        dataset = _count_tokens(run, training, validation, model.tokenizer, images, max_length)
    estimate, advice = _estimate_memory(run, model, dataset)
    if advice is not None:
        dataset = dataset.model_copy(update={"warnings": [advice, *dataset.warnings]})
    for warning in dataset.warnings:
        _log.warning(warning)
    return PreflightReport(dataset=dataset, model=model.status, memory=estimate)


def _download(storage: Storage, file: FileName, uri: str, directory: Path) -> Survey:
    path = directory / f"{file}.jsonl"
    with narrated(f"fetching {uri}"):
        storage.download(parse_s3(uri), path, missing=Reason.DATASET_NOT_FOUND)
    return Survey(file, path, uri)


def _survey(survey: Survey) -> None:
    for item in read_examples(survey.path):
        if isinstance(item, LineError):
            survey.add_error(item.line, item.message)
        else:
            survey.format = survey.format or format_of(item.example)
            survey.fingerprints.append(examples.fingerprint(item.example))
    count = len(survey.fingerprints)
    if survey.file == "training" and not survey.error_count and count < examples.LEAST_TRAINING_EXAMPLES:
        survey.add_error(
            count,
            f"Training file has {count} example(s), but must have at least "
            f"{examples.LEAST_TRAINING_EXAMPLES} examples.",
        )
    _log.info(f"{survey.file} file: {count} examples, {survey.error_count} broken lines")


def _refuse_invalid(surveys: list[Survey]) -> None:
    """Raises DiagnosedError (DatasetInvalid), with the broken lines, when there are any."""
    formats = [survey.format for survey in surveys if survey.format is not None]
    if len(set(formats)) > 1:
        surveys[-1].add_error(1, "The validation file must have the same format as the training file.")
    errors = [error for survey in surveys for error in survey.errors][:LISTED_ERRORS]
    if not errors:
        return
    count = sum(survey.error_count for survey in surveys)
    first = errors[0]
    uri = next(survey.uri for survey in surveys if survey.file == first.file)
    raise DiagnosedError(
        Reason.DATASET_INVALID,
        f"Invalid file format. Line {first.line} of the {first.file} file {uri}: {first.message} "
        + (f"{count - 1} more line(s) are broken. " if count > 1 else "")
        + "Correct the file and upload it again: it is checked again by itself.",
        dataset=DatasetStatus(format=formats[0] if formats else None, error_count=count, errors=errors),
    )


def _max_length(run: PreflightRun, model: ModelStatus) -> int:
    asked = run.hyperparameters.max_length
    if asked is not None and asked > model.context_length:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"hyperparameters.maxLength is {asked}, beyond the model's context of {model.context_length} tokens.",
        )
    return length_bound(asked, model.context_length)


def _estimate_memory(
    run: PreflightRun, model: InspectedModel, dataset: DatasetStatus
) -> tuple[MemoryEstimate | None, str | None]:
    """The memory that training will need (None: the config tells too little), and what to tell when it may not fit.

    Raises DiagnosedError (InvalidSpec) when the batch can't be divided over the processes.
    """
    processes = run.parallelism.nodes * run.parallelism.processes_per_node
    assert dataset.training is not None
    resolved = resolve_hyperparameters(
        run.hyperparameters,
        adapter=run.adapter.type,
        checkpoints=Checkpoints(),
        examples=dataset.training.examples,
        max_tokens=dataset.training.max_tokens,
        context_length=model.status.context_length,
        processes=processes,
    )
    batch = split_batch(resolved.batch_size, processes, resolved.max_length)
    size = memory.model_size(model.config, model.shapes, model.adapter_shapes, run.adapter)
    if size is None:
        return None, None
    plan = memory.plan_of(run.adapter, run.parallelism, batch.per_pass, resolved.max_length)
    estimate = memory.estimate(size, plan, run.accelerator_memory)
    return estimate, memory.advise(size, plan, estimate)


def _count_tokens(
    run: PreflightRun, training: Survey, validation: Survey | None, tokenizer: Any, images: ImageStore, max_length: int
) -> DatasetStatus:
    split = run.dataset.validation.split_percent if run.dataset.validation is not None else None
    selection = subsets.select(
        len(training.fingerprints), seed=run.seed, split_percent=split, limit=run.dataset.training.limit
    )
    held_out = validation or (training if split is not None else None)
    held_out_positions = range(len(validation.fingerprints)) if validation else selection.validation
    statistics = _statistics(training, selection.training, tokenizer, images, max_length)
    held_out_statistics = _statistics(held_out, held_out_positions, tokenizer, images, max_length) if held_out else None
    _refuse_invalid([survey for survey in (training, validation) if survey is not None])
    trained = [training.fingerprints[position] for position in selection.training]
    measured = [held_out.fingerprints[position] for position in held_out_positions] if held_out else []
    return DatasetStatus(
        format=training.format,
        training=statistics,
        validation=held_out_statistics,
        warnings=list(_warnings(trained, measured, statistics, held_out_statistics, max_length)),
    )


def _statistics(survey: Survey, positions: Any, tokenizer: Any, images: ImageStore, max_length: int) -> FileStatistics:
    """Counts of the chosen examples. Bad images and what the chat template refuses become errors of the survey."""
    chosen = frozenset(positions)
    lengths: list[int] = []
    truncated = 0
    examples = ((item.line, item.example) for position, item in enumerate(_examples(survey)) if position in chosen)
    for line, example, files in _with_images(tokenizer, images, examples):
        try:
            sequences = tokenization.tokenize(tokenizer, example, files())
        except (tokenization.TemplateError, ImageError) as error:
            survey.add_error(line, str(error))
            continue
        images_end = max(sequence.images_end for sequence in sequences)
        if images_end > max_length:
            survey.add_error(line, too_many_image_tokens(images_end, max_length))
            continue
        if not any(tokenization.has_loss(sequence, max_length) for sequence in sequences):
            survey.add_error(
                line,
                f"Nothing is left to learn from after {max_length} tokens (maxLength): shorten the prompt.",
            )
        longest = max(len(sequence.input_ids) for sequence in sequences)
        truncated += longest > max_length
        lengths.append(sum(len(sequence.input_ids) for sequence in sequences))
    return FileStatistics(
        examples=len(lengths), tokens=sum(lengths), max_tokens=max(lengths, default=0), truncated=truncated
    )


def _with_images(
    tokenizer: Any, images: ImageStore, examples: Iterator[tuple[int, Example]]
) -> Iterator[tuple[int, Example, Callable[[], list[Path]]]]:
    """Lines and examples, and what gives the files of the images; none for a model that reads only text."""
    if not reads_images(tokenizer):
        return ((line, example, list) for line, example in examples)
    return ((line, example, files.result) for line, example, files in images.ahead(examples))


def _examples(survey: Survey) -> Iterator[NumberedExample]:
    return (item for item in read_examples(survey.path) if isinstance(item, NumberedExample))


def _warnings(
    trained: list[bytes],
    measured: list[bytes],
    statistics: FileStatistics,
    held_out: FileStatistics | None,
    max_length: int,
) -> Iterator[str]:
    distinct = set(trained)
    if len(distinct) < len(trained):
        yield f"{len(trained) - len(distinct)} training examples are duplicates of others."
    leaked = sum(fingerprint in distinct for fingerprint in measured)
    if leaked:
        yield f"{leaked} of {len(measured)} validation examples are also trained on: evalLoss will flatter."
    for name, counts in (("training", statistics), ("validation", held_out)):
        if counts is not None and counts.truncated:
            yield f"{counts.truncated} {name} examples are longer than {max_length} tokens and are cut there."


def _store_report(storage: Storage, output: S3Location, report: PreflightReport | Failure) -> None:
    storage.write(output.join(REPORT_NAME), report.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode())
