"""Whether spec.split.by can be rendered."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetSpec
from finetune_grading.templates import TemplateError, variables
from finetune_operator.core.conditions import Readiness, stalled


def grouping_refusal(spec: DatasetSpec) -> Readiness | None:
    """Why examples can't be kept together by this template."""
    template = spec.split.by
    if template is None:
        return None
    try:
        names = variables(template)
    except TemplateError as error:
        return stalled(Reason.INVALID_SPEC, f"spec.split.by: {error} Correct it, and change runId.")
    if not names or any(not name.startswith("item.") for name in names):
        return stalled(
            Reason.INVALID_SPEC,
            "spec.split.by names a field of each line, such as {{item.document}}: there are no outputs of models here. "
            "Correct it, and change runId.",
        )
    return None
