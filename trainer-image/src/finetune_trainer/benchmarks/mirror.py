"""A mirror of benchmarks' datasets in the storage: a manifest for each task, and the files of the datasets.

<mirror>/arc_easy.json                                  the manifest: written last, with each file's digest
<mirror>/allenai--ai2_arc/<revision>/{files...}         in the layout of the dataset's own repository
<mirror>/nltk--punkt_tab/<revision>/{files...}          nltk's model of sentences, of tasks that count them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, ValidationError

from finetune_api.base import ApiModel, Line, problems
from finetune_api.conditions import Reason
from finetune_api.evaluation.benchmarks import BenchmarkTask
from finetune_api.sources import StorageLocation, is_allowed
from finetune_trainer.benchmarks.catalogue import WITH_PUNKT, PublishedDataset, published_dataset
from finetune_trainer.benchmarks.punkt import FILES, FOLDER, PUNKT, punkt_revision
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import MismatchError, Storage

Reader = Literal["csv", "json", "parquet"]
"""Which of the datasets library's readers reads the files; none of them runs code."""
READERS: tuple[Reader, ...] = get_args(Reader)
MOST_FILES = 1000
MOST_BYTES = 2 * 1024**3
"""Of all files of a task, which the Pod's disk has to hold."""


class MirroredFile(ApiModel):
    """A file of a dataset. `path`: below the dataset's folder."""

    path: Line
    size: int = Field(ge=0)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class MirrorManifest(ApiModel):
    """What the mirror has for one task."""

    format: Literal[1] = 1
    task: BenchmarkTask
    dataset: Line = Field(description="Repository on the hub.")
    config: Line | None = Field(None, description="Configuration of the dataset.")
    revision: Line = Field(description="Commit of the hub, or what the person who copied it called it.")
    reader: Reader
    splits: dict[Line, list[MirroredFile]]
    punkt: list[MirroredFile] | None = Field(None, description="nltk's model of sentences.")

    @property
    def files(self) -> list[MirroredFile]:
        """All files."""
        return [*(file for files in self.splits.values() for file in files), *(self.punkt or [])]

    @property
    def published(self) -> PublishedDataset:
        """The dataset that it is a copy of, with the splits that it has."""
        return PublishedDataset(self.dataset, self.config, tuple(self.splits))


@dataclass(frozen=True)
class LocalDataset:
    """A dataset on the local disk: the files of each split."""

    reader: Reader
    splits: Mapping[str, Sequence[Path]]
    nltk_data: Path | None = None
    """A folder of nltk's data with its model of sentences, if the task reads that."""


def manifest_location(mirror: StorageLocation, task: BenchmarkTask) -> StorageLocation:
    """Where the manifest of a task is."""
    return mirror.join(f"{task}.json")


def files_location(mirror: StorageLocation, dataset: str, revision: str) -> StorageLocation:
    """The folder with a dataset's files."""
    return mirror.join(dataset.replace("/", "--"), revision)


def punkt_location(mirror: StorageLocation, files: Sequence[MirroredFile]) -> StorageLocation:
    """The folder with a copy of nltk's model of sentences."""
    return files_location(mirror, f"nltk/{PUNKT}", punkt_revision([file.sha256 for file in files]))


def read_manifest(storage: Storage, mirror: StorageLocation, task: BenchmarkTask) -> MirrorManifest:
    """What the mirror has for a task. Raises DiagnosedError (BenchmarkNotFound, BenchmarkInvalid)."""
    location = manifest_location(mirror, task)
    content = storage.find(location)
    if content is None:
        raise DiagnosedError(
            Reason.BENCHMARK_NOT_FOUND,
            f"The mirror has no copy of the benchmark {task}: {location.uri} does not exist. "
            f"{how_to_fill(mirror, task)}",
        )
    try:
        manifest = MirrorManifest.model_validate_json(content)
    except ValidationError as error:
        raise _invalid(mirror, task, f"{location.uri} is no manifest of a mirror ({problems(error)})") from error
    wanted = published_dataset(task)
    if manifest.task != task or (manifest.dataset, manifest.config) != (wanted.repository, wanted.config):
        found = f"{manifest.task}, {manifest.dataset} {manifest.config or ''}".rstrip()
        expected = f"{task}, {wanted.repository} {wanted.config or ''}".rstrip()
        raise _invalid(mirror, task, f"{location.uri} is about {found}, and not about {expected}")
    lacking = [split for split in wanted.splits if not manifest.splits.get(split)]
    if lacking:
        raise _invalid(mirror, task, f"{location.uri} lacks the split {lacking[0]!r}, which the task reads")
    if task in WITH_PUNKT and {file.path for file in manifest.punkt or []} != set(FILES):
        raise _invalid(mirror, task, f"{location.uri} lacks nltk's model of sentences, which the task reads")
    if len(manifest.files) > MOST_FILES:
        raise _invalid(mirror, task, f"{location.uri} names more than {MOST_FILES} files")
    size = sum(file.size for file in manifest.files)
    if size > MOST_BYTES:
        raise _invalid(mirror, task, f"{location.uri} names files of {size:,} bytes, of at most {MOST_BYTES:,}")
    return manifest


def fetch_dataset(
    storage: Storage, mirror: StorageLocation, manifest: MirrorManifest, directory: Path, allowed: Sequence[str]
) -> LocalDataset:
    """The files of a manifest, checked by its digests. `allowed`: the class's patterns, which each file must match.

    Raises DiagnosedError (BenchmarkInvalid, SourceNotAllowed, or one of the storage's).
    """

    def fetch(folder: StorageLocation, file: MirroredFile, path: Path) -> None:
        location = folder.join(file.path)
        if not is_allowed(location.uri, tuple(allowed)):
            raise DiagnosedError(
                Reason.SOURCE_NOT_ALLOWED,
                f"The class does not allow {location.uri}, a file of the benchmark {manifest.task}; it allows "
                f"{', '.join(allowed)}.",
            )
        try:
            storage.download(location, path, size=file.size, sha256=file.sha256)
        except MismatchError as error:
            raise _invalid(
                mirror, manifest.task, f"{location.uri} is not the file of which its manifest has the digest"
            ) from error

    folder = files_location(mirror, manifest.dataset, manifest.revision)
    splits: dict[str, list[Path]] = {}
    for number, (split, mirrored) in enumerate(manifest.splits.items()):
        splits[split] = [directory / f"{number}-{at:05}.{manifest.reader}" for at in range(len(mirrored))]
        for file, path in zip(mirrored, splits[split], strict=True):
            fetch(folder, file, path)
    for file in manifest.punkt or []:
        fetch(punkt_location(mirror, manifest.punkt or []), file, directory / "nltk_data" / FOLDER / file.path)
    return LocalDataset(manifest.reader, splits, None if manifest.punkt is None else directory / "nltk_data")


def how_to_fill(mirror: StorageLocation, task: str) -> str:
    """What to do about a mirror that lacks something."""
    return (
        "Fill it where the Hugging Face Hub can be reached: finetune-trainer mirror-benchmark "
        f"{task} --to {mirror.uri.rstrip('/')}"
    )


def _invalid(mirror: StorageLocation, task: str, what: str) -> DiagnosedError:
    return DiagnosedError(Reason.BENCHMARK_INVALID, f"Benchmark {task}: {what}. {how_to_fill(mirror, task)}")
