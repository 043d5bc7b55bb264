"""What tells how a training goes: the losses of most methods, the rewards of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number of the Trainer's log."""

    name: str
    """In events, in OpenAI's words."""
    key: str
    """In the log; that of an evaluation begins with `eval_`."""
    rises: bool = False
    """Whether more is better."""

    @property
    def of_evaluations(self) -> bool:
        """Whether evaluations measure it, not steps."""
        return self.key.startswith("eval_")


LOSSES = (Measure("training loss", "loss"), Measure("validation loss", "eval_loss"))


def measured(measures: Sequence[Measure], log: Mapping[str, float]) -> dict[Measure, float]:
    """The values of those measures that an entry of the Trainer's log has."""
    return {measure: log[measure.key] for measure in measures if measure.key in log}
