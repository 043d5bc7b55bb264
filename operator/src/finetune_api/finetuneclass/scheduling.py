"""Where the Pods of a class may run."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import LONGEST_SECONDS, ApiModel, cel
from finetune_api.kubernetes_types import SET, LabelKey, Labels, LabelValue, QueueName, SubdomainName


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


class NodeRequirement(ApiModel):
    """core/v1 NodeSelectorRequirement, without numeric comparisons."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                "values belong to In and NotIn, which need some, not to Exists and DoesNotExist",
                "values",
            )
        )
    )

    key: LabelKey = Field(description="Key of a node label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In, NotIn: the label's value is, or is not, one of `values`. Exists, DoesNotExist: the node has, "
        "or does not have, the label."
    )
    values: list[LabelValue] = Field(
        default=[], max_length=32, json_schema_extra=SET, description="Values for In and NotIn."
    )


class RoleScheduling(ApiModel):
    """Scheduling constraints for the Pods of one role."""

    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    node_requirements: list[NodeRequirement] = Field(
        default=[],
        max_length=16,
        description="Requirements that a node must meet, all of them (required node affinity).",
    )
    tolerations: list[Toleration] = Field(default=[], max_length=32, description="Taints that the Pods tolerate.")
    priority_class_name: SubdomainName | None = Field(None, description="Name of the PriorityClass for the Pods.")
    runtime_class_name: SubdomainName | None = Field(None, description="Name of the RuntimeClass for the Pods.")


class GangTopology(ApiModel):
    """Placement of the Pods of one attempt close to each other."""

    topology_key: LabelKey = Field(
        description="Key of the node label whose value they share: topology.kubernetes.io/zone."
    )
    policy: Literal["Preferred", "Required"] = Field(
        "Preferred",
        description="Preferred: where that is possible. Required: only there. The first Pod is placed anywhere, so a "
        "value that has too few free nodes holds its accelerators until the attempt fails.",
    )


class Scheduling(RoleScheduling):
    """Scheduling constraints, the queue, and the placement of several nodes."""

    queue_name: QueueName | None = Field(
        None,
        description="Name of the Kueue LocalQueue for Jobs that train, or evaluate a model that they load.",
    )
    gang_topology: GangTopology | None = Field(
        None,
        description="Places training Pods of several nodes in one zone, rack or block. Omitted: on any nodes.",
    )
