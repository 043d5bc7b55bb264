"""Fills a mirror: copies what a task reads from the hub, or from a folder that was downloaded from there."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.evaluation.benchmarks import BENCHMARK_TASKS, BenchmarkTask
from finetune_api.sources import StorageLocation
from finetune_trainer.benchmarks.catalogue import (
    CATALOGUE,
    EXECUTES_CODE,
    WITH_PUNKT,
    PublishedDataset,
    published_dataset,
)
from finetune_trainer.benchmarks.lm_eval_tasks import count_examples, load_task
from finetune_trainer.benchmarks.mirror import (
    READERS,
    LocalDataset,
    MirroredFile,
    MirrorManifest,
    Reader,
    files_location,
    manifest_location,
    punkt_location,
)
from finetune_trainer.benchmarks.punkt import FOLDER, find_punkt
from finetune_trainer.process.failures import DiagnosedError, first_line, sentence
from finetune_trainer.process.hub_errors import hub_errors
from finetune_trainer.storage.storage import Storage

CARD = "README.md"
"""A dataset's card, whose beginning says which files belong to which configuration and split."""
COPIED = "copied"
"""The revision of a copy of which nobody said what it is."""


@dataclass(frozen=True)
class Mirrored:
    """What was copied."""

    manifest: MirrorManifest
    location: StorageLocation
    """Of the manifest."""
    examples: int


@dataclass(frozen=True)
class _Found:
    """The files of each split on the local disk, with their paths in the dataset."""

    reader: Reader
    splits: Mapping[str, Sequence[tuple[str, Path]]]
    revision: str


def known_task(name: str) -> BenchmarkTask:
    """The task of this name. Raises DiagnosedError (InvalidSpec) for one that is not on the list."""
    found = next((task for task in CATALOGUE if task == name), None)
    if found is not None:
        return found
    why = (
        "executes code that the model writes, which is never done here"
        if name.startswith(EXECUTES_CODE)
        else "is not one of the tasks that are tested with this version"
    )
    raise DiagnosedError(Reason.INVALID_SPEC, f"{name} {why}. Use one of: {', '.join(BENCHMARK_TASKS)}.")


def mirror_benchmark(
    task: BenchmarkTask, storage: Storage, mirror: StorageLocation, source: Path | None, revision: str | None
) -> Mirrored:
    """Copy a task's dataset to a mirror. `source`: a copy of the dataset's repository; None: the hub.

    Raises DiagnosedError (BenchmarkNotFound, BenchmarkInvalid, or one of the hub's or the storage's).
    """
    wanted = published_dataset(task)
    with tempfile.TemporaryDirectory(prefix="mirror-") as directory:
        if source is None:
            found = _from_hub(wanted, revision, Path(directory) / "files")
        else:
            found = _from_folder(wanted, source, revision or COPIED)
        local = LocalDataset(found.reader, {split: [path for _, path in kept] for split, kept in found.splits.items()})
        model = find_punkt(source, Path(directory) / "downloads") if task in WITH_PUNKT else None
        if model is not None:
            local = replace(local, nltk_data=_copied(model, Path(directory) / "nltk_data"))
        # Before anything is uploaded: whether lm-eval can read it.
        examples = count_examples(load_task(task, local, Path(directory)), None)
        folder = files_location(mirror, wanted.repository, found.revision)
        splits = {split: [_upload(storage, folder, *one) for one in kept] for split, kept in found.splits.items()}
        punkt = None if model is None else _upload_punkt(storage, mirror, model)
    manifest = MirrorManifest(
        task=task,
        dataset=wanted.repository,
        config=wanted.config,
        revision=found.revision,
        reader=found.reader,
        splits=splits,
        punkt=punkt,
    )
    location = manifest_location(mirror, task)
    storage.write(location, manifest.model_dump_json(by_alias=True, indent=2, exclude_none=True).encode())
    return Mirrored(manifest, location, examples)


