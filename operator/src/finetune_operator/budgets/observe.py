"""Reading what budgets need: the ledger of a namespace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.budgets.ledger import ledger_labels, month_of, pod_time
from finetune_operator.budgets.observed import ObservedBudget
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import CONFIG_MAPS, Object

log = structlog.get_logger(__name__)

_SECONDS = re.compile("[0-9]{1,18}")
"""Invalid entries in a ledger must not stop the namespace's jobs; its own job overwrites it."""


async def observe_budget(
    reader: Reader,
    ledger_namespace: str,
    owner: Owner,
    class_: ResolvedClass | Readiness,
    status: FineTuneJobStatus,
    pods: Sequence[Object],
) -> ObservedBudget | None:
    """Read what budgets need; `pods` are all of the object's, whatever their labels say. None without accelerators."""
    resolved = class_ if isinstance(class_, ResolvedClass) and class_.spec.accelerator is not None else None
    times = tuple(time for pod in pods if (time := pod_time(pod, _other_resources(resolved))) is not None)
    if resolved is None and not times:
        return None
    month = month_of(datetime.now(UTC))
    usage = status.usage
    is_counted = usage is not None and (usage.month, usage.class_name) == (month, status.class_name)
    starts_nothing = status.phase in ("Succeeded", "Failed", "Cancelled") or (status.phase == "Training" and is_counted)
    is_limited = resolved is not None and resolved.spec.limits.accelerator_hours_per_month is not None
    if resolved is None or starts_nothing or not (is_limited or times):
        return ObservedBudget(ledger_namespace, times, month)
    found = await reader.list(CONFIG_MAPS, ledger_namespace, ledger_labels(resolved.name, owner.namespace, month))
    entries = [entry for item in found for entry in (item.get("data") or {}).items()]
    ledger = {uid: int(seconds) for uid, seconds in entries if _SECONDS.fullmatch(seconds)}
    if len(ledger) < len(entries):
        odd = [uid for uid, _ in entries if uid not in ledger]
        log.warning("the ledger has entries that are not numbers", namespace=owner.namespace, entries=odd[:10])
    return ObservedBudget(ledger_namespace, times, month, resolved.name, ledger)


def _other_resources(class_: ResolvedClass | None) -> frozenset[str]:
    accelerator = None if class_ is None else class_.spec.accelerator
    return frozenset(one.resource_name for one in accelerator.additional_resources) if accelerator else frozenset()
