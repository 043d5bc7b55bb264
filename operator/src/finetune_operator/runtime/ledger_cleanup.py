"""Deletes the ledgers of months that are over."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_operator.budgets.ledger import ALL_LEDGERS, MONTH_LABEL, MONTHS_KEPT, first_moment, month_of
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import CONFIG_MAPS


async def remove_old_ledgers(kube: Kube, ledger_namespace: str, now: datetime) -> None:
    """Delete the ledgers that neither a budget nor a late count needs any more."""
    oldest = month_of(now)
    for _ in range(MONTHS_KEPT - 1):
        oldest = month_of(first_moment(oldest) - timedelta(days=1))
    for item in await kube.list(CONFIG_MAPS, ledger_namespace, ALL_LEDGERS):
        metadata = item["metadata"]
        if metadata["labels"].get(MONTH_LABEL, oldest) < oldest:
            await kube.delete(CONFIG_MAPS, ledger_namespace, metadata["name"], metadata["uid"])
