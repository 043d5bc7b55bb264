"""Reads everything that the plan of a FineTuneSweep depends on, once."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from datetime import UTC, datetime

from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner, is_controlled_by, owner_of
from finetune_operator.finetuneclass.observe import observe_class
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunesweep.objects import evaluation_name, evaluation_spec, holdout_spec
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, TrialJob
from finetune_operator.finetunesweep.refusal import search_refusal
from finetune_operator.finetunesweep.smallest_model.candidates import candidates
from finetune_operator.finetunesweep.trials import running, stopping
from finetune_operator.finetunesweep.views.evaluation import on_holdout, with_evaluation
from finetune_operator.finetunesweep.views.job import view
from finetune_operator.kube.parsed import spec_of, status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import EVALUATIONS, FINE_TUNE_JOBS, Object, Resource


async def observe(reader: Reader, parent: Object, *, trainer_image: str | None) -> ObservedFineTuneSweep:
    """Read everything. Raises pydantic.ValidationError if the spec does not parse, and UnreadableStatusError.

    The jobs of trials that have ended are not read: what counts of them is in the status.
    """
    owner = owner_of(parent)
    spec, status = spec_of(FineTuneSweepSpec, parent), status_of(FineTuneSweepStatus, parent)
    is_over = status.run_id == spec.run_id and status.completion_time is not None
    is_new = status.run_id != spec.run_id or not status.trials
    if not is_over and spec.search is not None and spec.search.algorithm != "Grid":
        # Its import takes a second or more, in which other objects must not wait.
        await asyncio.to_thread(importlib.import_module, "optuna")
    class_ = None if is_over else await observe_class(reader, spec.template.spec.class_name, trainer_image)
    refusal = None
    if is_new and not is_over:
        # Schemas of graders are untrusted and may take long to check: other objects must not wait for them.
        refusal = await asyncio.to_thread(search_refusal, spec)
    models = None
    if spec.smallest_model is not None and class_ is not None and (is_new or not status.models):
        models = class_ if isinstance(class_, Readiness) else candidates(class_, spec)
    return ObservedFineTuneSweep(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        jobs=await _jobs(reader, owner, spec, status),
        holdout=None if is_over else await _holdout(reader, owner, spec, status),
        models=models,
        refusal=refusal or (models if isinstance(models, Readiness) else None),
        accelerators=None if class_ is None else _accelerators(class_, spec),
    )


async def _jobs(
    reader: Reader, owner: Owner, spec: FineTuneSweepSpec, status: FineTuneSweepStatus
) -> Mapping[str, TrialJob]:
    trials = {trial.fine_tune_job_name: trial for trial in (*running(status), *stopping(status))}
    found = await asyncio.gather(*(_child(reader, FINE_TUNE_JOBS, owner, name) for name in trials))
    ours = {name: body for name, body in zip(trials, found, strict=True) if body is not None}
    # Before another runId begins, the trials are those of the run before, whatever that one trained and measured.
    is_this_run, now = status.run_id == spec.run_id, datetime.now(UTC)
    template, measured = spec.template if is_this_run else None, spec.measured if is_this_run else None
    jobs = {name: view(body, trials[name], template, now) for name, body in ours.items()}
    if is_this_run and measured is None:
        return jobs
    for name in [name for name, job in jobs.items() if job.phase == "Succeeded"]:
        # By its name: a label may be removed by anybody.
        body = await _child(reader, EVALUATIONS, owner, evaluation_name(owner, status.run_number, trials[name].number))
        made = None if measured is None else evaluation_spec(spec, measured, name)
        jobs[name] = with_evaluation(jobs[name], body, "" if measured is None else measured.grader, made, now)
    return jobs


async def _holdout(
    reader: Reader, owner: Owner, spec: FineTuneSweepSpec, status: FineTuneSweepStatus
) -> TrialJob | None:
    found = status.holdout
    trial = None if found is None else next((one for one in status.trials if one.number == found.number), None)
    if found is None or trial is None or status.completion_time is not None:
        return None
    body = await _child(reader, EVALUATIONS, owner, found.evaluation_name)
    if body is None:
        return None
    is_this_run, now = status.run_id == spec.run_id, datetime.now(UTC)
    job = await _child(reader, FINE_TUNE_JOBS, owner, trial.fine_tune_job_name)
    trained = None if job is None else view(job, trial, spec.template if is_this_run else None, now)
    measured = spec.measured if is_this_run else None
    examples, made = None if measured is None else measured.holdout, None
    if measured is not None and examples is not None:
        made = holdout_spec(spec, measured, examples, trial.fine_tune_job_name)
    return on_holdout(trial, trained, body, "" if measured is None else measured.grader, made, now)


async def _child(reader: Reader, resource: Resource, owner: Owner, name: str) -> Object | None:
    """The object of this name, if it is the sweep's."""
    body = await reader.get(resource, owner.namespace, name)
    return body if body is not None and is_controlled_by(body, owner.uid) else None


def _accelerators(class_: ResolvedClass | Readiness, spec: FineTuneSweepSpec) -> int | Readiness | None:
    """How many accelerators a trial has, also without a limit of their hours: one may be set later.

    If that is unknown: why, or None where nothing is limited.
    """
    training = spec.template.spec
    if isinstance(class_, Readiness):
        return None if spec.budget.accelerator_hours is None else class_
    accelerator = class_.spec.accelerator
    return 0 if accelerator is None else accelerator.count_per_node * training.parallelism.nodes
