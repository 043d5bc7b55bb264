"""The objects that commands are about: NAME is a FineTuneJob, and KIND/NAME one of another kind."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kubectl_finetune.errors import ExitCode, PluginError

OWNER_UID_LABEL = "finetune.dev/owner-uid"
ROLE_LABEL = "finetune.dev/role"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
JOB_INDEX = "batch.kubernetes.io/job-completion-index"
"""A label, and an annotation in older clusters."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


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
KINDS = (FINE_TUNE_JOB, EVALUATION, MODEL_DEPLOYMENT)


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


def resource(argument: str, kinds: tuple[Kind, ...] = KINDS) -> Resource:
    """`NAME`, `ftj/NAME`, `eval/NAME`, `mdep/NAME`. Raises PluginError for another kind or a name that can't be."""
    kind_name, slash, name = argument.rpartition("/")
    if not slash:
        kind = FINE_TUNE_JOB
    else:
        found = [kind for kind in kinds if kind_name.lower() in _names(kind)]
        if not found:
            known = ", ".join(f"{kind.short_name}/NAME ({kind.name})" for kind in kinds)
            raise PluginError(f"{argument!r}: this command knows {known}.", ExitCode.WRONG_USAGE)
        kind = found[0]
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise PluginError(f"{name!r} can't be the name of a {kind.name}.", ExitCode.WRONG_USAGE)
    return Resource(kind, name)


def _names(kind: Kind) -> tuple[str, ...]:
    return kind.short_name, kind.plural, kind.name.lower(), f"{kind.plural}.finetune.dev"