def _copied(files: Mapping[str, Path], data: Path) -> Path:
    """A folder of nltk's data with these files and nothing else."""
    (data / FOLDER).mkdir(parents=True)
    for name, file in files.items():
        shutil.copyfile(file, data / FOLDER / name)
    return data


def _upload_punkt(storage: Storage, mirror: StorageLocation, files: Mapping[str, Path]) -> list[MirroredFile]:
    described = [
        MirroredFile(path=name, size=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        for name, file in files.items()
    ]
    folder = punkt_location(mirror, described)
    return [_upload(storage, folder, name, file) for name, file in files.items()]


def _upload(storage: Storage, folder: StorageLocation, path: str, file: Path) -> MirroredFile:
    stored = storage.upload(file, folder.join(path))
    return MirroredFile(path=path, size=stored.size, sha256=stored.sha256)


def _from_hub(wanted: PublishedDataset, revision: str | None, directory: Path) -> _Found:
    """Only what is wanted is downloaded: which files these are is told by their names and the dataset's card."""
    from huggingface_hub import HfApi, hf_hub_download

    uri, outline = f"hf://datasets/{wanted.repository}", directory / "outline"
    with hub_errors(uri, Reason.BENCHMARK_NOT_FOUND):
        commit = str(HfApi().dataset_info(wanted.repository, revision=revision).sha)

        def download(path: str, folder: Path) -> Path:
            fetched = hf_hub_download(wanted.repository, path, repo_type="dataset", revision=commit, local_dir=folder)
            return Path(fetched)

        for name in HfApi().list_repo_files(wanted.repository, repo_type="dataset", revision=commit):
            if name == CARD:
                download(name, outline)
            elif ".." not in PurePosixPath(name).parts:
                (outline / name).parent.mkdir(parents=True, exist_ok=True)
                (outline / name).touch()
        reader, named = _data_files(outline, f"{uri}@{commit}", wanted)
        splits = {
            split: [(path, download(path, directory / "files")) for path in paths] for split, paths in named.items()
        }
    return _Found(reader, splits, commit)


def _from_folder(wanted: PublishedDataset, source: Path, revision: str) -> _Found:
    if not source.is_dir():
        raise DiagnosedError(Reason.BENCHMARK_NOT_FOUND, f"{source} is no folder.")
    reader, named = _data_files(source, str(source), wanted)
    return _Found(
        reader, {split: [(path, source / path) for path in paths] for split, paths in named.items()}, revision
    )


def _data_files(folder: Path, what: str, wanted: PublishedDataset) -> tuple[Reader, dict[str, list[str]]]:
    """The reader and the files of each split that is wanted, as the dataset's own card and names have them."""
    from datasets import load_dataset_builder

    try:
        builder: Any = load_dataset_builder(str(folder), wanted.config)
    except (ValueError, FileNotFoundError) as error:
        raise DiagnosedError(
            Reason.BENCHMARK_INVALID, f"{what} is no copy of {wanted.repository}: {sentence(first_line(error))}"
        ) from error
    format_ = type(builder).__module__.rpartition(".")[2]
    reader = next((one for one in READERS if one == format_), None)
    if reader is None:
        raise DiagnosedError(
            Reason.BENCHMARK_INVALID,
            f"{what} has files of the format {format_!r}; {', '.join(READERS)} can be mirrored.",
        )
    files: Mapping[str, Sequence[Any]] = builder.config.data_files or {}
    lacking = [split for split in wanted.splits if split not in files]
    if lacking:
        raise DiagnosedError(
            Reason.BENCHMARK_INVALID,
            f"{what} has no split {lacking[0]!r}; it has {', '.join(map(str, files)) or 'none'}.",
        )
    whole = folder.resolve()
    return reader, {
        split: [Path(str(file)).resolve().relative_to(whole).as_posix() for file in files[split]]
        for split in wanted.splits
    }
