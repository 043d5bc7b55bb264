"""Conditions and the reasons that stand in them: the vocabulary in which every kind says where it is."""

from __future__ import annotations

from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import Field, GetJsonSchemaHandler, StringConstraints, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from finetune_api.base import ApiModel, Timestamp
from finetune_api.kubernetes_types import keyed_by


class ConditionType(StrEnum):
    """The condition types. Ready and Stalled stand on every kind; Passed on Evaluation only.

    Failed stands, True, on a FineTuneJob or Evaluation whose run is over for good, and on nothing else.
    """

    READY = "Ready"
    STALLED = "Stalled"
    FAILED = "Failed"
    PASSED = "Passed"


class Reason(StrEnum):
    """Why a condition has its status. See REASON_MEANINGS for what each tells a person."""

    # Progress: the reason of Ready while it is False, and of Stalled while nothing is wrong.
    PROGRESSING = "Progressing"
    VALIDATING = "Validating"
    QUEUED = "Queued"
    TRAINING = "Training"
    RETRYING = "Retrying"
    STOPPING = "Stopping"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    WAITING_FOR_MODEL = "WaitingForModel"
    EVALUATING = "Evaluating"
    EVALUATED = "Evaluated"
    WAITING_FOR_GATE = "WaitingForGate"
    ROLLING_OUT = "RollingOut"
    AVAILABLE = "Available"
    VALID = "Valid"
    DELETING = "Deleting"
    GATES_PASSED = "GatesPassed"
    # Diagnoses: the reason of Stalled while it is True.
    INVALID_SPEC = "InvalidSpec"
    CLASS_NOT_FOUND = "ClassNotFound"
    LIMIT_EXCEEDED = "LimitExceeded"
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
    STORAGE_DENIED = "StorageDenied"
    STORAGE_UNREACHABLE = "StorageUnreachable"
    STORAGE_UNSUITABLE = "StorageUnsuitable"
    BUCKET_NOT_FOUND = "BucketNotFound"
    HUB_UNREACHABLE = "HubUnreachable"
    HUB_DENIED = "HubDenied"
    HUB_GATED = "HubGated"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_INVALID = "DatasetInvalid"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_INVALID = "ModelInvalid"
    REFERENCE_NOT_FOUND = "ReferenceNotFound"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    OUT_OF_MEMORY = "OutOfMemory"
    CUDA_OUT_OF_MEMORY = "CUDAOutOfMemory"
    NCCL_TIMEOUT = "NCCLTimeout"
    TRAINING_STALLED = "TrainingStalled"
    LOSS_NOT_FINITE = "LossNotFinite"
    CHECKPOINT_CORRUPT = "CheckpointCorrupt"
    BUDGET_EXCEEDED = "BudgetExceeded"
    QUOTA_EXCEEDED = "QuotaExceeded"
    VOLUME_NOT_MOUNTED = "VolumeNotMounted"
    POD_REJECTED = "PodRejected"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RETRY_LIMIT_REACHED = "RetryLimitReached"
    GATE_FAILED = "GateFailed"
    NAME_CONFLICT = "NameConflict"
    DRIFT_CONTESTED = "DriftContested"
    REPORT_REFUSED = "ReportRefused"
    STATUS_UNREADABLE = "StatusUnreadable"
    FAILED = "Failed"


