"""From a request for a job to the FineTuneJob, and back to what was requested. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b32encode
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetune_api.base import API_VERSION, GROUP
from finetune_api.default_hyperparameters import learning_rate
from finetune_api.finetunejob import SETTINGS, AdapterType, MethodType
from finetune_openai.jobs.request import DpoHyperparameters, JobRequest, ReinforcementHyperparameters

OPENAI_LABEL = f"{GROUP}/openai"
REQUEST_LABEL = f"{GROUP}/openai-request"
"""A digest of caller and body, by which the repetition of a request is found."""
REQUEST_ANNOTATION = f"{GROUP}/openai-request"
CALLER_ANNOTATION = f"{GROUP}/openai-caller"
RETRY_ANNOTATION = f"{GROUP}/openai-retry"
CREATED_ANNOTATION = f"{GROUP}/openai-created"
"""In nanoseconds of Unix time: Kubernetes' creationTimestamp is in whole seconds, which are too coarse for pages."""
JOB_ID = re.compile(r"ftjob-[a-z2-7]{24}")
METHODS: dict[str, MethodType] = {"supervised": "SFT", "dpo": "DPO", "reinforcement": "RFT"}
_ADAPTER: AdapterType = "LoRA"
_CHECKPOINT = "ckpt-step-"


@dataclass(frozen=True)
class BaseModel:
    """What a job starts from: a model of the catalogue, or the result of another job."""

    name: str
    """The base's, in the names of what is tuned from it."""
    uri: str | None = None
    job: str | None = None

    def spec(self) -> dict[str, Any]:
        """spec.model."""
        return {"uri": self.uri} if self.job is None else {"fineTuneJobRef": {"name": self.job}}


def job_object(
    request: JobRequest, base: BaseModel, training_uri: str, validation_uri: str | None, class_name: str
) -> dict[str, Any]:
    """A FineTuneJob without a name."""
    method = METHODS[request.type]
    dataset: dict[str, Any] = {"training": {"uri": training_uri}}
    if validation_uri is not None:
        dataset["validation"] = {"uri": validation_uri}
    asked = request.asked_hyperparameters
    hyperparameters: dict[str, Any] = {}
    if asked.n_epochs != "auto":
        hyperparameters["epochs"] = asked.n_epochs
    if asked.batch_size != "auto":
        hyperparameters["batchSize"] = asked.batch_size
    if asked.learning_rate_multiplier != "auto":
        rate = automatic_rate(method, continued=base.job is not None) * asked.learning_rate_multiplier
        hyperparameters["learningRate"] = float(f"{min(rate, 1.0):.6g}")
    if request.seed is not None:
        hyperparameters["seed"] = request.seed
    spec: dict[str, Any] = {
        "className": class_name,
        "model": base.spec(),
        "method": {"type": method},
        "dataset": dataset,
        "hyperparameters": hyperparameters,
    }
    if isinstance(asked, DpoHyperparameters) and asked.beta != "auto":
        spec["method"]["dpo"] = {"beta": asked.beta}
    if request.method is not None and request.method.reinforcement is not None:
        spec["method"]["rft"] = request.method.reinforcement.rft
    if isinstance(asked, ReinforcementHyperparameters) and asked.eval_interval != "auto":
        spec["checkpoints"] = {"everySteps": asked.eval_interval}
    kept = request.model_dump(exclude_none=True) | {"base": base.name}
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": {
            "labels": {OPENAI_LABEL: "true"},
            "annotations": {REQUEST_ANNOTATION: json.dumps(kept, ensure_ascii=False)},
        },
        "spec": spec,
    }


def automatic_rate(method: MethodType, *, continued: bool) -> float:
    """What a learning rate multiplier multiplies."""
    return learning_rate(SETTINGS[method].rules, _ADAPTER, continued=continued)


def requested(job: dict[str, Any]) -> tuple[JobRequest, str] | None:
    """The request that a FineTuneJob was made by, and its base's name; None where its annotation does not tell."""
    try:
        kept = json.loads(job["metadata"].get("annotations", {}).get(REQUEST_ANNOTATION, ""))
        base = str(kept.pop("base"))
        return JobRequest.model_validate(kept), base
    except (ValueError, ValidationError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def request_digest(caller: str, body: bytes, key: str | None) -> str:
    """The same for a request and its repetition; `key`: the client's Idempotency-Key."""
    content = body if key is None else b"key:" + key.encode(errors="replace")
    return hashlib.sha256(caller.encode() + b"\n" + content).hexdigest()[:40]


def job_name(digest: str, number: int) -> str:
    """The id of the job that a request makes; the same request sent again gets another number."""
    hashed = hashlib.sha256(f"{digest}\n{number}".encode()).digest()
    return f"ftjob-{b32encode(hashed[:15]).decode().lower()}"


def model_name(job_id: str, request: JobRequest, base: str, namespace: str, step: int | None = None) -> str:
    """The name of the tuned model, or of one of its checkpoints, as OpenAI forms it."""
    suffix = re.sub(r"[^a-z0-9_.-]+", "-", (request.suffix or "").lower())
    name = f"ft:{base}:{namespace}:{suffix}:{job_id.removeprefix('ftjob-')}"
    return name if step is None else f"{name}:{_CHECKPOINT}{step}"


def job_of_model(name: str) -> tuple[str, bool] | None:
    """The job whose tuned model has this name, and whether it is a checkpoint's; None for any other name."""
    parts = name.split(":")
    is_checkpoint = len(parts) > 5 and parts[-1].startswith(_CHECKPOINT)
    if is_checkpoint:
        parts = parts[:-1]
    job_id = f"ftjob-{parts[-1]}"
    return (job_id, is_checkpoint) if len(parts) == 5 and parts[0] == "ft" and JOB_ID.fullmatch(job_id) else None
