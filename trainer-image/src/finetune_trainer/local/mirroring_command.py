"""`finetune-trainer mirror-benchmark`: copies benchmarks' datasets to where evaluations read them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from finetune_api.conditions import Reason
from finetune_api.evaluation.benchmarks import BENCHMARK_TASKS
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.benchmarks.mirroring import known_task, mirror_benchmark
from finetune_trainer.local.storage_settings import storage_config
from finetune_trainer.process import environment
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.open_storage import open_storage

EVERY_TASK = "all"


def mirror_benchmarks(names: Sequence[str], to: str, source: Path | None, revision: str | None) -> int:
    """Copy the datasets of these tasks, one after the other. Returns the exit code."""
    environment.prepare_laptop()
    storage = open_storage(storage_config(os.environ))
    try:
        mirror = _location(to)
        for task in [known_task(name) for name in (BENCHMARK_TASKS if EVERY_TASK in names else names)]:
            found = mirror_benchmark(task, storage, mirror, source, revision)
            files = [file for split in found.manifest.splits.values() for file in split]
            typer.echo(
                f"{task}: {found.examples} examples of {found.manifest.dataset} at {found.manifest.revision}, "
                f"{len(files)} files, {sum(file.size for file in files):,} bytes: {found.location.uri}"
            )
    except DiagnosedError as error:
        typer.secho(f"{error.failure.reason}: {error.failure.message}", fg=typer.colors.RED, err=True)
        return 1
    return 0


def _location(to: str) -> StorageLocation:
    """A folder in S3, or on this machine, to be carried elsewhere. Raises DiagnosedError (InvalidSpec)."""
    if "://" not in to:
        return parse_location(f"file://{Path(to).absolute()}")
    try:
        return parse_location(to.rstrip("/"))
    except ValueError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"--to: {error}.") from error
