"""Condition types and reasons: the vocabulary in which every kind reports its state."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from finetune_api.base import ApiModel, Timestamp


class ConditionType(StrEnum):
    """The condition types. Every kind has Ready and Stalled; only Evaluation has Passed.

    Failed is set, to True, only on a FineTuneJob, Evaluation, FineTuneSweep or Dataset whose run is over for good.
    """

    READY = "Ready"
    STALLED = "Stalled"
    FAILED = "Failed"
    PASSED = "Passed"


class Reason(StrEnum):
    """Why a condition has its status. REASON_MEANINGS explains each one to users."""

    # Progress: the reason of Ready while it is False, and of Stalled while nothing is wrong.
    PROGRESSING = "Progressing"
    VALIDATING = "Validating"
    QUEUED = "Queued"
    TRAINING = "Training"
    RETRYING = "Retrying"
    STOPPING = "Stopping"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    CANCELLED = "Cancelled"
    WAITING_FOR_MODEL = "WaitingForModel"
    WAITING_FOR_DATASET = "WaitingForDataset"
    EVALUATING = "Evaluating"
    EVALUATED = "Evaluated"
    WAITING_FOR_GATE = "WaitingForGate"
    ROLLING_OUT = "RollingOut"
    GATEWAY_UNAVAILABLE = "GatewayUnavailable"
    AVAILABLE = "Available"
    VALID = "Valid"
    DELETING = "Deleting"
    GATES_PASSED = "GatesPassed"
    SEARCHING = "Searching"
    BUILDING = "Building"
    CANARY_RUNNING = "CanaryRunning"
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    # Diagnoses: the reason of Stalled while it is True, and where something is limited that does not stall it.
    INVALID_SPEC = "InvalidSpec"
    CLASS_NOT_FOUND = "ClassNotFound"
    LIMIT_EXCEEDED = "LimitExceeded"
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    MODEL_NOT_LISTED = "ModelNotListed"
    ENDPOINT_DENIED = "EndpointDenied"
    ENDPOINT_UNREACHABLE = "EndpointUnreachable"
    MODEL_CHANGED = "ModelChanged"
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
    BENCHMARK_NOT_FOUND = "BenchmarkNotFound"
    BENCHMARK_INVALID = "BenchmarkInvalid"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_INVALID = "ModelInvalid"
    REFERENCE_NOT_FOUND = "ReferenceNotFound"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    OUT_OF_MEMORY = "OutOfMemory"
    OUT_OF_DISK = "OutOfDisk"
    CUDA_OUT_OF_MEMORY = "CUDAOutOfMemory"
    NCCL_TIMEOUT = "NCCLTimeout"
    TRAINING_STALLED = "TrainingStalled"
    LOSS_NOT_FINITE = "LossNotFinite"
    CHECKPOINT_CORRUPT = "CheckpointCorrupt"
    BUDGET_EXCEEDED = "BudgetExceeded"
    QUOTA_EXCEEDED = "QuotaExceeded"
    VOLUME_NOT_MOUNTED = "VolumeNotMounted"
    POD_REJECTED = "PodRejected"
    OBJECT_REJECTED = "ObjectRejected"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RETRY_LIMIT_REACHED = "RetryLimitReached"
    GRADER_FAILED = "GraderFailed"
    SANDBOX_UNAVAILABLE = "SandboxUnavailable"
    TEACHER_TOKENIZER_DIFFERS = "TeacherTokenizerDiffers"
    REWARD_HAS_NO_SIGNAL = "RewardHasNoSignal"
    REWARD_HACKING_SUSPECTED = "RewardHackingSuspected"
    TRIALS_FAILED = "TrialsFailed"
    GATE_FAILED = "GateFailed"
    ROLLED_BACK = "RolledBack"
    INCONCLUSIVE = "Inconclusive"
    NAME_CONFLICT = "NameConflict"
    DRIFT_CONTESTED = "DriftContested"
    REPORT_REFUSED = "ReportRefused"
    REPORT_UNDELIVERED = "ReportUndelivered"
    STATUS_UNREADABLE = "StatusUnreadable"
    FAILED = "Failed"


DIAGNOSES = frozenset(list(Reason)[list(Reason).index(Reason.INVALID_SPEC) :])

REASON_MEANINGS: dict[Reason, str] = {
    Reason.PROGRESSING: "No problem is known.",
    Reason.VALIDATING: "The preflight Pod is checking the dataset, the model and the storage.",
    Reason.QUEUED: "Waiting to start, for a node, a queue or a quota; the message says which.",
    Reason.TRAINING: "The training Pods are running.",
    Reason.RETRYING: "An attempt ended early; the next one resumes from the newest checkpoint.",
    Reason.STOPPING: "The Pods of a suspended, cancelled or superseded run are saving what is done and shutting down.",
    Reason.SUSPENDED: "spec.suspend is true; no Pods are running.",
    Reason.SUCCEEDED: "The run is complete; the model is at status.result.uri, or is that of the FineTuneJob "
    "in status.best; of a Dataset, the files are at status.revision.uri.",
    Reason.WAITING_FOR_MODEL: "The FineTuneJob that produces the model has not finished, or the ModelDeployment of one "
    "of the class's models does not serve.",
    Reason.WAITING_FOR_DATASET: "The Dataset of a datasetRef has no revision yet: it is not complete, or it failed.",
    Reason.CANCELLED: "spec.cancel is true; the run has ended for good, and what it saved stays.",
    Reason.EVALUATING: "The evaluation Pod is starting or running.",
    Reason.EVALUATED: "The scores are in status.results.",
    Reason.WAITING_FOR_GATE: "The evaluation that gates this deployment has not passed.",
    Reason.ROLLING_OUT: "The serving Pods are starting.",
    Reason.GATEWAY_UNAVAILABLE: "No Pod of the gateway is ready: nothing is reachable at status.url.",
    Reason.AVAILABLE: "All requested replicas are serving; the model answers at status.url.",
    Reason.VALID: "The class can be used.",
    Reason.DELETING: "The object is being deleted; with reclaimPolicy: Delete, its data in the storage is removed "
    "first.",
    Reason.GATES_PASSED: "Every gate passed.",
    Reason.SEARCHING: "Trials are running or about to start; the best so far is status.best.",
    Reason.BUILDING: "The Pod that reads, cleans and splits the examples is starting or running.",
    Reason.CANARY_RUNNING: "The next model answers a share of the requests beside the one that serves; "
    "status.canary has what is known.",
    Reason.WAITING_FOR_APPROVAL: "The canary passed its last step and waits for rollout.canary.approvedRevision.",
    Reason.INVALID_SPEC: "The spec contradicts itself; change it.",
    Reason.CLASS_NOT_FOUND: "The FineTuneClass does not exist, or there is no default class. Create it, or name "
    "another one.",
    Reason.LIMIT_EXCEEDED: "The spec asks for more than the class allows, or screening for more than its budget.",
    Reason.SOURCE_NOT_ALLOWED: "The class does not allow this model or dataset URI.",
    Reason.MODEL_NOT_LISTED: "A grader or dataset.screening asks a model, or a candidate is one, that spec.models of "
    "the class does not list.",
    Reason.ENDPOINT_DENIED: "The API of one of the class's models rejected the key (401 or 403), or its account has no "
    "quota left.",
    Reason.ENDPOINT_UNREACHABLE: "The API of one of the class's models did not answer in time.",
    Reason.MODEL_CHANGED: "A ModelDeployment began to serve another revision while it was asked, or the files of a "
    "Dataset's teacher changed while they were fetched; the next try takes what is there then.",
    Reason.SECRET_NOT_FOUND: "The Secret with the storage credentials, or with the key of one of the class's models, "
    "does not exist in the namespace, or lacks a key.",
    Reason.STORAGE_DENIED: "The storage rejected the credentials (401 or 403).",
    Reason.STORAGE_UNREACHABLE: "The storage endpoint did not answer in time.",
    Reason.STORAGE_UNSUITABLE: "The storage does not support conditional writes (`If-None-Match: *`), which "
    "checkpoints require, or answers a read of a part (`Range`) with other bytes.",
    Reason.BUCKET_NOT_FOUND: "The class's bucket does not exist.",
    Reason.HUB_UNREACHABLE: "The Hugging Face Hub did not answer, or the Pods have no network route to it.",
    Reason.HUB_DENIED: "The Hub rejected the token (401 or 403).",
    Reason.HUB_GATED: "The Hub repository is gated, and the token's owner has not accepted its terms.",
    Reason.DATASET_NOT_FOUND: "There is nothing at the dataset's URI.",
    Reason.DATASET_INVALID: "The dataset has invalid lines (status.dataset.errors; of a Dataset: status.errors), or "
    "lines that screening refuses; or nothing that was generated is kept.",
    Reason.BENCHMARK_NOT_FOUND: "The mirror has no copy of a benchmark's dataset; the message has the command that "
    "makes one.",
    Reason.BENCHMARK_INVALID: "A benchmark's copy in the mirror is not what was copied, or not what lm-eval reads; the "
    "message has the command that copies it again.",
    Reason.MODEL_NOT_FOUND: "There is nothing at the model's URI, or the API of one of the class's models has no such "
    "model.",
    Reason.MODEL_INVALID: "The model can't be loaded, or requires something that is never loaded (pickle, remote "
    "code).",
    Reason.REFERENCE_NOT_FOUND: "An object that the spec refers to does not exist in the namespace.",
    Reason.IMAGE_PULL_FAILED: "A Pod's image can't be pulled.",
    Reason.UNSCHEDULABLE: "No node can run a Pod of this object.",
    Reason.OUT_OF_MEMORY: "A container exceeded its memory limit.",
    Reason.OUT_OF_DISK: "A Pod exceeded its limit of ephemeral storage and was evicted.",
    Reason.CUDA_OUT_OF_MEMORY: "The accelerator ran out of memory.",
    Reason.NCCL_TIMEOUT: "The training processes could not exchange data in time.",
    Reason.TRAINING_STALLED: "A process made no progress for many times the duration of a step.",
    Reason.LOSS_NOT_FINITE: "The loss became NaN or infinite.",
    Reason.CHECKPOINT_CORRUPT: "Checkpoints exist, but none has files that match its manifest.",
    Reason.BUDGET_EXCEEDED: "The namespace has used up its accelerator hours for this month, or an Evaluation its "
    "spec.budget.",
    Reason.QUOTA_EXCEEDED: "A ResourceQuota in the namespace does not allow the Pods.",
    Reason.VOLUME_NOT_MOUNTED: "A Pod's volume does not exist or can't be mounted.",
    Reason.POD_REJECTED: "The API server rejects the Pods (Pod Security, admission), or their node can't start them.",
    Reason.OBJECT_REJECTED: "The API server rejects a Service, a ConfigMap, a PodDisruptionBudget, a FineTuneJob or an "
    "Evaluation that this object needs (admission, validation), or refuses to delete a Job or Pod that it no longer "
    "needs.",
    Reason.DEADLINE_EXCEEDED: "The run exceeded spec.activeDeadlineSeconds, or its own limit: 6 hours for "
    "preflight and for a Dataset, a day and at least the run's deadline for an Evaluation.",
    Reason.RETRY_LIMIT_REACHED: "The run failed more times than spec.retryLimit allows.",
    Reason.GRADER_FAILED: "Too many outputs could not be graded; the message has the first one and its error.",
    Reason.SANDBOX_UNAVAILABLE: "The sandbox of Python graders does not hold on the Pod's node, or did not answer; "
    "nothing was graded without it.",
    Reason.TEACHER_TOKENIZER_DIFFERS: "With method.type Distillation, the teacher has another tokenizer than the "
    "model, so that their token probabilities can't be compared; the message has the first difference.",
    Reason.REWARD_HAS_NO_SIGNAL: "With method.type RFT, all first answers of the model to almost every prompt have the "
    "same reward, so that nothing can be learned from them; the message says what may help.",
    Reason.REWARD_HACKING_SUSPECTED: "method.rft.stop ended the run: the training reward is far above that on "
    "dataset.validation, or completions have become much longer. Its checkpoints are kept.",
    Reason.INCONCLUSIVE: "The evaluation can't tell whether a gate is reached: too few examples, no score of its "
    "slice, or a budget that was used up; the message says which.",
    Reason.TRIALS_FAILED: "As many trials failed as spec.budget.failures allows, or none has a result.",
    Reason.GATE_FAILED: "A candidate did not reach a gate.",
    Reason.ROLLED_BACK: "The canary was worse than the model that serves, which goes on serving; the message says by "
    "what. Another runId, or another rollout, tries again.",
    Reason.NAME_CONFLICT: "Another owner's object already has a name that this object needs.",
    Reason.DRIFT_CONTESTED: "Another client keeps changing fields of the serving objects after the operator corrects "
    "them.",
    Reason.REPORT_REFUSED: "A Pod reported something that does not match its run; the result was rejected.",
    Reason.REPORT_UNDELIVERED: "An evaluation has too many scores for a termination message, and its Pod could not "
    "send them to the operator.",
    Reason.STATUS_UNREADABLE: "Another version of the operator wrote a status that this one can't read; nothing "
    "starts. The message has the fields, and the change that makes the status readable.",
    Reason.FAILED: "The Pod failed; the message has the end of its log.",
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
        """Any condition type: a newer operator may add more."""
        return METAV1_CONDITION
