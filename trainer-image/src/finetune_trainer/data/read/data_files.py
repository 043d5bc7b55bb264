"""Fetches the files of a dataset from S3, from a Hugging Face hub, or from a mounted ConfigMap.

A URI is that of a file, a folder (it ends with "/") or a glob (`*` within a folder, `**` across folders). All its files
together are one dataset, in the order of their URIs.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetSource
from finetune_api.sources import HubDataset, StorageLocation, is_allowed, match_glob, parse_hub_dataset, parse_location
from finetune_trainer.data.read.file_names import SPLITS, SUFFIXES, is_data
from finetune_trainer.data.read.tables.saved_folders import MOST_STATE_BYTES, SavedFolderError, without_unnamed_shards
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.hub_errors import hub_errors
from finetune_trainer.storage.storage import MismatchError, Storage

MOST_FILES = 10_000
SPARE_BYTES = 2**30
"""Disk space that is left for everything else that a Pod writes."""
_CONFIG_MAP = "configmap://"


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset on the local disk. `sha256` is a hex digest."""

    uri: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class RemoteFile:
    """One file of a dataset at its source."""

    uri: str
    """Includes the commit if the file is on a hub."""
    asked: str
    """The URI to match against the class's patterns: with the requested revision instead of its commit."""
    size: int = 0
    """Bytes, if known before the download."""


def fetch_files(
    storage: Storage, source: DatasetSource, directory: Path, *, allowed: Sequence[str], mounted: Path | None = None
) -> list[DataFile]:
    """Every file of a source, downloaded below `directory`.

    `allowed`: the class's patterns, which each file of a folder or glob must match. `mounted`: the mount path of the
    source's ConfigMap, if it has one. Raises DiagnosedError: DatasetNotFound, DatasetInvalid, SourceNotAllowed, or one
    of the storage's errors.
    """
    if source.config_map_ref is not None:
        assert mounted is not None
        return _mounted_files(source.config_map_ref.name, source.config_map_ref.key, mounted)
    uris = source.uris or [source.uri or ""]
    found = {file.uri: file for uri in uris for file in _resolve(storage, uri)}
    for file in found.values():
        if not is_allowed(file.asked, tuple(allowed)):
            raise DiagnosedError(
                Reason.SOURCE_NOT_ALLOWED,
                f"The class does not allow {file.asked}, which the dataset's URI matches; it allows "
                f"{', '.join(allowed)}. Use a URI that matches only allowed files.",
            )
    _refuse_too_many(len(found), " ".join(uris))
    directory.mkdir(parents=True, exist_ok=True)
    _refuse_too_large(list(found.values()), directory)
    return [fetch_file(storage, uri, directory / f"{number:05}") for number, uri in enumerate(sorted(found))]


def fetch_file(
    storage: Storage, uri: str, path: Path, *, sha256: str | None = None, mounted: Path | None = None
) -> DataFile:
    """One file, downloaded to `path`. Raises DiagnosedError (DatasetInvalid) if it does not have the given digest."""
    if uri.startswith("configmap://"):
        assert mounted is not None
        path = mounted / uri.rpartition("/")[2]
        if not path.exists():
            raise _changed(uri)
    elif uri.startswith("hf://"):
        _fetch_from_hub(parse_hub_dataset(uri), path)
    else:
        try:
            storage.download(parse_location(uri), path, missing=Reason.DATASET_NOT_FOUND, sha256=sha256)
        except MismatchError as error:
            raise _changed(uri) from error
    file = _digested(uri, path)
    if sha256 not in (None, file.sha256):
        raise _changed(uri)
    return file


def _resolve(storage: Storage, uri: str) -> list[RemoteFile]:
    """The files of a URI. Raises DiagnosedError (DatasetNotFound) if there is none."""
    if uri.startswith("hf://"):
        found, asked = _resolve_on_hub(parse_hub_dataset(uri)), ""
    else:
        location = parse_location(uri)
        if "*" not in location.key and not location.key.endswith("/"):
            return [RemoteFile(uri, uri)]
        folder = _folder_of(location)
        found, asked = _resolve_in_storage(storage, location, folder), f" Listed: {storage.describe(folder)}."
    if not found:
        suffixes = f" In a folder, files ending in {', '.join(SUFFIXES)} are read." if uri.endswith("/") else ""
        literal = " Only * and ** are wildcards." if any(sign in uri for sign in "?[{") else ""
        raise DiagnosedError(Reason.DATASET_NOT_FOUND, f"{uri} matches no data file.{literal}{suffixes}{asked}")
    return found


def _folder_of(location: StorageLocation) -> StorageLocation:
    """The folder above the first glob."""
    return StorageLocation(location.bucket, location.key.partition("*")[0].rpartition("/")[0])


