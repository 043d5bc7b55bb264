"""What a training measured last, the most telling first."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_view.fields import Fields

_MEASURES = (
    ("reward", "reward"),
    ("validation reward", "validReward"),
    ("loss", "loss"),
    ("validation", "evalLoss"),
)


def measures(progress: Fields) -> Iterator[tuple[str, float]]:
    """Names and numbers of a job's progress. With RFT the rewards, as the loss says nothing there."""
    for label, path in _MEASURES:
        if (number := progress.number(path)) is not None:
            yield label, number
