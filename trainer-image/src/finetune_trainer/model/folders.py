"""The folders that models are stored in: what is in them, and how to bring some of it to the local disk.

A folder is untrusted: of its files only configurations, tokenizers and safetensors are ever fetched.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from finetune_api.conditions import Reason
from finetune_api.sources import HubModel, S3Location, parse_model_uri
from finetune_trainer.process.failures import DiagnosedError, first_line, sentence
from finetune_trainer.process.hub_errors import hub_errors
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Committed
from finetune_trainer.storage.storage import Storage, in_parallel

TEXT_PATTERNS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
WEIGHT_PATTERNS = ("model*.safetensors", "adapter_model*.safetensors")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TEMPLATE_FOLDER = "additional_chat_templates"

Shapes = Mapping[str, tuple[int, ...]]
"""The lengths of every weight's dimensions, by the weight's name."""

LONGEST_HEADER_BYTES = 16 * 2**20
"""The largest models have 100,000 weights in all, of some hundred bytes each. The safetensors library allows 100 MB."""
ADAPTER_CONFIG = "adapter_config.json"
INDEX_NAME = "model.safetensors.index.json"
WHOLE_NAME = "model.safetensors"


class _Tensor(msgspec.Struct):
    """A weight in the header of a safetensors file. `__metadata__` is none, and has no shape."""

    shape: list[int] | None = None


class _Index(msgspec.Struct):
    """What is read of the index of a model in several files."""

    weight_map: dict[str, str]


class ModelFolder(Protocol):
    """Where a model is. Every method raises DiagnosedError."""

    uri: str

    def paths(self) -> list[str]:
        """Every file below the folder."""

    def fetch(self, paths: Iterable[str], directory: Path) -> None:
        """Bring files to a local directory."""

    def shapes(self) -> Shapes:
        """The shape of every weight, from the headers of the safetensors files alone."""


def open_folder(uri: str, digest: str | None, storage: Storage) -> ModelFolder:
    """The folder at a URI. `digest`: its manifest's, where a job of ours made it. Raises DiagnosedError."""
    source = parse_model_uri(uri)
    if isinstance(source, HubModel):
        return HubFolder(source)
    if digest is None:
        return StoredFolder(storage, source)
    return CommittedFolder(storage, source, digest)


class StoredFolder:
    """A folder in the storage that somebody uploaded."""

    def __init__(self, storage: Storage, location: S3Location) -> None:
        self.uri = location.uri
        self._storage = storage
        self._location = location
        self._paths = [item.path for item in storage.list_objects(location, missing=Reason.MODEL_NOT_FOUND)]
        if not self._paths:
            raise DiagnosedError(
                Reason.MODEL_NOT_FOUND,
                f"Nothing is below {self.uri}/. Upload the model's folder, or correct the URI.",
            )

    def paths(self) -> list[str]:
        return self._paths

    def fetch(self, paths: Iterable[str], directory: Path) -> None:
        in_parallel(lambda path: self._storage.download(self._location.join(path), directory / path), paths)

    def shapes(self) -> Shapes:
        return _shapes(self._storage, self._location, self._paths)


class CommittedFolder:
    """A folder in the storage that a job of ours committed. What does not match its manifest is refused."""

    def __init__(self, storage: Storage, location: S3Location, digest: str) -> None:
        self.uri = location.uri
        self._storage = storage
        self._location = location
        with _corrupt_as_invalid():
            self._committed: Committed = commits.read_committed(storage, location, missing=Reason.MODEL_NOT_FOUND)
        if self._committed.digest != digest:
            raise DiagnosedError(
                Reason.MODEL_INVALID,
                f"{self.uri} has changed: its manifest is {self._committed.digest}, expected {digest}.",
            )

    def paths(self) -> list[str]:
        return [file.path for file in self._committed.manifest.files]

    def fetch(self, paths: Iterable[str], directory: Path) -> None:
        with _corrupt_as_invalid():
            commits.download(self._storage, self._committed, directory, only=frozenset(paths).__contains__)

    def shapes(self) -> Shapes:
        return _shapes(self._storage, self._location, self.paths())


