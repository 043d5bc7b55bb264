"""The numbers in a model's files: read again only if a loss is not finite, which they may cause instead of the data.

A run whose loss is finite pays nothing for it; nor do weights that are never met (rows of tokens that no text has).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource
from finetune_trainer.model.folders import weight_files
from finetune_trainer.model.loading import LocalModel
from finetune_trainer.process.failures import DiagnosedError

CHUNK = 2**24
"""Numbers that are checked at a time, to keep the memory beyond the file's own pages small."""


def refuse_infinite_weights(local: LocalModel, source: ModelSource) -> None:
    """Raises DiagnosedError (ModelInvalid) naming the first weight that holds NaN or infinity, in the files as they
    came: the weights in memory may be trained ones."""
    folders = [(local.base, source.uri)]
    if local.adapter is not None:
        folders.append((local.adapter, str(source.adapter_uri)))
    for folder, uri in folders:
        for file in sorted(weight_files(path.name for path in folder.iterdir())):
            for name, count, size in _infinite_weights(folder / file):
                raise DiagnosedError(
                    Reason.MODEL_INVALID,
                    f"The weight {name} in {file} of {uri} is broken: {count} of its {size} numbers are NaN or "
                    "infinite, so the loss became NaN. Upload the model again from an intact copy.",
                )


def _infinite_weights(file: Path) -> Iterator[tuple[str, int, int]]:
    """Each weight with NaN or infinity: its name, how many of its numbers they are, and how many it has."""
    with safe_open(file, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 (it is not a mapping)
            numbers = weights.get_tensor(name).flatten()
            if not numbers.is_floating_point():
                continue
            count = sum(_count_infinite(part) for part in numbers.split(CHUNK))
            if count:
                yield name, count, len(numbers)


def _count_infinite(numbers: torch.Tensor) -> int:
    """A sum costs a twentieth of checking each number, and is not finite if one of them is not."""
    if numbers.element_size() == 1:  # float8, which has no arithmetic
        numbers = numbers.float()
    return 0 if torch.isfinite(numbers.sum()) else int((~torch.isfinite(numbers)).sum())
