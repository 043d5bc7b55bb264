"""Whether a template can have the values that are searched, before a trial is started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from finetune_api.base import problems
from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationSpec
from finetune_api.finetunesweep import FineTuneSweepSpec, GraderScore, Parameter, accepts, is_number, set_value
from finetune_grading.evaluation_check import grading_problem
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetunesweep.leaks import leak
from finetune_operator.finetunesweep.learning_curve.verdict import curve_values
from finetune_operator.finetunesweep.objects import evaluation_spec

_BATCH_SIZE = "hyperparameters.batchSize"
_SEED = "hyperparameters.seed"
_EARLY_STOPPING = "hyperparameters.earlyStopping."


def search_refusal(spec: FineTuneSweepSpec) -> Readiness | None:
    """Why the search can't begin; None if it can."""
    measured = spec.measured
    if measured is not None:
        problem = _measuring_problem(spec, measured)
        if problem is not None:
            place = "spec.objective.evaluation.template"
            return stalled(Reason.INVALID_SPEC, f"{place}: {problem} Change it, and spec.runId.")
        leaked = leak(spec, measured)
        if leaked is not None:
            return stalled(Reason.INVALID_SPEC, f"{leaked} Change spec.runId, too.")
    if spec.smallest_model is not None:
        return None  # what the class lists decides (smallest_model/candidates.py)
    if spec.search is None:
        return _curve_refusal(spec)
    template = spec.template.spec.to_wire()
    for position, parameter in enumerate(spec.search.parameters):
        fault = next(_faults(spec, template, parameter), None)
        if fault is not None:
            place = f"spec.search.parameters[{position}] ({parameter.path})"
            return stalled(Reason.INVALID_SPEC, f"{place}: {fault}. Change it, and spec.runId.")
    return None


def _curve_refusal(spec: FineTuneSweepSpec) -> Readiness | None:
    needed = len(curve_values(spec))
    if needed <= spec.budget.trials:
        return None
    message = f"spec.budget.trials is {spec.budget.trials}, but the learning curve needs {needed}. Raise it."
    return stalled(Reason.INVALID_SPEC, message)


def _measuring_problem(spec: FineTuneSweepSpec, measured: GraderScore) -> str | None:
    try:
        evaluation = EvaluationSpec.from_wire(evaluation_spec(spec, measured, "trial"))
    except ValidationError as error:
        return f"{problems(error)}."
    return grading_problem(evaluation)


def _faults(spec: FineTuneSweepSpec, template: dict[str, Any], parameter: Parameter) -> Iterator[str]:
    own = set_value(template, parameter.path)
    if own is not None:
        yield f"template.spec.{parameter.path} is {own!r} already: a field is either set or searched"
    if parameter.bounds is not None and not is_number(parameter.path):
        yield "the field takes no numbers; name its texts instead of a range"
        return
    for value in parameter.extremes():
        refused = accepts(template, parameter.path, value)
        if refused is None and isinstance(value, str) and is_number(parameter.path):
            refused = "The field takes numbers: name numbers instead of texts"  # "0.1" becomes a number only here
        if refused is not None:
            yield f"{value!r} is not possible. {refused}"
    yield from _batch_faults(spec, parameter)
    validation = spec.template.spec.dataset.validation
    if parameter.path.startswith(_EARLY_STOPPING) and validation is None:
        yield "earlyStopping needs dataset.validation"
    is_compared = spec.measured is None or spec.prune is not None
    if is_compared and parameter.path == _SEED and validation is not None and validation.split_percent is not None:
        yield (
            "the seed also chooses the examples that dataset.validation.splitPercent holds out, so trials would be "
            "compared on different ones; give validation files of their own, or set one seed in the template"
        )


def _batch_faults(spec: FineTuneSweepSpec, parameter: Parameter) -> Iterator[str]:
    parallelism = spec.template.spec.parallelism
    processes = parallelism.nodes * parallelism.processes_per_node
    if parameter.path != _BATCH_SIZE or processes == 1:
        return
    if parameter.bounds is not None:
        yield f"name numbers, all of them multiples of parallelism.nodes * processesPerNode, {processes}"
    for value in parameter.values:
        if isinstance(value, int) and value % processes != 0:
            yield f"{value} is no multiple of parallelism.nodes * processesPerNode, {processes}"
