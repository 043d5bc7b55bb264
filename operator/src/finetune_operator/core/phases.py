"""status.phase of a kind: it follows from the reason of its conditions, by one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import Readiness

Phase = TypeVar("Phase", bound=str)


@dataclass(frozen=True)
class Phases(Generic[Phase]):
    """The table of one kind.

    `of_reason`: the phases that reasons have. `stays`: the reasons that leave the phase as it is. Every other reason is
    a diagnosis, and so is any reason while Stalled is True: a Pod may report one of this name. `failed`: the phase
    while Failed is True. `stalled`: that while Stalled is True; None: that of what the object does meanwhile.
    """

    of_reason: Mapping[Reason, Phase]
    stays: frozenset[Reason] = frozenset()
    failed: Phase | None = None
    stalled: Phase | None = None

    def of(self, readiness: Readiness, meanwhile: Reason, before: Phase) -> Phase:
        """The phase that goes with a readiness.

        `meanwhile`: what the object does, one of `of_reason`, if the reason is a diagnosis; `before`: the phase now.
        """
        if readiness.failed and self.failed is not None:
            return self.failed
        if readiness.stalled and self.stalled is not None:
            return self.stalled
        if readiness.reason in self.stays:
            return before
        is_diagnosis = readiness.stalled or readiness.reason not in self.of_reason
        return self.of_reason[meanwhile if is_diagnosis else readiness.reason]
