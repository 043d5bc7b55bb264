"""The objects of a FineTuneSweep: a FineTuneJob for each trial, and an Evaluation if a grader's score counts.

Their names follow from the object's UID, the number of the run and that of the trial, so that none is made twice.
"""

from __future__ import annotations

from typing import Any

from finetune_api.finetunesweep import BestTrial, FineTuneSweepSpec, GraderScore, Holdout, TrialStatus, with_values
from finetune_operator.core.ownership import Owner, child_name, metadata
from finetune_operator.finetunesweep.observed import TrialJob
from finetune_operator.kube.resources import EVALUATIONS, FINE_TUNE_JOBS, Object, Resource

TRIAL_ROLE, EVALUATION_ROLE, HOLDOUT_ROLE = "trial", "evaluation", "holdout"
CANDIDATE = "tuned"
"""The name of a trial's model in its Evaluation."""


def trial_name(owner: Owner, run_number: int, number: int) -> str:
    """The name of a trial's FineTuneJob."""
    return child_name(owner, f"{TRIAL_ROLE}-{number}", run_number)


def trial_job(owner: Owner, spec: FineTuneSweepSpec, trial: TrialStatus) -> Object:
    """The FineTuneJob of a trial."""
    return {
        **_type(FINE_TUNE_JOBS),
        "metadata": metadata(owner, trial.fine_tune_job_name, TRIAL_ROLE),
        "spec": with_values(spec.template.spec.to_wire(), trial.values),
    }


def evaluation_name(owner: Owner, run_number: int, number: int) -> str:
    """The name of a trial's Evaluation."""
    return child_name(owner, f"{EVALUATION_ROLE}-{number}", run_number)


def evaluation_spec(spec: FineTuneSweepSpec, measured: GraderScore, job_name: str) -> dict[str, Any]:
    """What is evaluated of a trial, whose base model is the baseline."""
    measuring = measured.template.spec
    class_name = measuring.class_name or spec.template.spec.class_name
    return {
        **measuring.to_wire(),
        **({} if class_name is None else {"className": class_name}),
        **({} if spec.smallest_model is None else {"gates": [gate.to_wire() for gate in spec.smallest_model.gates]}),
        "candidates": [{"name": CANDIDATE, "model": {"fineTuneJobRef": {"name": job_name}}}],
    }


def trial_evaluation(
    owner: Owner, spec: FineTuneSweepSpec, measured: GraderScore, trial: TrialStatus, run_number: int
) -> Object:
    """The Evaluation of a trial that has trained."""
    name = evaluation_name(owner, run_number, trial.number)
    return {
        **_type(EVALUATIONS),
        "metadata": metadata(owner, name, EVALUATION_ROLE),
        "spec": evaluation_spec(spec, measured, trial.fine_tune_job_name),
    }


def holdout_name(owner: Owner, run_number: int, number: int) -> str:
    """The name of the Evaluation of the best trial on examples that its choice did not depend on."""
    return child_name(owner, f"{HOLDOUT_ROLE}-{number}", run_number)


def holdout_spec(spec: FineTuneSweepSpec, measured: GraderScore, holdout: Holdout, job_name: str) -> dict[str, Any]:
    """What is evaluated there: as of a trial, but for its examples."""
    body = evaluation_spec(spec, measured, job_name)
    without_source = {key: value for key, value in body["dataset"].items() if key not in ("uri", "datasetRef")}
    return {**body, "dataset": {**without_source, **holdout.to_wire()}}


def holdout_evaluation(
    owner: Owner, spec: FineTuneSweepSpec, measured: GraderScore, holdout: Holdout, best: BestTrial, name: str
) -> Object:
    """That Evaluation."""
    return {
        **_type(EVALUATIONS),
        "metadata": metadata(owner, name, HOLDOUT_ROLE),
        "spec": holdout_spec(spec, measured, holdout, best.fine_tune_job_name),
    }


def cancelled(owner: Owner, name: str, job: TrialJob) -> Object:
    """What ends a trial for good."""
    return _changed(owner, name, job, cancel=True)


def suspended(owner: Owner, name: str, job: TrialJob, *, suspend: bool) -> Object:
    """What suspends a trial, or resumes it."""
    return _changed(owner, name, job, suspend=suspend)


def _changed(owner: Owner, name: str, job: TrialJob, **fields: bool) -> Object:
    # With its version, so that a job that is gone is not created from these fields alone.
    resource = FINE_TUNE_JOBS if job.evaluation_name is None else EVALUATIONS
    meta = {"name": job.evaluation_name or name, "namespace": owner.namespace}
    return {**_type(resource), "metadata": {**meta, "resourceVersion": job.resource_version}, "spec": fields}


def _type(resource: Resource) -> dict[str, str]:
    return {"apiVersion": resource.api_version, "kind": resource.kind}
