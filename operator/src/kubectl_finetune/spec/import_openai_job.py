"""`import`: the FineTuneJob that a fine-tuning job of OpenAI's would be here. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_api.base import API_VERSION, problems
from finetune_api.default_hyperparameters import learning_rate
from finetune_api.finetunejob import SETTINGS, FineTuneJobSpec, MethodType
from finetune_api.sources import DATASET_URI_PATTERN
from kubectl_finetune.errors import PluginError

_METHODS: dict[str, MethodType] = {"supervised": "SFT", "dpo": "DPO", "reinforcement": "RFT"}
_LONGEST_NAME = 63
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
Auto = Literal["auto"]


class _Lenient(BaseModel):
    """Fields that a newer API adds mean nothing here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Hyperparameters(_Lenient):
    """Of any method."""

    n_epochs: Auto | Annotated[int, Field(ge=1)] | None = None
    batch_size: Auto | Annotated[int, Field(ge=1)] | None = None
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    beta: Auto | Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    compute_multiplier: Auto | Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    eval_interval: Auto | Annotated[int, Field(ge=1)] | None = None
    eval_samples: Auto | Annotated[int, Field(ge=1)] | None = None


class _Settings(_Lenient):
    hyperparameters: Hyperparameters | None = None


class _Reinforcement(_Settings):
    grader: dict[str, Any]
    response_format: dict[str, Any] | None = None


class Method(_Lenient):
    """What is learnt, and how."""

    type: str
    supervised: _Settings | None = None
    dpo: _Settings | None = None
    reinforcement: _Reinforcement | None = None


class OpenAIJob(_Lenient):
    """A fine-tuning job as OpenAI's API returns it."""

    model: str
    training_file: str
    validation_file: str | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    seed: int | None = None
    user_provided_suffix: str | None = None
    suffix: str | None = None
    integrations: list[Any] | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Replacements:
    """What takes the place of what only OpenAI has."""

    model: str
    dataset: str
    validation: str | None = None
    name: str | None = None
    namespace: str | None = None
    class_name: str | None = None


@dataclass
class ImportedJob:
    """The YAML, and what of the job is not in it."""

    name: str
    spec: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    namespace: str | None = None

    def yaml(self) -> str:
        """Valid YAML; the notes are comments."""
        metadata = {"name": self.name, **({"namespace": self.namespace} if self.namespace else {})}
        body = {"apiVersion": API_VERSION, "kind": "FineTuneJob", "metadata": metadata, "spec": self.spec}
        comments = "".join(f"# {one_line(note)}\n" for note in self.notes)
        return comments + yaml.safe_dump(body, sort_keys=False, allow_unicode=False)


