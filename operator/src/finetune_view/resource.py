"""The kinds that have runs or Pods, and the labels by which their Pods are found."""

from __future__ import annotations

from dataclasses import dataclass

OWNER_UID_LABEL = "finetune.dev/owner-uid"
ROLE_LABEL = "finetune.dev/role"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
JOB_INDEX = "batch.kubernetes.io/job-completion-index"
"""A label, and an annotation in older clusters."""


@dataclass(frozen=True)
class Kind:
    """A kind of the group that has runs or Pods. `roles`: of its Pods, the most telling last."""

    name: str
    plural: str
    short_name: str
    roles: tuple[str, ...]

    @property
    def resource(self) -> str:
        """Its name for kubectl, which no other group's kind has."""
        return f"{self.plural}.finetune.dev"


FINE_TUNE_JOB = Kind("FineTuneJob", "finetunejobs", "ftj", ("preflight", "train"))
EVALUATION = Kind("Evaluation", "evaluations", "eval", ("evaluate",))
MODEL_DEPLOYMENT = Kind("ModelDeployment", "modeldeployments", "mdep", ("serve",))
FINE_TUNE_SWEEP = Kind("FineTuneSweep", "finetunesweeps", "fts", ())
DATASET = Kind("Dataset", "datasets", "ftds", ("dataset",))
KINDS = (FINE_TUNE_JOB, EVALUATION, MODEL_DEPLOYMENT, FINE_TUNE_SWEEP, DATASET)
RUNS = (FINE_TUNE_JOB, EVALUATION, FINE_TUNE_SWEEP, DATASET)
"""What is suspended, cancelled and run again."""
WITH_PODS = tuple(kind for kind in KINDS if kind.roles)
"""Those that have Pods of their own; a sweep's are those of its trials."""


@dataclass(frozen=True)
class Resource:
    """One object."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.name}"

    @property
    def argument(self) -> str:
        """As a user names it to this plugin."""
        return self.name if self.kind is FINE_TUNE_JOB else f"{self.kind.short_name}/{self.name}"
