"""The folders that models are stored in: what is in them, and how to bring some of it to the local disk.

A folder is untrusted: of its files only configurations, tokenizers and safetensors are ever fetched.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from finetune_api.conditions import Reason
from finetune_api.sources import HubModel, S3Location, parse_model_uri
from finetune_trainer.process.failures import DiagnosedError, first_line
from finetune_trainer.s3 import commits
from finetune_trainer.s3.commits import Committed
from finetune_trainer.s3.storage import Storage, in_parallel

TEXT_PATTERNS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
WEIGHT_PATTERNS = ("model*.safetensors", "adapter_model*.safetensors")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TEMPLATE_FOLDER = "additional_chat_templates"

Shapes = Mapping[str, tuple[int, ...]]
"""The lengths of every weight's dimensions, by the weight's name."""

LONGEST_HEADER_BYTES = 100_000_000  # as the safetensors library has it


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

        with self._diagnosed():
            return list(HfApi().list_repo_files(self._source.repository, revision=self._source.revision))

    def fetch(self, paths: Iterable[str], directory: Path) -> None:
        from huggingface_hub import snapshot_download

        with self._diagnosed():
            snapshot_download(
                self._source.repository,
                revision=self._source.revision,
                local_dir=directory,
                allow_patterns=list(paths),
            )

    def shapes(self) -> Shapes:
        from huggingface_hub import get_safetensors_metadata

        with self._diagnosed():
            found = get_safetensors_metadata(self._source.repository, revision=self._source.revision)
            files = found.files_metadata.values()
            return {name: tuple(tensor.shape) for file in files for name, tensor in file.tensors.items()}

    @contextmanager
    def _diagnosed(self) -> Iterator[None]:
        from httpx2 import HTTPError
        from huggingface_hub.errors import (
            HFValidationError,
            NotASafetensorsRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
            SafetensorsParsingError,
        )

        try:
            yield
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            raise DiagnosedError(
                Reason.MODEL_NOT_FOUND,
                f"{self.uri} is not on the hub, or needs a token (HF_TOKEN) that may read it: {first_line(error)}",
            ) from error
        except (NotASafetensorsRepoError, SafetensorsParsingError) as error:
            raise DiagnosedError(Reason.MODEL_INVALID, f"{self.uri}: {first_line(error)}") from error
        except (HTTPError, OSError) as error:
            raise DiagnosedError(
                Reason.MODEL_NOT_FOUND, f"{self.uri} could not be fetched: {first_line(error)}", retryable=True
            ) from error


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
        header: Any = json.loads(storage.read_range(file, 8, length))
        return {
            name: tuple(int(length) for length in item["shape"])
            for name, item in header.items()
            if name != "__metadata__"
        }
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise invalid from error


@contextmanager
def _corrupt_as_invalid() -> Iterator[None]:
    try:
        yield
    except commits.CorruptError as error:
        raise DiagnosedError(Reason.MODEL_INVALID, str(error)) from error