def read_job(text: str, file: str) -> OpenAIJob:
    """The job in a file: an object, or a page of a list with one. Raises PluginError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PluginError(f"{file} is not JSON: {error}. Save the job as OpenAI's API returns it.") from None
    if isinstance(value, dict) and value.get("object") == "list":
        data = value.get("data")
        count = len(data) if isinstance(data, list) else 0
        if count != 1:
            raise PluginError(f"{file} is a list of {count} jobs. Save one of them, for example: jq '.data[0]' {file}")
        value = value["data"][0]
    try:
        return OpenAIJob.model_validate(value)
    except ValidationError as error:
        raise PluginError(f"{file} is no fine-tuning job of OpenAI's: {problems(error)}") from None


def model_of(job: OpenAIJob, found: Mapping[str, Any] | None) -> str:
    """The URI by which a class offers the job's model to OpenAI's clients. Raises PluginError."""
    models = ((found or {}).get("spec", {}).get("openai") or {}).get("models") or []
    for one in models:
        if job.model in (one.get("name"), *(one.get("aliases") or ())):
            return str(one["uri"])
    lacks = "There is no default FineTuneClass, and so no model"
    if found is not None:
        lacks = f"The FineTuneClass {found['metadata']['name']!r} has no model"
    raise PluginError(
        f"{lacks} for OpenAI's {one_line(job.model)!r}. Name one with --model s3://... or hf://..., or add it to "
        "the class's openai.models."
    )


def import_job(job: OpenAIJob, given: Replacements) -> ImportedJob:
    """Raises PluginError for what can't be trained here."""
    asked = "supervised" if job.method is None else job.method.type
    if asked not in _METHODS:
        raise PluginError(f"The method {one_line(asked)!r} is not available here; {', '.join(_METHODS)} are.")
    method = _METHODS[asked]
    if given.name is not None and (not _NAME.fullmatch(given.name) or len(given.name) > _LONGEST_NAME):
        raise PluginError(
            f"{one_line(given.name)!r} is no name of a FineTuneJob: lower-case letters, digits and hyphens, at most "
            f"{_LONGEST_NAME}."
        )
    found = ImportedJob(_name(job, given), {}, namespace=given.namespace)
    dataset: dict[str, Any] = {"training": {"uri": given.dataset}}
    if given.validation is not None:
        dataset["validation"] = {"uri": given.validation}
    elif job.validation_file is not None:
        dataset["validation"] = {"splitPercent": 10}
        found.notes.append(
            f"The validation file {job.validation_file} was not named (--validation): a tenth is held out instead."
        )
    for option, uri in (("--dataset", given.dataset), ("--validation", given.validation)):
        if uri is not None and not re.match(DATASET_URI_PATTERN, uri):
            raise PluginError(
                f"{option} {one_line(uri)!r} is no dataset: s3://BUCKET/PATH (a bucket's name has at least "
                "three characters) or hf://datasets/ORG/NAME[@REVISION][/PATH]."
            )
    settings = _hyperparameters(job)
    found.spec = {
        **({"className": given.class_name} if given.class_name else {}),
        "model": {"uri": given.model},
        "method": {"type": method, **_member(job, settings, found.notes)},
        "dataset": dataset,
    }
    if method == "RFT":
        found.spec["dataset"].setdefault("validation", {"splitPercent": 10})
        if _is_set(settings.eval_interval):
            found.spec["checkpoints"] = {"everySteps": settings.eval_interval}
    if hyperparameters := _translated(job, settings, method, found.notes):
        found.spec["hyperparameters"] = hyperparameters
    if job.integrations:
        found.notes.append("integrations: not translated.")
    if job.metadata:
        found.notes.append("metadata: not translated.")
    try:
        FineTuneJobSpec.from_wire(found.spec)
    except ValidationError as error:
        raise PluginError(f"The job can't be translated: {problems(error)}") from None
    return found


def _member(job: OpenAIJob, settings: Hyperparameters, notes: list[str]) -> dict[str, Any]:
    """The method's own settings. Raises PluginError for a grader that can't reward here."""
    from finetune_grading.openai_graders.as_rewards import to_rft

    asked = None if job.method is None else job.method.reinforcement
    if asked is None:
        return {"dpo": {"beta": settings.beta}} if _is_set(settings.beta) else {}
    multiplier, samples = settings.compute_multiplier, settings.eval_samples
    if asked.response_format:
        notes.append("response_format: not translated; a grader of type JsonSchema rewards the format.")
    try:
        rft = to_rft(
            asked.grader,
            multiplier if isinstance(multiplier, float) else 1.0,
            samples if isinstance(samples, int) else None,
        )
    except ValueError as error:
        raise PluginError(f"The job can't be translated: {one_line(str(error))}") from None
    return {"rft": rft}


def _hyperparameters(job: OpenAIJob) -> Hyperparameters:
    """Those of its method, or the older ones beside it."""
    of_method: _Settings | None = None
    if job.method is not None and job.method.type in _METHODS:
        of_method = getattr(job.method, job.method.type)
    return (of_method and of_method.hyperparameters) or job.hyperparameters or Hyperparameters()


def _translated(job: OpenAIJob, settings: Hyperparameters, method: MethodType, notes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if _is_set(settings.n_epochs):
        found["epochs"] = settings.n_epochs
    if _is_set(settings.batch_size):
        found["batchSize"] = settings.batch_size
    if isinstance(settings.learning_rate_multiplier, float):
        rate = learning_rate(SETTINGS[method].rules, "LoRA", continued=False) * settings.learning_rate_multiplier
        found["learningRate"] = float(f"{min(rate, 1.0):.6g}")
        notes.append(
            f"learningRate: the automatic rate of LoRA times {settings.learning_rate_multiplier:g}. What OpenAI "
            "multiplies is not known; leave the field out for the automatic rate."
        )
    if job.seed is not None:
        found["seed"] = job.seed
    return found


def _is_set(value: object) -> bool:
    return value not in (None, "auto")


def _name(job: OpenAIJob, given: Replacements) -> str:
    if given.name is not None:
        return given.name
    wanted = job.user_provided_suffix or job.suffix or job.model.rpartition("/")[2]
    name = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return name or "imported"


def one_line(text: str) -> str:
    """Text of a file that ends no comment and commands no terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:500])
