"""spec.runId: another one starts a new run, and so does another model, or a changed spec with the same runId."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.evaluation import MOST_WARNINGS, EvaluationSpec, EvaluationStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.candidates import candidate_digests, models_to_evaluate
from finetune_operator.evaluation.observed import EvaluationPlan, ObservedEvaluation
from finetune_operator.evaluation.pinned_revision import revision_to_read, trained_on_another_revision
from finetune_operator.evaluation.run_identity import is_same_run, run_digest
from finetune_operator.evaluation.scores.gates import too_few_examples


def hide_earlier_run(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Show nothing of the run before as of the suspended one: it may be asked for again, so it keeps its end."""
    if not observed.spec.suspend or plan.status.run_id in (None, observed.spec.run_id):
        return plan
    return replace(plan, status=plan.status.model_copy(update={"progress": None, "summary": None}))


def begin_run(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Forget the previous run, and start the new one."""
    spec, models, revision = observed.spec, models_to_evaluate(observed), revision_to_read(observed)
    if isinstance(models, Readiness) or is_same_run(observed):
        return plan
    assert not isinstance(revision, Readiness), "wait_for_dataset decides before"
    status = EvaluationStatus(
        conditions=plan.status.conditions,
        run_id=spec.run_id,
        run_digest=run_digest(spec),
        dataset_revision=revision,
        candidate_digests=candidate_digests(models),
        start_time=whole_seconds(observed.server_times.no_earlier(now)),
        # Before anything is paid for; too few, if the number of examples is known already.
        warnings=[
            *trained_on_another_revision(observed, revision),
            *too_few_examples(spec.gates, _known_examples(spec)),
        ][:MOST_WARNINGS],
    )
    return replace(plan, status=status.over(plan.status))


def _known_examples(spec: EvaluationSpec) -> dict[str, int]:
    """How many examples there are at most, by grader and benchmark, where the spec limits them."""
    limits = {grader.name: spec.dataset.max_examples for grader in spec.graders}
    limits |= {benchmark.name: benchmark.max_examples for benchmark in spec.benchmarks}
    return {name: limit for name, limit in limits.items() if limit is not None}
