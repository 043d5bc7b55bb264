"""What models are asked, whatever kind of run asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from finetune_api.evaluation import Generation


class Asked(Protocol):
    """The settings of a run that its models' outputs depend on."""

    @property
    def dataset_uri(self) -> str:
        """Names the examples in messages."""

    @property
    def generation(self) -> Generation:
        """How outputs are generated."""

    @property
    def allowed_images(self) -> Sequence[str]:
        """Patterns of allowed URLs of images."""

    @property
    def outputs_uri(self) -> str | None:
        """The folder with the outputs that loaded models made in earlier tries; None: none are kept."""
