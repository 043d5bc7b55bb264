"""The models that are tried, the smallest first, as the class lists them when the run begins. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_api.conditions import Reason
from finetune_api.finetuneclass import CatalogueModel, ListedModel
from finetune_api.finetunesweep import MOST_SIZES, FineTuneSweepSpec, SizedModel
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetuneclass.resolve import ResolvedClass

MODEL = "model.uri"
"""The field of a trial's FineTuneJob that differs."""


def candidates(class_: ResolvedClass, spec: FineTuneSweepSpec) -> tuple[SizedModel, ...] | Readiness:
    """Those that the sweep names, or all that fit it; or why there are none."""
    assert spec.smallest_model is not None, "of mode SmallestModel"
    listed = {model.name: model for model in class_.spec.models if model.base is not None}
    names = spec.smallest_model.models
    unknown = [name for name in names if name not in listed]
    if unknown:
        return _refused(
            f"spec.smallestModel.models names {unknown[0]!r}, and FineTuneClass {class_.name!r} lists "
            f"{', '.join(listed) or 'none'} as models to fine-tune (spec.models[].base). Name these, or ask the "
            "platform team to add it"
        )
    for name in names:
        unfit = _why_unfit(listed[name].base, spec)
        if unfit is not None:
            return _refused(f"spec.smallestModel.models names {name!r}, {unfit}. Leave it out, or change the template")
    fitting = [model for model in listed.values() if (model.name in names if names else _fits(model, spec))]
    if not fitting:
        return _refused(
            f"FineTuneClass {class_.name!r} lists no model to fine-tune (spec.models[].base) that takes the template's "
            "adapter.type and hyperparameters.maxLength. Ask the platform team to add some"
        )
    if len(fitting) > MOST_SIZES:
        return _refused(f"FineTuneClass {class_.name!r} lists {len(fitting)} models: name {MOST_SIZES} at most")
    found = tuple(sorted(_sized(fitting), key=lambda one: (one.parameters, one.name)))
    if len(found) > spec.budget.trials:
        needed = f"there are {len(found)} models, each of which may need a trial"
        return _refused(f"spec.budget.trials is {spec.budget.trials}, but {needed}: allow so many, or name fewer")
    return found


def _fits(model: ListedModel, spec: FineTuneSweepSpec) -> bool:
    return _why_unfit(model.base, spec) is None


def _why_unfit(base: CatalogueModel | None, spec: FineTuneSweepSpec) -> str | None:
    """Why the template can't tune it, as the end of a sentence."""
    assert base is not None, "only these are listed"
    training = spec.template.spec
    if training.adapter.type not in base.adapters:
        allowed = ", ".join(base.adapters)
        return f"which may be tuned with {allowed}" if allowed else "which may not be tuned"
    wanted, context = training.hyperparameters.max_length, base.context_tokens
    if wanted is not None and context is not None and wanted > context:
        return f"whose context has {context} tokens, and hyperparameters.maxLength is {wanted}"
    return None


def _sized(models: Iterable[ListedModel]) -> Iterable[SizedModel]:
    for model in models:
        base = model.base
        assert base is not None, "only these are listed"
        yield SizedModel(
            name=model.name, uri=base.uri, parameters=base.parameters, license=base.license, prices=model.prices
        )


def _refused(problem: str) -> Readiness:
    return stalled(Reason.INVALID_SPEC, f"{problem}.")
