"""What is known of a FineTuneClass when its plan is made."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.finetuneclass import FineTuneClassStatus


@dataclass(frozen=True)
class ObservedFineTuneClass:
    """The class alone; `error` says what does not parse."""

    generation: int
    status: FineTuneClassStatus
    error: str | None
