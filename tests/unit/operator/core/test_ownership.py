"""Children: their names and their owners."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetunesweep.spec import MOST_TRIALS
from finetune_operator.core.ownership import (
    Owner,
    child_name,
    is_controlled_by,
    metadata,
    owner_key,
    owner_of,
    owner_selector,
)
from finetune_operator.core.references import ObjectKey
from finetune_operator.finetunejob.objects import preflight_pod_name, train_job_name
from finetune_operator.finetunesweep.objects import evaluation_name, holdout_name, trial_name
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.states import OWNER

KINDS = frozenset({"FineTuneJob", "Evaluation", "ModelDeployment"})
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1035: a Service's name, the strictest of all; it fits a Job, a ConfigMap and a host name too."""

parent_names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True)


@given(parent_names, st.integers(1, 10**6), st.text(min_size=1, max_size=63))
def test_every_child_name_is_a_dns_label_with_room_for_the_last_pods_index(name: str, number: int, run_id: str) -> None:
    owner = Owner("FineTuneJob", "team-a", name, "uid")
    assert SERVICE_NAME.fullmatch(preflight_pod_name(owner, run_id, number))
    assert SERVICE_NAME.fullmatch(f"{train_job_name(owner, run_id, number)}-1023")


@given(parent_names, st.integers(1, 10**6), st.integers(1, MOST_TRIALS))
def test_every_trial_of_a_sweep_has_names_that_the_api_server_takes(name: str, run: int, number: int) -> None:
    """A FineTuneJob's and an Evaluation's name has at most 63 characters: other objects refer to it."""
    owner = Owner("FineTuneSweep", "team-a", name, "uid")
    for of in (trial_name, evaluation_name, holdout_name):
        assert SERVICE_NAME.fullmatch(of(owner, run, number))
        assert SERVICE_NAME.fullmatch(of(Owner("FineTuneSweep", "team-a", "a" * 63, "uid"), run, MOST_TRIALS))


@given(parent_names, st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=3), st.integers(0, 9)), unique=True))
def test_a_name_says_who_and_what_it_is_of(name: str, identities: list[tuple[str, str, int]]) -> None:
    names = {
        child_name(Owner("FineTuneJob", "team-a", name, uid), role, run_id, number)
        for role, run_id, number in identities
        for uid in ("first", "second")
    }
    assert len(names) == 2 * len(identities)


def test_the_same_identity_gives_the_same_name() -> None:
    assert child_name(OWNER, "train", "1", 1) == child_name(OWNER, "train", "1", 1)
    assert child_name(OWNER, "train", "1", 1).startswith("router-train-")


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"finetune.dev/owner": "FineTuneJob/router"}, ObjectKey("FineTuneJob", "team-a", "router")),
        ({"finetune.dev/owner": "Evaluation/a.b"}, ObjectKey("Evaluation", "team-a", "a.b")),
        ({}, None),
        ({"finetune.dev/owner": "router"}, None),
        ({"finetune.dev/owner": "FineTuneJob/"}, None),
        ({"finetune.dev/owner": "Secret/router"}, None),
        ({"finetune.dev/owner": "FineTuneClass/default"}, None),
        ({"finetune.dev/owner": "FineTuneJob/../../../team-b/finetunejobs/theirs"}, None),
        ({"finetune.dev/owner": "FineTuneJob/router/status"}, None),
    ],
)
def test_a_childs_annotation_names_its_parent_and_nothing_else(
    annotations: dict[str, str], expected: ObjectKey | None
) -> None:
    """Any user may write such an annotation on a Pod of theirs: it must not reach beyond our kinds."""
    meta = {"namespace": "team-a", "annotations": annotations}
    assert (
        owner_key({"metadata": {**meta, "ownerReferences": [controlled_by("Job", "router-train-1", "u")]}}, KINDS)
        == expected
    )
    assert owner_key({"metadata": meta}, KINDS) is None, "what nobody controls was made by hand"


@pytest.mark.parametrize(
    ("controller", "expected"),
    [
        (controlled_by("FineTuneJob", "router", "u"), OWNER.key),
        (controlled_by("FineTuneJob", "other", "u"), None),
        (controlled_by("Evaluation", "router", "u"), None),
        (controlled_by("FineTuneClass", "cpu", "u"), OWNER.key),
        ({**controlled_by("FineTuneJob", "router", "u"), "controller": False}, None),
    ],
    ids=["its own", "another's", "another kind's", "what outlives it", "no controller"],
)
def test_a_child_of_one_parent_does_not_wake_another(controller: dict[str, Any], expected: ObjectKey | None) -> None:
    meta = {
        "namespace": "team-a",
        "annotations": {"finetune.dev/owner": "FineTuneJob/router"},
        "ownerReferences": [controller],
    }
    assert owner_key({"metadata": meta}, KINDS) == expected


def test_a_child_is_owned_labelled_and_found_by_its_owners_uid() -> None:
    meta = metadata(OWNER, "router-train-1", "train")
    assert owner_selector(OWNER.uid).items() <= meta["labels"].items()
    assert owner_key({"metadata": meta}, KINDS) == OWNER.key
    (reference,) = meta["ownerReferences"]
    assert (reference["kind"], reference["uid"], reference["controller"]) == ("FineTuneJob", OWNER.uid, True)
    assert is_controlled_by({"metadata": meta}, OWNER.uid)
    assert not is_controlled_by({"metadata": meta}, "of-a-successor")


@pytest.mark.parametrize(
    ("by", "sweep"), [(Owner("FineTuneSweep", "team-a", "router", "5a3c"), "router"), (OWNER, None), (None, None)]
)
def test_a_trial_knows_its_sweep(by: Owner | None, sweep: str | None) -> None:
    made = {"namespace": "team-a", "name": "own"} if by is None else metadata(by, "trial", "trial")
    parent = {"kind": "FineTuneJob", "metadata": {**made, "uid": "7f0e"}}
    assert owner_of(parent).sweep == sweep
