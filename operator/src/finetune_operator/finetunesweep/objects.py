"""The objects of a FineTuneSweep: a FineTuneJob for each trial.

Their names follow from the object's UID, the number of the run and that of the trial, so that none is made twice.
"""

from __future__ import annotations

from finetune_api.finetunesweep import FineTuneSweepSpec, TrialStatus, with_values
from finetune_operator.core.ownership import Owner, child_name, metadata
from finetune_operator.finetunesweep.observed import TrialJob
from finetune_operator.kube.resources import FINE_TUNE_JOBS, Object

TRIAL_ROLE = "trial"
_KIND = {"apiVersion": FINE_TUNE_JOBS.api_version, "kind": FINE_TUNE_JOBS.kind}


def trial_name(owner: Owner, run_number: int, number: int) -> str:
    """The name of a trial's FineTuneJob."""
    return child_name(owner, f"{TRIAL_ROLE}-{number}", run_number)


def trial_job(owner: Owner, spec: FineTuneSweepSpec, trial: TrialStatus) -> Object:
    """The FineTuneJob of a trial."""
    return {
        **_KIND,
        "metadata": metadata(owner, trial.fine_tune_job_name, TRIAL_ROLE),
        "spec": with_values(spec.template.spec.to_wire(), trial.values),
    }


def cancelled(owner: Owner, name: str, job: TrialJob) -> Object:
    """What ends a trial for good."""
    return _changed(owner, name, job, cancel=True)


def suspended(owner: Owner, name: str, job: TrialJob, *, suspend: bool) -> Object:
    """What suspends a trial, or resumes it."""
    return _changed(owner, name, job, suspend=suspend)


def _changed(owner: Owner, name: str, job: TrialJob, **fields: bool) -> Object:
    # With its version, so that a job that is gone is not created from these fields alone.
    meta = {"name": name, "namespace": owner.namespace, "resourceVersion": job.resource_version}
    return {**_KIND, "metadata": meta, "spec": fields}
