"""Whether examples that judge a model are also among those that it is trained on, or chosen by. Pure.

By their places alone: a file with another name may have the same lines, which only the trainer sees (`prepare.leaks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from finetune_api.dataset_reference import DatasetRef
from finetune_api.finetunejob import TrainingData, ValidationData
from finetune_api.finetunesweep import FineTuneSweepSpec, GraderScore

_FOLDER = "/"


def leak(spec: FineTuneSweepSpec, measured: GraderScore) -> str | None:
    """The fault of such examples, with the field that has them; None: there are none."""
    dataset, evaluated = spec.template.spec.dataset, measured.template.spec.dataset
    training = list(_places(dataset.training))
    validation = [] if dataset.validation is None else list(_places(dataset.validation))
    compared, held_out = _place(evaluated.uri, evaluated.dataset_ref), None
    if measured.holdout is not None:
        held_out = _place(measured.holdout.uri, measured.holdout.dataset_ref)
    field = "spec.objective.evaluation"
    if _is_in(compared, training):
        return f"{field}.template.spec.dataset: the trials are trained on {compared}. Evaluate them on other examples."
    if _is_in(held_out, training):
        return f"{field}.holdout: the trials are trained on {held_out}. Name examples that nothing else uses."
    if _is_in(held_out, [*validation, *([] if compared is None else [compared])]):
        return f"{field}.holdout: the trials are compared on {held_out}. Name examples that nothing else uses."
    return None


def _places(source: TrainingData | ValidationData) -> Iterator[str]:
    if found := _place(source.uri, source.dataset_ref):
        yield found
    yield from source.uris or []


def _place(uri: str | None, split: DatasetRef | None) -> str | None:
    return uri if split is None else f"split {split.split} of Dataset {split.name!r}"


def _is_in(place: str | None, places: Iterable[str]) -> bool:
    """Whether it is one of them, below a folder among them, or a folder that one of them is below."""
    return place is not None and any(
        place == other or _is_below(place, other) or _is_below(other, place) for other in places
    )


def _is_below(place: str, folder: str) -> bool:
    return folder.endswith(_FOLDER) and place.startswith(folder)
