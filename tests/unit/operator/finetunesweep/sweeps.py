"""A cluster with one FineTuneSweep in it: what is done with its plan by the API server and the operator of jobs."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api.evaluation import Score
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus, SizedModel, TrialStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.finetunesweep.objects import CANDIDATE
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepPlan, TrialJob
from finetune_operator.finetunesweep.plan import plan
from finetune_operator.finetunesweep.refusal import search_refusal
from finetune_operator.finetunesweep.trials import running, stopping

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
OWNER = Owner("FineTuneSweep", "team-a", "router", "5a3c")
RATE = {"path": "hyperparameters.learningRate", "logUniform": {"minimum": 1e-5, "maximum": 1e-2}}
RANK = {"path": "adapter.lora.rank", "numbers": [8, 16, 32]}
TEMPLATE: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "dataset": {"training": {"uri": "s3://data/train.jsonl"}, "validation": {"uri": "s3://data/valid.jsonl"}},
}


OBJECTIVE: dict[str, Any] = {
    "type": "Evaluation",
    "evaluation": {
        "template": {
            "spec": {
                "dataset": {"uri": "s3://data/test.jsonl"},
                "graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {}}],
            }
        },
        "grader": "exact",
    },
}


def sweep_spec(template: dict[str, Any] | None = None, search: dict[str, Any] | None = None, **rest: Any) -> Any:
    """A spec that searches two fields, with changes."""
    searched = {"parameters": [RATE, RANK], **(search or {})}
    return FineTuneSweepSpec.from_wire(
        {"template": {"spec": {**TEMPLATE, **(template or {})}}, "search": searched, **rest}
    )


def loss(values: dict[str, Any]) -> float:
    """A loss that depends on the values alone."""
    return round(abs(math.log10(values["hyperparameters.learningRate"]) + 3) + 1 / values["adapter.lora.rank"], 6)


@dataclass
class SweepWorld:
    """Everything that is observed, and the clock."""

    spec: FineTuneSweepSpec = field(default_factory=sweep_spec)
    status: FineTuneSweepStatus = field(default_factory=FineTuneSweepStatus)
    now: datetime = NOW
    jobs: dict[str, TrialJob] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    holdout: TrialJob | None = None
    """The Evaluation of the best trial on the holdout examples."""
    models: tuple[SizedModel, ...] | Readiness | None = None
    """What the class lists (mode SmallestModel)."""
    accelerators: int | Readiness | None = 0
    quota: int = 1000
    """How many jobs the API server lets be created."""
    refused: frozenset[int] = frozenset()
    """The numbers of trials whose jobs a webhook refuses."""

    def observed(self) -> ObservedFineTuneSweep:
        seen = [one.fine_tune_job_name for one in (*running(self.status), *stopping(self.status))]
        return ObservedFineTuneSweep(
            OWNER,
            1,
            self.spec,
            self.status,
            {name: self.jobs[name] for name in seen if name in self.jobs},
            self._holdout(),
            self.models if not self.status.models else None,
            self._refusal(),
            self.accelerators,
        )

    def _refusal(self) -> Readiness | None:
        refusal = search_refusal(self.spec) if not self.status.trials else None
        return self.models if refusal is None and isinstance(self.models, Readiness) else refusal

    def _holdout(self) -> TrialJob | None:
        named, found = self.status.holdout, self.holdout
        return None if named is None or found is None or found.evaluation_name != named.evaluation_name else found

    def reconcile(self, killed_after: int | None = None) -> SweepPlan:
        """One reconciliation, killed after so many writes."""
        decided = plan(self.observed(), self.now)
        writes: list[Any] = [*decided.create, *decided.merge, decided.status, *decided.create_recorded]
        is_refused = False
        for write in writes[:killed_after]:
            if is_refused and write not in decided.create:
                # As runtime/reconciler/reconcile.py does: what follows is not written.
                self.status = decided.if_refused or self.status
                break
            if isinstance(write, FineTuneSweepStatus):
                # As it comes back from the API server.
                self.status = FineTuneSweepStatus.read(copy.deepcopy(write.to_wire()))
            elif "resourceVersion" in write["metadata"]:
                self._change(write["metadata"]["name"], write["spec"])
            elif write["kind"] == "Evaluation":
                self._evaluates(write)
            elif self._refuses(write):
                assert decided.creates_each, "the others are created"
                is_refused = is_refused or write in decided.create
            elif write["metadata"]["name"] not in self.jobs:
                self.created.append(write)
                self.jobs[write["metadata"]["name"]] = TrialJob("1", "Training", reason="Training")
        return decided

    def _refuses(self, body: dict[str, Any]) -> bool:
        name = body["metadata"]["name"]
        names = [trial.fine_tune_job_name for trial in self.status.trials if trial.number in self.refused]
        return name not in self.jobs and (name in names or len(self.jobs) >= self.quota)

    def settle(self) -> None:
        """Reconcile until nothing changes any more."""
        for _ in range(20):
            before = self.status, dict(self.jobs), self.holdout
            self.reconcile()
            if before == (self.status, self.jobs, self.holdout):
                return
        raise AssertionError("it does not settle")

    def ends(
        self, number: int, phase: Any = "Succeeded", *, after: timedelta = timedelta(seconds=10), **fields: Any
    ) -> None:
        """The job of a trial ends so; its loss follows from its values."""
        trial = self.trial(number)
        self.now += after
        if "eval_loss" not in fields:
            fields["eval_loss"] = loss(trial.values)
        found = {"eval_step": 100, "seconds": 3600, "completed": self.now, **fields}
        self.jobs[trial.fine_tune_job_name] = replace(self.jobs[trial.fine_tune_job_name], phase=phase, **found)

    def has_trained(self, number: int) -> None:
        """The job of a trial has succeeded, and its model is to be evaluated."""
        self.ends(number, "Evaluating", eval_loss=None, has_trained=True, completed=None)

    def is_evaluated(self, number: int, score: float, margin: float = 0.05, **fields: Any) -> None:
        """Its Evaluation has ended with this score."""
        found = Score(
            candidate=CANDIDATE, grader="exact", score=score, low=score - margin, high=score + margin, examples=250
        )
        assert self.jobs[self.trial(number).fine_tune_job_name].evaluation_name is not None
        seconds = self.jobs[self.trial(number).fine_tune_job_name].seconds
        self.ends(number, "Succeeded", **{"eval_loss": None, "score": found, "seconds": seconds, **fields})

    def holdout_ends(self, phase: Any = "Succeeded", score: float | None = 0.6, **fields: Any) -> None:
        """The Evaluation on the holdout examples ends so."""
        assert self.holdout is not None
        found = None
        if score is not None:
            found = Score(
                candidate=CANDIDATE, grader="exact", score=score, low=score - 0.05, high=score + 0.05, examples=250
            )
        self.now += timedelta(seconds=10)
        self.holdout = replace(self.holdout, phase=phase, score=found, completed=self.now, **fields)

    def reports(self, number: int, eval_step: int | None, eval_loss: float, *, every: int | None = None) -> None:
        """The job of a trial tells its most recent validation loss, and of which step it is."""
        name = self.trial(number).fine_tune_job_name
        self.jobs[name] = replace(self.jobs[name], eval_step=eval_step, eval_loss=eval_loss, eval_every=every)

    def trial(self, number: int) -> TrialStatus:
        return self.status.trials[number - 1]

    def rungs(self, number: int) -> dict[int, float | None]:
        """The losses of a trial at the steps at which it was compared."""
        return {rung.step: rung.loss for rung in self.trial(number).rungs}

    def states(self) -> list[str]:
        return [trial.state for trial in self.status.trials]

    def reason(self, kind: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition."""
        found = next(one for one in self.status.conditions if one.type == kind)
        return found.status, found.reason

    def _evaluates(self, body: dict[str, Any]) -> None:
        if body["metadata"]["labels"]["finetune.dev/role"] == "holdout":
            if self.holdout is None or self.holdout.evaluation_name != body["metadata"]["name"]:
                self.created.append(body)
                name = body["metadata"]["name"]
                self.holdout = TrialJob("1", "Evaluating", has_trained=True, evaluation_name=name)
            return
        (candidate,) = body["spec"]["candidates"]
        name = candidate["model"]["fineTuneJobRef"]["name"]
        if self.jobs[name].evaluation_name is None:
            self.created.append(body)
            self.jobs[name] = replace(self.jobs[name], evaluation_name=body["metadata"]["name"])

    def _change(self, name: str, spec: dict[str, Any]) -> None:
        if self.holdout is not None and self.holdout.evaluation_name == name:
            self.holdout = self._changed(self.holdout, spec)
            return
        evaluated = {job.evaluation_name: of for of, job in self.jobs.items() if job.evaluation_name is not None}
        name = evaluated.get(name, name)
        self.jobs[name] = self._changed(self.jobs[name], spec)

    def _changed(self, job: TrialJob, spec: dict[str, Any]) -> TrialJob:
        if "suspend" in spec:
            phase: Any = "Suspended" if spec["suspend"] else "Evaluating" if job.has_trained else "Training"
            job = replace(job, is_suspended=spec["suspend"], phase=phase)
        if spec.get("cancel") and job.phase != "Cancelled":
            job = replace(job, is_cancelled=True, phase="Cancelled", completed=self.now)
        return job
