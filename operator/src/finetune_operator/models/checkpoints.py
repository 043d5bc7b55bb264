"""The checkpoints of a FineTuneJob as models: those that its newest run has kept, once that is over.

While a run goes on, it deletes older checkpoints; a run that is over deletes none.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.base import MOST_STEPS
from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import resolve_checkpoints
from finetune_api.evaluation import CheckpointChoices
from finetune_api.evaluation.models import ALL
from finetune_api.finetunejob import Best, CheckpointStatus, FineTuneJobSpec, FineTuneJobStatus
from finetune_api.pod_contracts.run import CheckpointSource, ModelSource
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.models.resolve import ResolvedModel, Undecided, trained_on, without_result

_STEPS = range(MOST_STEPS + 1)
"""Those that a run can have; what a Pod reported may be forged."""
ENDED_EARLY = frozenset({"Failed", "Cancelled"})


def checkpoint_models(
    name: str, spec: FineTuneJobSpec, status: FineTuneJobStatus, choice: CheckpointChoices
) -> dict[int, ResolvedModel] | Readiness:
    """The chosen checkpoints of a job by step, ascending; for All every one, else one. Or what they wait for."""
    waiting = without_result(name, spec, status)
    is_over = status.run_id == spec.run_id and status.phase in ENDED_EARLY
    if waiting is not None and (isinstance(waiting, Undecided) or not is_over):
        return waiting
    kept = sorted((one for one in status.checkpoints if one.step in _STEPS), key=lambda one: one.step)
    best = resolve_checkpoints(spec.checkpoints, spec.hyperparameters, spec.method).best
    chosen = _chosen(kept, choice, best)
    if not chosen:
        return stalled(Reason.REFERENCE_NOT_FOUND, _why_none(name, kept, choice))
    start = _starting_model(spec, status)
    base, data = ModelSource(uri=start.uri), trained_on(name, status)
    return {
        one.step: ResolvedModel(start.model_copy(update={"checkpoint": _source(one, spec)}), base, data)
        for one in chosen
    }


def _chosen(
    kept: Sequence[CheckpointStatus], choice: CheckpointChoices, best: Best | None
) -> Sequence[CheckpointStatus]:
    """As the trainer chooses the result: of equal losses the earlier, of equal rewards the later."""
    if choice == ALL:
        return kept
    if choice == "Last":
        return kept[-1:]
    if choice == "Best":
        sign = -1 if best is not None and best.goal == "Maximize" else 1
        order = -1 if best is not None and best.of_rewards else 1
        measured = [(sign * one.metric, order * one.step, one) for one in kept if one.metric is not None]
        return [min(measured, key=lambda found: found[:2])[2]] if measured else []
    return [one for one in kept if one.step == choice]


def _source(checkpoint: CheckpointStatus, spec: FineTuneJobSpec) -> CheckpointSource:
    return CheckpointSource(
        uri=checkpoint.uri, step=checkpoint.step, digest=checkpoint.digest, adapter=spec.adapter.to_wire()
    )


def _starting_model(spec: FineTuneJobSpec, status: FineTuneJobStatus) -> ModelSource:
    found = status.starting_model
    if found is None:
        return ModelSource(uri=spec.model.uri or "")
    return ModelSource(uri=found.uri, adapter_uri=found.adapter_uri, digest=found.digest)


def _why_none(name: str, kept: Sequence[CheckpointStatus], choice: CheckpointChoices) -> str:
    if not kept:
        return f"FineTuneJob {name!r} has kept no checkpoint. Change its runId to train again."
    steps = ", ".join(str(one.step) for one in kept)
    if choice == "Best":
        return (
            f"FineTuneJob {name!r} has no best checkpoint, because it sets no checkpoints.best. Choose Last, or "
            f"one of the steps that it has kept: {steps}."
        )
    return (
        f"FineTuneJob {name!r} has no checkpoint of step {choice}. It has kept those of the steps {steps} (its "
        "checkpoints.keep). Choose one of these, Best or Last."
    )
