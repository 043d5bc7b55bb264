"""A FineTuneJob from a YAML file, for a machine without Kubernetes: its sources may be local paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from finetune_api.base import API_VERSION
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.sources import ON_A_LAPTOP
from finetune_trainer.process.failures import DiagnosedError

KIND = "FineTuneJob"
_URIS = (
    ("model", "uri"),
    ("method", "distillation", "teacher", "uri"),
    ("dataset", "training", "uri"),
    ("dataset", "validation", "uri"),
)
_LISTS_OF_URIS = (("dataset", "training", "uris"), ("dataset", "validation", "uris"))
_OF_A_CLUSTER = (
    (("model", "fineTuneJobRef"), "name the folder of that job's result as model.uri"),
    (("method", "distillation", "teacher", "fineTuneJobRef"), "name the folder of that job's result as its uri"),
    (("dataset", "training", "configMapRef"), "name a file as dataset.training.uri"),
    (("dataset", "validation", "configMapRef"), "name a file as dataset.validation.uri"),
    (("dataset", "training", "datasetRef"), "name a file as dataset.training.uri"),
    (("dataset", "validation", "datasetRef"), "name a file as dataset.validation.uri"),
    (("dataset", "screening", "classifier"), "screen by rules alone"),
)


@dataclass(frozen=True)
class LocalJob:
    """A FineTuneJob whose local paths are file:// URIs."""

    namespace: str
    name: str
    spec: FineTuneJobSpec


def is_job_file(file: Path) -> bool:
    """Whether the file holds FineTuneJobs (YAML or JSON), and not the run configuration of a Pod."""
    try:
        documents = _documents(file)
    except DiagnosedError:
        return file.suffix != ".json"
    return not any(isinstance(item, dict) and "command" in item for item in documents)


def read_job(file: Path) -> LocalJob:
    """The one FineTuneJob in a file. Raises DiagnosedError (InvalidSpec, DatasetNotFound, ModelNotFound)."""
    jobs = [item for item in _documents(file) if isinstance(item, dict) and item.get("kind") == KIND]
    if not jobs:
        raise _invalid(f"{file} has no FineTuneJob.")
    if len(jobs) > 1:
        raise _invalid(f"{file} has {len(jobs)} FineTuneJobs. Give each one a file of its own.")
    job = jobs[0]
    if job.get("apiVersion") != API_VERSION:
        raise _invalid(f"{file}: apiVersion is {job.get('apiVersion')!r}, not {API_VERSION}.")
    metadata, spec = job.get("metadata"), job.get("spec")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise _invalid(f"{file}: metadata.name is missing.")
    if not isinstance(spec, dict):
        raise _invalid(f"{file}: spec is missing.")
    for path, instead in _OF_A_CLUSTER:
        if _find(spec, path) is not None:
            raise _invalid(f"{file}: spec.{'.'.join(path)} needs a cluster. Here, {instead}.")
    for path in _URIS:
        _replace(spec, path, lambda uri: _absolute(uri, file.parent))
    for path in _LISTS_OF_URIS:
        _replace(spec, path, lambda uris: [_absolute(uri, file.parent) for uri in uris])
    try:
        parsed = FineTuneJobSpec.model_validate(spec, context=ON_A_LAPTOP)
    except ValidationError as error:
        raise _invalid(f"{file}: {_field_errors(error)}") from error
    return LocalJob(str(metadata.get("namespace", "default")), metadata["name"], parsed)


def _documents(file: Path) -> list[Any]:
    """JSON is YAML too."""
    try:
        return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise _invalid(f"{file} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(f"{file} is no YAML: {' '.join(str(error).split())}") from error


def _absolute(uri: Any, folder: Path) -> Any:
    """A path, relative to the job's file, as a file:// URI; what has a scheme stays as it is.

    A folder keeps the slash at its end, which distinguishes it from a file.
    """
    if not isinstance(uri, str) or "://" in uri or not uri:
        return uri
    path = (folder / Path(uri).expanduser()).absolute()
    if ".." in path.parts:  # which no class allows
        path = path.resolve()
    return f"file://{path}" + ("/" if uri.endswith("/") else "")


def _find(spec: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = spec
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _replace(spec: dict[str, Any], path: tuple[str, ...], change: Any) -> None:
    parent = _find(spec, path[:-1])
    if isinstance(parent, dict) and path[-1] in parent:
        parent[path[-1]] = change(parent[path[-1]])


def _field_errors(error: ValidationError) -> str:
    """One line with each invalid field and its error."""
    return "; ".join(
        f"spec.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    )


def _invalid(message: str) -> DiagnosedError:
    return DiagnosedError(Reason.INVALID_SPEC, message)
