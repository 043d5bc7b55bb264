"""Where the Pods of a class may run."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import LONGEST_SECONDS, ApiModel, cel
from finetune_api.kubernetes_types import LabelKey, Labels, LabelValue, QueueName, SubdomainName


class Toleration(ApiModel):
    """core/v1 Toleration."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                "operator must be Exists if there is no key",
                "operator",
            ),
            (
                "!has(self.value) || !has(self.operator) || self.operator == 'Equal'",
                "value is only allowed with operator Equal",
                "value",
            ),
            (
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds is only allowed with effect NoExecute",
                "tolerationSeconds",
            ),
        )
    )

    key: LabelKey | None = Field(None, description="Key of the taint. Omitted, with operator Exists: every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(
        None, description="Exists: matches every value of the taint. Equal: matches only `value`. Omitted: Equal."
    )
    value: LabelValue | None = Field(None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Omitted: every effect."
    )
    toleration_seconds: int | None = Field(
        None,
        ge=0,
        le=LONGEST_SECONDS,
        description="For effect NoExecute: how long the taint is tolerated. Omitted: forever.",
    )


class RoleScheduling(ApiModel):
    """Scheduling constraints for the Pods of one role."""

    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field(default=[], max_length=32, description="Taints that the Pods tolerate.")
    priority_class_name: SubdomainName | None = Field(None, description="Name of the PriorityClass for the Pods.")
    runtime_class_name: SubdomainName | None = Field(None, description="Name of the RuntimeClass for the Pods.")


class Scheduling(RoleScheduling):
    """Scheduling constraints and the queue."""

    queue_name: QueueName | None = Field(None, description="Name of the Kueue LocalQueue for training Jobs.")
