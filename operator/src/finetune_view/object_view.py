"""An object of one of our kinds, read leniently: what its status says of its run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from finetune_view.fields import Fields, Object
from finetune_view.resource import (
    DATASET,
    EVALUATION,
    FINE_TUNE_JOB,
    FINE_TUNE_SWEEP,
    KINDS,
    MODEL_DEPLOYMENT,
    Kind,
    Resource,
)

Outcome = Literal["Succeeded", "Failed"]
_SUCCESS = {
    FINE_TUNE_JOB.name: "Succeeded",
    EVALUATION.name: "Passed",
    FINE_TUNE_SWEEP.name: "Succeeded",
    DATASET.name: "Succeeded",
}

_TRACES_OF_PODS = ("preflight", "dataset", "attempt", "endedAttempts", "served", "failure")


@dataclass(frozen=True)
class Condition:
    """One condition; `status` is "" where there is none."""

    status: str
    reason: str
    message: str
    since: datetime | None


@dataclass(frozen=True)
class ObjectView:
    """The object; `fields`: all of it."""

    fields: Fields

    @property
    def kind(self) -> Kind:
        name = self.fields.text("kind")
        return next((kind for kind in KINDS if kind.name == name), FINE_TUNE_JOB)

    @property
    def namespace(self) -> str:
        return self.fields.text("metadata", "namespace")

    @property
    def name(self) -> str:
        return self.fields.text("metadata", "name")

    @property
    def uid(self) -> str:
        return self.fields.text("metadata", "uid")

    @property
    def resource(self) -> Resource:
        return Resource(self.kind, self.name)

    @property
    def status(self) -> Fields:
        return self.fields.at("status")

    @property
    def phase(self) -> str:
        return self.status.text("phase")

    @property
    def deleting(self) -> bool:
        return bool(self.fields.at("metadata", "deletionTimestamp"))

    @property
    def run_id(self) -> str:
        """The run that the spec asks for."""
        return self.fields.text("spec", "runId") or "1"

    @property
    def owning_sweep(self) -> str:
        """The FineTuneSweep that it is a trial of; "" for what was made by a person."""
        owners = self.fields.at("metadata", "ownerReferences")
        return next((one.text("name") for one in owners if one.text("kind") == FINE_TUNE_SWEEP.name), "")

    def condition(self, kind: str) -> Condition:
        """A condition of this type."""
        found = next((one for one in self.status.at("conditions") if one.text("type") == kind), Fields(None))
        return Condition(
            found.text("status"), found.text("reason"), found.text("message"), found.time("lastTransitionTime")
        )

    @property
    def current(self) -> bool:
        """Whether the status describes this spec, and not an earlier one."""
        observed, generation = self.status.whole("observedGeneration"), self.fields.whole("metadata", "generation")
        return observed is not None and (generation is None or observed >= generation)

    @property
    def phase_since(self) -> datetime | None:
        """When the phase began, where the object says so: a condition's time is that of its status alone."""
        status, ready = self.status, self.condition("Ready")
        if self.phase == "Suspended":
            return status.time("suspendTime")
        if self.phase == "Training":
            return status.time("attempt", "podsStartTime") or status.time("attempt", "startTime")
        if self.phase == "Canary":
            return status.time("canary", "phaseTime") or ready.since
        if self.phase == "Blocked":  # Ready may be True of what serves.
            return self.condition("Stalled").since
        return ready.since if ready.status == "True" else status.time("completionTime")

    @property
    def waits_for_first_pod(self) -> bool:
        """Whether no Pod of this run has been made yet, as it waits for a model, a class or a gate."""
        if self.outcome is not None or any(self.status.at(trace) for trace in _TRACES_OF_PODS):
            return False
        of_preflight = self.phase == "Validating" and self.condition("Ready").reason == "Validating"
        return self.phase in ("", "Waiting", "Validating") and not of_preflight

    @property
    def stalled(self) -> bool:
        return self.current and self.condition("Stalled").status == "True"

    @property
    def outcome(self) -> Outcome | None:
        """How the run that the spec asks for ended; None while it has not.

        A ModelDeployment has when its model serves, or when its canary was rolled back.
        """
        if not self.current:
            return None
        if self.kind is MODEL_DEPLOYMENT:
            return self._rolled_out
        # A new runId that was refused leaves the run before it in the status.
        if self.status.time("completionTime") is None or self.status.text("runId") not in ("", self.run_id):
            return None
        return "Succeeded" if self.phase == _SUCCESS[self.kind.name] else "Failed"

    @property
    def _rolled_out(self) -> Outcome | None:
        """Whether the model that the spec asks for serves; Ready is True also of the one before, beside a canary."""
        ready, stalled = self.condition("Ready"), self.condition("Stalled")
        if stalled.status == "True" and stalled.reason == "RolledBack":
            return "Failed"
        is_proving = ready.reason in ("CanaryRunning", "WaitingForApproval") or bool(self.status.at("canary"))
        return "Succeeded" if ready.status == "True" and not is_proving else None


def object_view(found: Object) -> ObjectView:
    """The view of an object that was read."""
    return ObjectView(Fields(found))
