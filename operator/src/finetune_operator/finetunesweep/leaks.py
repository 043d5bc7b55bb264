"""Whether examples that judge a model are also among those that it is trained on, or chosen by. Pure.

By their places alone: a file with another name may have the same lines, which only the trainer sees (`prepare.leaks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from finetune_api.dataset_reference import DatasetRef
from finetune_api.finetunejob import TrainingData, ValidationData
from finetune_api.finetunesweep import FineTuneSweepSpec, GraderScore
from finetune_api.sources import match_glob

_FOLDER = "/"
_REPOSITORY = re.compile(r"hf://datasets/[^/]+/[^/]+")


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
    """Whether one file is read by this place and by one of them: the same, or a folder or a glob with the other.

    Of two globs only equal ones count: `train-*` and `test-*` of one folder have no file in common.
    """
    return place is not None and any(
        one == other or _reads(one, other) or _reads(other, one)
        for one, other in ((_whole(place), _whole(each)) for each in places)
    )


def _reads(wide: str, place: str) -> bool:
    if wide.endswith(_FOLDER):
        return place.startswith(wide)
    return "*" in wide and "*" not in place and match_glob(wide, place)


def _whole(place: str) -> str:
    """The place; of a repository without a path, the folder that it is read as."""
    return place + _FOLDER if _REPOSITORY.fullmatch(place) else place