class HubFolder:
    """A repository on a Hugging Face hub (HF_ENDPOINT, HF_TOKEN)."""

    def __init__(self, source: HubModel) -> None:
        self.uri = f"hf://{source.repository}" + (f"@{source.revision}" if source.revision else "")
        self._source = source

    def paths(self) -> list[str]:
        from huggingface_hub import HfApi

        with hub_errors(self.uri, Reason.MODEL_NOT_FOUND):
            return list(HfApi().list_repo_files(self._source.repository, revision=self._source.revision))

    def fetch(self, paths: Iterable[str], directory: Path) -> None:
        from huggingface_hub import snapshot_download

        with hub_errors(self.uri, Reason.MODEL_NOT_FOUND):
            snapshot_download(
                self._source.repository,
                revision=self._source.revision,
                local_dir=directory,
                allow_patterns=list(paths),
            )

    def shapes(self) -> Shapes:
        from huggingface_hub import get_safetensors_metadata
        from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

        with hub_errors(self.uri, Reason.MODEL_NOT_FOUND):
            try:
                found = get_safetensors_metadata(self._source.repository, revision=self._source.revision)
            except (NotASafetensorsRepoError, SafetensorsParsingError, RecursionError) as error:
                raise DiagnosedError(Reason.MODEL_INVALID, f"{self.uri}: {sentence(first_line(error))}") from error
            files = found.files_metadata.values()
            return {name: tuple(tensor.shape) for file in files for name, tensor in file.tensors.items()}


def is_adapter(paths: Iterable[str]) -> bool:
    """Whether a folder with these files holds a peft adapter and no whole model."""
    return ADAPTER_CONFIG in (there := frozenset(paths)) and "config.json" not in there


def text_files(paths: Iterable[str]) -> list[str]:
    """The configurations and the tokenizer among a folder's files."""
    return [path for path in paths if _is_ours(path) and matches(path, TEXT_PATTERNS)]


def weight_files(paths: Iterable[str]) -> list[str]:
    """The safetensors that transformers and peft would load."""
    return [path for path in paths if _is_ours(path) and "/" not in path and matches(path, WEIGHT_PATTERNS)]


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether the last part of a path matches a shell-style pattern."""
    return any(PurePosixPath(path).match(pattern) for pattern in patterns)


def _is_ours(path: str) -> bool:
    """In the folder itself or in the one for templates; never a path that climbs or hides."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or parts[-1].startswith("."):
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[0] == TEMPLATE_FOLDER)


def _shapes(storage: Storage, location: S3Location, paths: Iterable[str]) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(paths):
        shapes |= _shapes_in_file(storage, location.join(path))
    return shapes


def _shapes_in_file(storage: Storage, file: S3Location) -> Shapes:
    """A safetensors file is 8 bytes with the header's length, the header as JSON, then the weights.

    https://huggingface.co/docs/safetensors/index#format
    """
    invalid = DiagnosedError(Reason.MODEL_INVALID, f"{file.uri} is no safetensors file.")
    prefix = storage.read_range(file, 0, 8)
    if len(prefix) < 8:
        raise invalid
    (length,) = struct.unpack("<Q", prefix)
    if not 0 < length <= LONGEST_HEADER_BYTES:
        raise invalid
    try:
        return parse_header(storage.read_range(file, 8, length))
    except ValueError as error:
        raise invalid from error


def parse_header(text: bytes) -> Shapes:
    """The shapes in the header of a safetensors file. Raises ValueError. What is nested deeply is not followed."""
    try:
        tensors = msgspec.json.decode(text, type=dict[str, _Tensor])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor.shape is not None}
    if any(length < 0 for shape in shapes.values() for length in shape):
        raise ValueError("a shape is negative")
    return shapes


def refuse_bad_shards(folder: Path, paths: Iterable[str], uri: str) -> None:
    """Raises DiagnosedError (ModelInvalid) when the index in a local folder names a file that is not among `paths`.

    An index is untrusted, and transformers opens what it names: only plain names of files that are there pass.
    """
    index, there = folder / INDEX_NAME, frozenset(paths)
    if WHOLE_NAME in there or not index.exists():
        return
    try:
        named = sorted(set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DiagnosedError(Reason.MODEL_INVALID, f"{uri}: {INDEX_NAME} can't be read: {error}") from error
    for name in named:
        if not (matches(name, ("*.safetensors",)) and is_plain(name)):
            raise DiagnosedError(
                Reason.MODEL_INVALID,
                f"{uri}: {INDEX_NAME} names {name[:200]!r}, which is no safetensors file of the model's own folder.",
            )
    missing = [name for name in named if name not in there]
    if missing:
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"{uri} is not complete: {INDEX_NAME} names {', '.join(missing[:3])}, and "
            f"{len(missing)} of its {len(named)} files are not there. Upload the whole model.",
        )


def is_plain(name: str) -> bool:
    """Whether this is the name of a file of a folder itself: no path, and not hidden."""
    return name == PurePosixPath(name).name and not name.startswith(".") and "\\" not in name and "\0" not in name


@contextmanager
def _corrupt_as_invalid() -> Iterator[None]:
    try:
        yield
    except commits.CorruptError as error:
        raise DiagnosedError(Reason.MODEL_INVALID, str(error)) from error
