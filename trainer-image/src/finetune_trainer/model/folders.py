"""The folders that models are stored in: what is in them, and how to bring some of it to the local disk.

A folder is untrusted: of its files only configurations, tokenizers and safetensors are ever fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import HubModel, StorageLocation, parse_model_uri
from finetune_trainer.model.weight_headers import Tensor, Tensors, end_of_weights, read_tensors
from finetune_trainer.process.failures import DiagnosedError, first_line, sentence
from finetune_trainer.process.hub_errors import hub_errors
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Committed
from finetune_trainer.storage.storage import Storage, in_parallel

TEXT_PATTERNS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
WEIGHT_PATTERNS = ("model*.safetensors", "adapter_model*.safetensors")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TEMPLATE_FOLDER = "additional_chat_templates"

ADAPTER_CONFIG = "adapter_config.json"


class ModelFolder(Protocol):
    """Where a model is. Every method raises DiagnosedError."""

    uri: str

    def paths(self) -> list[str]:
        """Every file below the folder."""

    def fetch(self, paths: Iterable[str], directory: Path) -> None:
        """Bring files to a local directory."""

    def headers(self, files: Iterable[str]) -> dict[str, Tensors]:
        """The weights in each of these safetensors files, from the headers alone."""


def open_folder(uri: str, digest: str | None, storage: Storage) -> ModelFolder:
    """The folder at a URI. `digest`: its manifest's, where a job of ours made it. Raises DiagnosedError."""
    source = parse_model_uri(uri)
    if isinstance(source, HubModel):
        return HubFolder(source)
    if digest is None:
        return StoredFolder(storage, source)
    return CommittedFolder(storage, source, digest)


def content_version(uri: str, storage: Storage) -> list[tuple[str, int, str]]:
    """A fingerprint of the files at this URI, which are not fetched: each one's size and ETag, or a hub's commit.

    Raises DiagnosedError.
    """
    source = parse_model_uri(uri)
    if isinstance(source, HubModel):
        return [(uri, 0, HubFolder(source).commit())]
    return [(item.path, item.size, item.etag) for item in storage.list_objects(source)]


def model_version(model: ModelSource, storage: Storage) -> list[tuple[str, int, str]]:
    """What is at the model's URIs: if that changes, it is another model.

    Where the model has a digest, it stands for the last of them: the adapter, or a model without one. Raises
    DiagnosedError.
    """
    folders = [uri for uri in (model.uri, model.adapter_uri) if uri is not None]
    unknown = folders if model.digest is None else folders[:-1]
    return [part for uri in unknown for part in content_version(uri, storage)]


class StoredFolder:
    """A folder in the storage that a user uploaded."""

    def __init__(self, storage: Storage, location: StorageLocation) -> None:
        self.uri = location.uri
        self._storage = storage
        self._location = location
        self._sizes = {item.path: item.size for item in storage.list_objects(location, missing=Reason.MODEL_NOT_FOUND)}
        if not self._sizes:
            raise DiagnosedError(
                Reason.MODEL_NOT_FOUND,
                f"Nothing is below {storage.describe(location)}. Upload the model's folder, or correct the URI.",
            )

    def paths(self) -> list[str]:
        return list(self._sizes)

    def fetch(self, paths: Iterable[str], directory: Path) -> None:
        in_parallel(lambda path: self._storage.download(self._location.join(path), directory / path), paths)

    def headers(self, files: Iterable[str]) -> dict[str, Tensors]:
        return _headers(self._storage, self._location, {file: self._sizes[file] for file in files})


class CommittedFolder:
    """A folder in the storage that a job of ours committed. What does not match its manifest is refused."""

    def __init__(self, storage: Storage, location: StorageLocation, digest: str) -> None:
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

    def headers(self, files: Iterable[str]) -> dict[str, Tensors]:
        sizes = {file.path: file.size for file in self._committed.manifest.files}
        return _headers(self._storage, self._location, {file: sizes[file] for file in files})


class HubFolder:
    """A repository on a Hugging Face hub (HF_ENDPOINT, HF_TOKEN)."""

    def __init__(self, source: HubModel) -> None:
        self.uri = f"hf://{source.repository}" + (f"@{source.revision}" if source.revision else "")
        self._source = source

    def commit(self) -> str:
        """The revision's current one; empty if the hub does not say. Raises DiagnosedError."""
        from huggingface_hub import HfApi

        with hub_errors(self.uri, Reason.MODEL_NOT_FOUND):
            return HfApi().model_info(self._source.repository, revision=self._source.revision).sha or ""

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

    def headers(self, files: Iterable[str]) -> dict[str, Tensors]:
        """A hub compares the sizes of files itself, when they are uploaded."""
        headers: dict[str, Tensors] = {}

        def read(file: str) -> None:
            headers[file] = self._header(file)

        in_parallel(read, files)
        return headers

    def _header(self, file: str) -> Tensors:
        from huggingface_hub import parse_safetensors_file_metadata
        from huggingface_hub.errors import SafetensorsParsingError

        with hub_errors(self.uri, Reason.MODEL_NOT_FOUND):
            try:
                found = parse_safetensors_file_metadata(
                    self._source.repository, file, revision=self._source.revision
                ).tensors
                tensors = {
                    name: Tensor(tensor.dtype, tuple(tensor.shape), tensor.data_offsets)
                    for name, tensor in found.items()
                }
                end_of_weights(tensors)
            except (SafetensorsParsingError, RecursionError, ValueError) as error:
                raise DiagnosedError(
                    Reason.MODEL_INVALID, f"{self.uri}: {file}: {sentence(first_line(error))}"
                ) from error
        return tensors


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
    """In the folder itself or in the one for templates; never a hidden file, nor a path with `..`."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or parts[-1].startswith("."):
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[0] == TEMPLATE_FOLDER)


def _headers(storage: Storage, location: StorageLocation, sizes: Mapping[str, int]) -> dict[str, Tensors]:
    headers: dict[str, Tensors] = {}

    def read(path: str) -> None:
        file = location.join(path)
        headers[path] = read_tensors(
            lambda start, length: storage.read_range(file, start, length), sizes[path], file.uri
        )

    in_parallel(read, sizes)
    return headers


@contextmanager
def _corrupt_as_invalid() -> Iterator[None]:
    try:
        yield
    except commits.CorruptError as error:
        raise DiagnosedError(Reason.MODEL_INVALID, str(error)) from error
