"""Whether the graders of spec.generate work, spec.split.by can be rendered, and the prompts are another Dataset's."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetSpec
from finetune_grading.evaluation_check import dataset_problem
from finetune_operator.core.conditions import Readiness, stalled


def spec_refusal(name: str, spec: DatasetSpec) -> Readiness | None:
    """Why the spec of the Dataset of this name can't be built."""
    problem = dataset_problem(spec) or _own_prompts(name, spec)
    return None if problem is None else stalled(Reason.INVALID_SPEC, f"{problem} Correct it, and change runId.")


def _own_prompts(name: str, spec: DatasetSpec) -> str | None:
    reference = None if spec.generate is None else spec.generate.prompts.dataset_ref
    if reference is None or reference.name != name:
        return None
    return "spec.generate.prompts.datasetRef names this Dataset itself, which would wait for its own end."
