"""Whether an object still is what the sweep made it as. Pure.

Within a run they hardly change, but one of the name that the sweep has for it may have been made by somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from finetune_api.base import ApiModel
from finetune_api.evaluation import EvaluationSpec
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.finetunesweep import Template, Value, has_values, with_values
from finetune_api.lifecycle import RunLimits, RunSpec

_LATER = frozenset({*RunLimits.model_fields, *RunSpec.model_fields, "run_id", "budget"})
"""What may change while a run goes on: none of it changes what is trained or measured."""


def trains_something_else(found: Mapping[str, Any], template: Template | None, values: Mapping[str, Value]) -> bool:
    """Whether this spec of a FineTuneJob differs from the template, if that is known, with a trial's values."""
    if not has_values(found, values):
        return True
    return template is not None and _differs(FineTuneJobSpec, found, with_values(template.spec.to_wire(), values))


def measures_something_else(found: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether this spec of an Evaluation differs from that which the sweep makes."""
    return _differs(EvaluationSpec, found, made)


def _differs(kind: type[ApiModel], found: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """A class where none is asked for is no difference: a policy of the cluster may set one."""
    later = _LATER if made.get("className") is not None else _LATER | {"class_name"}
    try:
        ours, theirs = kind.from_another_version(made), kind.from_another_version(found)
    except ValidationError:
        return False  # What another version made can't be compared.
    return any(getattr(ours, name) != getattr(theirs, name) for name in kind.model_fields if name not in later)
