"""An object of the cache is parsed once, and never mistaken for another one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_api.lifecycle import UnreadableStatusError
from finetune_operator.kube.parsed import KEPT, SPECS_KEPT, Parsed, spec_of, status_of


class Counted:
    """Parses a stored name, and counts how often it does."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, stored: Any) -> str:
        self.calls += 1
        if stored is None:
            raise ValueError("nothing to parse")
        return str(stored["name"])


def test_the_same_object_is_parsed_once_and_its_next_version_again() -> None:
    counted = Counted()
    parsed, stored, newer = Parsed(counted), {"name": "a"}, {"name": "b"}
    assert [parsed(stored), parsed(stored), parsed(newer), parsed(stored)] == ["a", "a", "b", "a"]
    assert counted.calls == 2


def test_an_object_that_took_the_place_of_another_in_memory_is_parsed_itself() -> None:
    """Python gives a new object the identity of one that is gone: those that are remembered are not."""
    parsed = Parsed(Counted())
    assert [parsed({"name": str(number)}) for number in range(4 * KEPT)] == [str(number) for number in range(4 * KEPT)]


def test_only_the_newest_are_kept() -> None:
    counted = Counted()
    parsed, objects = Parsed(counted), [{"name": str(number)} for number in range(KEPT + 1)]
    for one in objects:
        parsed(one)
    parsed(objects[-1])
    assert counted.calls == KEPT + 1
    parsed(objects[0])
    assert counted.calls == KEPT + 2


def test_what_does_not_parse_is_refused_each_time() -> None:
    parsed = Parsed(Counted())
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing to parse"):
            parsed(None)


def test_a_status_is_read_as_ever() -> None:
    parent: dict[str, Any] = {"status": {"phase": "Training", "addedLater": 1}}
    status = status_of(FineTuneJobStatus, parent)
    assert status == FineTuneJobStatus.read(parent["status"])
    assert status_of(FineTuneJobStatus, parent) is status
    assert status_of(FineTuneJobStatus, {}) == FineTuneJobStatus()
    for _ in range(2):
        with pytest.raises(UnreadableStatusError):
            status_of(FineTuneJobStatus, {"status": {"phase": "Unheard"}})


def finetunejob(uid: str, generation: int = 1, epochs: float = 3) -> dict[str, Any]:
    spec = {
        "model": {"uri": "s3://models/base"},
        "adapter": {"type": "LoRA"},
        "dataset": {"training": {"uri": "s3://data/train.jsonl"}},
        "hyperparameters": {"epochs": epochs},
    }
    return {"metadata": {"name": "a", "uid": uid, "generation": generation}, "spec": spec}


def test_every_version_of_an_object_has_the_same_parsed_spec_until_that_changes() -> None:
    """A status write gives the object another version, with an equal spec."""
    first = spec_of(FineTuneJobSpec, finetunejob("u"))
    assert spec_of(FineTuneJobSpec, finetunejob("u")) is first
    assert spec_of(FineTuneJobSpec, finetunejob("u", generation=2, epochs=5)).hyperparameters.epochs == 5
    assert spec_of(FineTuneJobSpec, finetunejob("u")).hyperparameters.epochs == 3, "a late event has the older one"


def test_a_default_that_an_upgrade_of_the_crd_adds_counts_although_the_generation_stays() -> None:
    assert spec_of(FineTuneJobSpec, finetunejob("upgraded")).hyperparameters.epochs == 3
    assert spec_of(FineTuneJobSpec, finetunejob("upgraded", epochs=4)).hyperparameters.epochs == 4


def test_another_object_of_the_same_name_has_a_spec_of_its_own() -> None:
    assert spec_of(FineTuneJobSpec, finetunejob("before", epochs=1)).hyperparameters.epochs == 1
    assert spec_of(FineTuneJobSpec, finetunejob("after", epochs=2)).hyperparameters.epochs == 2


def test_only_the_specs_of_the_newest_objects_are_kept() -> None:
    first = spec_of(FineTuneJobSpec, finetunejob("oldest"))
    for number in range(SPECS_KEPT):
        spec_of(FineTuneJobSpec, finetunejob(f"newer-{number}"))
    again = spec_of(FineTuneJobSpec, finetunejob("oldest"))
    assert again == first
    assert again is not first


def test_a_spec_that_does_not_parse_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ValidationError):
            spec_of(FineTuneJobSpec, {"metadata": {"uid": "wrong", "generation": 1}, "spec": {}})
