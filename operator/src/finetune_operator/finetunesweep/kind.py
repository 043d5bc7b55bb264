"""The FineTuneSweep kind: how the runtime observes and plans it."""

from __future__ import annotations

from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.kind_definition import Body, Kind, OwnedResource
from finetune_operator.core.references import ObjectKey, class_reference
from finetune_operator.environment import Environment
from finetune_operator.finetunesweep.observe import observe
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep
from finetune_operator.finetunesweep.plan import plan
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import EVALUATIONS, FINE_TUNE_JOBS, FINE_TUNE_SWEEPS, Object
from finetune_operator.metrics.sweep_metrics import SweepMetrics


def finetunesweep(environment: Environment) -> Kind:
    """It owns FineTuneJobs and Evaluations."""

    async def observe_sweep(reader: Reader, parent: Object) -> ObservedFineTuneSweep:
        return await observe(reader, parent, trainer_image=environment.trainer_image)

    return Kind(
        FINE_TUNE_SWEEPS,
        FineTuneSweepStatus,
        observe_sweep,
        plan,
        owns=(OwnedResource(FINE_TUNE_JOBS), OwnedResource(EVALUATIONS)),
        references=_references,
        metrics=(SweepMetrics(),),
    )


def _references(body: Body) -> frozenset[ObjectKey]:
    """The class that the trials run with, which a limit of accelerator hours depends on."""
    template = body.get("spec", {}).get("template", {})
    return class_reference({"spec": template.get("spec", {})})