REASON_MEANINGS: dict[Reason, str] = {
    Reason.PROGRESSING: "No problem is known.",
    Reason.VALIDATING: "The preflight Pod reads the dataset, the model and the storage.",
    Reason.QUEUED: "The Pods are made and wait to be started.",
    Reason.TRAINING: "The training Pods run.",
    Reason.RETRYING: "An attempt ended early; the next one resumes from the newest checkpoint.",
    Reason.STOPPING: "The Pods of a suspended or superseded run save a checkpoint and end.",
    Reason.SUSPENDED: "spec.suspend is true; no Pod runs.",
    Reason.SUCCEEDED: "The run is complete; status.result says where the model is.",
    Reason.WAITING_FOR_MODEL: "The fine-tuning job that makes the model is not complete.",
    Reason.EVALUATING: "The evaluation Pod starts or runs.",
    Reason.EVALUATED: "Scores are in status.results.",
    Reason.WAITING_FOR_GATE: "The evaluation that gates this deployment has not passed.",
    Reason.ROLLING_OUT: "The serving Pods start.",
    Reason.AVAILABLE: "As many Pods serve as spec.replicas asks for; the model answers at status.url.",
    Reason.VALID: "The class can be used.",
    Reason.DELETING: "The object is being deleted, and first what it has in the storage (reclaimPolicy: Delete).",
    Reason.GATES_PASSED: "Every gate passed.",
    Reason.INVALID_SPEC: "The spec contradicts itself; change it.",
    Reason.CLASS_NOT_FOUND: "There is no such FineTuneClass, or no default. Create it, or name another.",
    Reason.LIMIT_EXCEEDED: "The spec asks for more than the class allows.",
    Reason.SOURCE_NOT_ALLOWED: "The class does not allow this model or dataset URI.",
    Reason.SECRET_NOT_FOUND: "The Secret with the storage credentials is missing from the namespace, or lacks a key.",
    Reason.STORAGE_DENIED: "The storage refused the credentials (401 or 403).",
    Reason.STORAGE_UNREACHABLE: "The storage endpoint did not answer in time.",
    Reason.STORAGE_UNSUITABLE: "The storage lacks what checkpoints rest on: conditional writes (`If-None-Match: *`).",
    Reason.BUCKET_NOT_FOUND: "The class's bucket does not exist.",
    Reason.HUB_UNREACHABLE: "The Hugging Face hub did not answer, or the Pods have no way to it.",
    Reason.HUB_DENIED: "The hub refused the token (401 or 403).",
    Reason.HUB_GATED: "The hub's repository is gated, and its terms were not accepted by the token's owner.",
    Reason.DATASET_NOT_FOUND: "Nothing is at the dataset's URI.",
    Reason.DATASET_INVALID: "Lines of the dataset are broken; status.dataset.errors names them.",
    Reason.MODEL_NOT_FOUND: "Nothing is at the model's URI.",
    Reason.MODEL_INVALID: "The model does not load, or holds what is never loaded (pickle, remote code).",
    Reason.REFERENCE_NOT_FOUND: "An object that the spec names does not exist in the namespace.",
    Reason.IMAGE_PULL_FAILED: "A Pod's image can't be pulled.",
    Reason.UNSCHEDULABLE: "No node has room for a Pod.",
    Reason.OUT_OF_MEMORY: "A container used more memory than its limit.",
    Reason.CUDA_OUT_OF_MEMORY: "The accelerator's memory did not suffice.",
    Reason.NCCL_TIMEOUT: "The processes of the gang could not exchange data in time.",
    Reason.TRAINING_STALLED: "A process made no progress for many times the time that a step takes.",
    Reason.LOSS_NOT_FINITE: "The loss became NaN or infinite.",
    Reason.CHECKPOINT_CORRUPT: "There are checkpoints, but the files of none are what its manifest says.",
    Reason.BUDGET_EXCEEDED: "The namespace has used up its accelerator hours of this month.",
    Reason.QUOTA_EXCEEDED: "A ResourceQuota of the namespace leaves no room for the Pods.",
    Reason.VOLUME_NOT_MOUNTED: "A volume of a Pod is missing, or can't be mounted.",
    Reason.POD_REJECTED: "The API server refuses the Pods (Pod Security, admission), or their node can't start them.",
    Reason.DEADLINE_EXCEEDED: "spec.activeDeadlineSeconds passed; preflight has 6 hours, an Evaluation 24.",
    Reason.RETRY_LIMIT_REACHED: "The run failed more often than spec.retryLimit allows.",
    Reason.GATE_FAILED: "The evaluation did not reach a gate.",
    Reason.NAME_CONFLICT: "An object of somebody else already has the name that is needed.",
    Reason.DRIFT_CONTESTED: "Somebody else sets fields of what serves as often as they are put back.",
    Reason.REPORT_REFUSED: "A Pod reported something else than was asked of it; its result is not taken.",
    Reason.STATUS_UNREADABLE: "Another version of the operator wrote what this one can't read; nothing starts.",
    Reason.FAILED: "The Pod ended with an error; the message holds its last words.",
}