def _resolve_in_storage(storage: Storage, location: StorageLocation, folder: StorageLocation) -> list[RemoteFile]:
    pattern = location.key.removeprefix(f"{folder.key}/" if folder.key else "")
    listed = {item.path: item.size for item in storage.list_objects(folder, missing=Reason.DATASET_NOT_FOUND)}

    def read(path: str) -> bytes:
        return storage.read_range(folder.join(path), 0, MOST_STATE_BYTES, missing=Reason.DATASET_NOT_FOUND)

    chosen = [(folder.join(path).uri, listed[path]) for path in _choose(listed, pattern, location.uri, read)]
    return [RemoteFile(uri, uri, size) for uri, size in chosen]


def _choose(sizes: Mapping[str, int], pattern: str, uri: str, read: Callable[[str], bytes]) -> list[str]:
    """The files of a folder that match a pattern; an empty pattern matches all. `read`: the content of one."""
    in_folder = not pattern or pattern.endswith("/")
    if in_folder and f"{pattern}{SPLITS}" in sizes:
        raise DiagnosedError(Reason.DATASET_INVALID, f"{uri} has several splits. Use one of them, such as {uri}train/.")
    chosen = [
        path
        for path in sizes
        if is_data(path, in_folder=in_folder) and (path.startswith(pattern) if in_folder else match_glob(pattern, path))
    ]
    _refuse_too_many(len(chosen), uri)
    if not in_folder:
        return chosen
    try:
        return without_unnamed_shards(chosen, sizes, read)
    except SavedFolderError as error:
        raise DiagnosedError(Reason.DATASET_INVALID, f"{uri} is incomplete: {error}") from error


def _refuse_too_many(count: int, uri: str) -> None:
    if count > MOST_FILES:
        raise DiagnosedError(Reason.DATASET_INVALID, f"{uri} matches {count} files; the maximum is {MOST_FILES}.")


def _resolve_on_hub(source: HubDataset) -> list[RemoteFile]:
    """The files at the revision's current commit, so that a second read returns the same."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(source.uri, Reason.DATASET_NOT_FOUND):
        api = HfApi()
        commit = api.dataset_info(source.repository, revision=source.revision).sha
        tree = api.list_repo_tree(source.repository, recursive=True, repo_type="dataset", revision=commit)
        sizes = {item.path: item.size for item in tree if isinstance(item, RepoFile)}
    pinned = replace(source, revision=commit)

    def read(path: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="state-") as scratch:
            _fetch_from_hub(replace(pinned, path=path), Path(scratch) / "state")
            return (Path(scratch) / "state").read_bytes()

    chosen = [source.path] if source.path in sizes else _choose(sizes, source.path, source.uri, read)
    return [RemoteFile(replace(pinned, path=path).uri, replace(source, path=path).uri) for path in chosen]


def _fetch_from_hub(source: HubDataset, path: Path) -> None:
    from huggingface_hub import hf_hub_download

    scratch = path.with_suffix(".hub")
    with hub_errors(source.uri, Reason.DATASET_NOT_FOUND):
        fetched = hf_hub_download(
            source.repository, source.path, repo_type="dataset", revision=source.revision, local_dir=scratch
        )
    shutil.move(fetched, path)
    shutil.rmtree(scratch)


def corrected(uri: str) -> str:
    """What to do about invalid lines of a file, for an error message; the caller says what happens then."""
    if uri.startswith(_CONFIG_MAP):
        name = uri.removeprefix(_CONFIG_MAP).partition("/")[0]
        return f"Correct the ConfigMap {name!r}"
    return "Correct the file and upload it again"


def _mounted_files(name: str, key: str | None, mounted: Path) -> list[DataFile]:
    """The files of a mounted ConfigMap, one for each key; names that start with two dots are the kubelet's."""
    keys = sorted(path.name for path in mounted.iterdir() if not path.name.startswith("..")) if mounted.exists() else []
    if not keys:
        raise DiagnosedError(
            Reason.DATASET_NOT_FOUND,
            f"ConfigMap {name!r} is not in the job's namespace, or has no key"
            + (f" {key!r}." if key else " at all.")
            + " Create it: it is looked up again automatically.",
        )
    return [_digested(f"{_CONFIG_MAP}{name}/{key}", mounted / key) for key in keys]


def _digested(uri: str, path: Path) -> DataFile:
    with path.open("rb") as stream:
        return DataFile(uri, path, hashlib.file_digest(stream, "sha256").hexdigest())


def _refuse_too_large(files: Sequence[RemoteFile], directory: Path) -> None:
    size = sum(file.size for file in files)
    free = shutil.disk_usage(directory).free
    if size + SPARE_BYTES > free and size:
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"The dataset's {len(files)} files have {size / 2**30:.1f} GiB, and the Pod's disk has only "
            f"{free / 2**30:.1f} GiB left. Use fewer files, or Parquet or zstd.",
        )


def _changed(uri: str) -> DiagnosedError:
    return DiagnosedError(
        Reason.DATASET_INVALID,
        f"{uri} has changed since preflight read it. Change spec.runId to train on its current content.",
    )