METAV1_CONDITION: dict[str, Any] = {
    "type": "object",
    "description": "Condition contains details for one aspect of the current state of this API Resource.",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "lastTransitionTime": {
            "type": "string",
            "format": "date-time",
            "description": "lastTransitionTime is the last time the condition transitioned from one status to another. "
            "This should be when the underlying condition changed. If that is not known, then using the time when the "
            "API field changed is acceptable.",
        },
        "message": {
            "type": "string",
            "maxLength": 32768,
            "description": "message is a human readable message indicating details about the transition. This may be "
            "an empty string.",
        },
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "minimum": 0,
            "description": "observedGeneration represents the .metadata.generation that the condition was set based "
            "upon. For instance, if .metadata.generation is currently 12, but the "
            ".status.conditions[x].observedGeneration is 9, the condition is out of date with respect to the current "
            "state of the instance.",
        },
        "reason": {
            "type": "string",
            "maxLength": 1024,
            "minLength": 1,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            "description": "reason contains a programmatic identifier indicating the reason for the condition's last "
            "transition. Producers of specific condition types may define expected values and meanings for this "
            "field, and whether the values are considered a guaranteed API. The value should be a CamelCase string. "
            "This field may not be empty.",
        },
        "status": {
            "type": "string",
            "enum": ["True", "False", "Unknown"],
            "description": "status of the condition, one of True, False, Unknown.",
        },
        "type": {
            "type": "string",
            "maxLength": 316,
            "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            "description": "type of condition in CamelCase or in foo.example.com/CamelCase.",
        },
    },
}
"""The schema of metav1.Condition, as controller-gen writes it."""


class Condition(ApiModel):
    """metav1.Condition."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[
        str, StringConstraints(max_length=1024, pattern=METAV1_CONDITION["properties"]["reason"]["pattern"])
    ]
    message: Annotated[str, StringConstraints(max_length=32768)]
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Timestamp

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Any type of condition: a newer operator may know another."""
        return METAV1_CONDITION


class UnreadableStatusError(ValueError):
    """Another version wrote a status that this one can't go by; the message says what of it."""


def what_is_unreadable(error: ValidationError, of: str = "status") -> str:
    """The first field of a status (or a spec) that can't be read, in words: `status.startTime is 'soon'`."""
    first = error.errors(include_url=False)[0]
    path = [of, *(str(part) for part in first["loc"])]
    if first["type"] == "missing":
        return f"{'.'.join(path[:-1])} has no {path[-1]}"
    return f"{'.'.join(path)} is {str(first['input'])[:100]!r}"


class KindStatus(ApiModel):
    """What the status of every kind has."""

    observed_generation: int | None = Field(None, description="The metadata.generation that this status is about.")
    conditions: list[Condition] = Field(
        default=[],
        json_schema_extra=keyed_by("type"),
        description="Where the object stands; docs/reference/conditions.md lists types and reasons.",
    )

    @classmethod
    def from_another_version(cls, value: Any) -> Self:
        """As for every contract; an object of which this version knows no field is none."""
        return super().from_another_version(_without_remains(cls, value))

    @classmethod
    def read(cls, value: Any) -> Self:
        """A status as it is stored: what another version added to it is kept.

        Raises UnreadableStatusError when a field is of another type, or the phase is unknown: nobody can tell then
        what has run already.
        """
        try:
            status = cls.from_another_version(value or {})
            cls.from_wire({"phase": phase} if (phase := getattr(status, "phase", None)) else {})
        except ValidationError as error:
            raise UnreadableStatusError(what_is_unreadable(error)) from error
        return status


def _without_remains(model: type[ApiModel], value: Any) -> Any:
    """What is stored of a model, without objects that hold nothing which this version knows.

    Such an object is what is left of one that was removed by a writer who took its own fields only.
    """
    if not isinstance(value, dict):
        return value
    kept = dict(value)
    for name, field in model.model_fields.items():
        wire, inner = field.alias or name, _object_type(field.annotation)
        if inner is None or wire not in kept:
            continue
        found = kept[wire]
        if isinstance(found, list):
            items = [_without_remains(inner, item) for item in found]
            kept[wire] = [item for item in items if not _is_remains(inner, item)]
        elif _is_remains(inner, found := _without_remains(inner, found)):
            del kept[wire]
        else:
            kept[wire] = found
    return kept


def _is_remains(model: type[ApiModel], value: Any) -> bool:
    known = {field.alias or name for name, field in model.model_fields.items()}
    return isinstance(value, dict) and not known & value.keys()


def _object_type(annotation: Any) -> type[ApiModel] | None:
    """The model in `Model`, `Model | None` and `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    if get_origin(annotation) not in (list, Union, UnionType):
        return None
    return next((found for part in get_args(annotation) if (found := _object_type(part)) is not None), None)
