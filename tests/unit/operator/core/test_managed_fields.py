"""What counts as drift is read from managedFields. What the API server writes there is an integration test's matter."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from finetune_operator.core.managed_fields import drifted, is_applied, take_over, with_digest

DESIRED = with_digest(
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "router", "namespace": "team-a", "annotations": {"a": "b"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "server",
                            "image": "example.com/trainer:1",
                            "args": ["serve"],
                            "env": [],
                            "ports": [{"containerPort": 8000}],
                            "resources": {"limits": {"memory": "1024Mi"}},
                        }
                    ],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                }
            },
        },
    }
)
SERVER = 'k:{"name":"server"}'
OURS: dict[str, Any] = {
    "f:metadata": {"f:annotations": {"f:a": {}, "f:finetune.dev/applied-digest": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    SERVER: {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:args": {},
                        "f:ports": {'k:{"containerPort":8000,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                        "f:resources": {"f:limits": {"f:memory": {}}},
                    }
                },
                "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
            }
        },
    },
}


def entry(fields: dict[str, Any], manager: str, operation: str = "Update", **more: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields, **more}


def stored(*others: dict[str, Any], ours: dict[str, Any] = OURS) -> dict[str, Any]:
    """The object as the API server holds it, with its own way to write a quantity."""
    found = deepcopy(DESIRED)
    found["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1Gi"
    found["metadata"] |= {
        "resourceVersion": "7",
        "managedFields": [entry(ours, "finetune-operator", "Apply"), *others],
    }
    return found


def without(tree: dict[str, Any], *path: str) -> dict[str, Any]:
    """A tree that has lost one field, and the parents that only held it."""
    key, *rest = path
    left = without(tree[key], *rest) if rest else {}
    others = {name: members for name, members in tree.items() if name != key}
    return {**others, key: left} if left else others


CONTAINER = ("f:spec", "f:template", "f:spec", "f:containers", SERVER)


def test_what_is_still_ours_is_applied() -> None:
    assert is_applied(DESIRED, stored())
    assert not is_applied(DESIRED, None)
    assert not is_applied(DESIRED, {"metadata": {}})


@pytest.mark.parametrize(
    "lost",
    [
        ("f:spec", "f:replicas"),
        ("f:spec", "f:selector"),
        ("f:metadata", "f:annotations", "f:a"),
        (*CONTAINER, "f:image"),
        (*CONTAINER, "f:resources", "f:limits", "f:memory"),
        (*CONTAINER, "f:ports", 'k:{"containerPort":8000,"protocol":"TCP"}'),
        CONTAINER,
        ("f:spec", "f:template", "f:spec", "f:volumes"),
    ],
)
def test_a_field_that_somebody_else_set_or_removed_is_drift(lost: tuple[str, ...]) -> None:
    assert not is_applied(DESIRED, stored(ours=without(OURS, *lost)))


@pytest.mark.parametrize(
    "managed",
    [
        [],
        [entry(OURS, "kubectl")],
        [entry(OURS, "finetune-operator", "Apply", subresource="status")],
        [entry({"f:metadata": OURS["f:metadata"], "f:spec": {}}, "finetune-operator", "Apply")],
        [entry({**OURS, "f:spec": {".": {}}}, "finetune-operator", "Apply")],
        [entry({}, "finetune-operator", "Apply")],
    ],
    ids=["emptied", "another manager", "the status", "a spec without members", "a spec alone", "no fields"],
)
def test_without_an_account_of_its_fields_nothing_is_applied(managed: list[dict[str, Any]]) -> None:
    found = stored()
    found["metadata"]["managedFields"] = managed
    assert not is_applied(DESIRED, found)


def test_another_content_is_another_digest() -> None:
    other = deepcopy(DESIRED)
    del other["metadata"]["annotations"]["finetune.dev/applied-digest"]
    other["spec"]["replicas"] = 2
    assert not is_applied(with_digest(other), stored())


def deep(*path: str, leaf: dict[str, Any]) -> dict[str, Any]:
    for key in reversed(path):
        leaf = {key: leaf}
    return leaf


ADDED_ENV = deep(*CONTAINER, "f:env", leaf={".": {}, 'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}})


@pytest.mark.parametrize(
    "others",
    [
        (),
        (entry({"f:status": {"f:replicas": {}}}, "kube-controller-manager", subresource="status"),),
        (entry(deep("f:spec", "f:template", "f:metadata", leaf={"f:annotations": {"f:x": {}}}), "kubectl-rollout"),),
        (entry({"f:metadata": {"f:labels": {"f:team": {}}}}, "kubectl-label"),),
        (entry(deep("f:spec", leaf={"f:replicas": {}}), "kubectl", subresource="scale"),),
    ],
    ids=["nobody", "status", "rollout restart", "a label", "a field that is ours as well"],
)
def test_there_is_nothing_to_take_over(others: tuple[dict[str, Any], ...]) -> None:
    assert take_over(stored(*others)) is None


def test_what_is_added_in_the_spec_becomes_ours_and_is_applied_away() -> None:
    set_env = entry({**ADDED_ENV, "f:metadata": {"f:labels": {"f:x": {}}}}, "kubectl-set")
    patch = take_over(stored(set_env, entry({"f:status": {}}, "kube-controller-manager", subresource="status")))
    assert patch is not None
    assert patch["metadata"]["resourceVersion"] == "7"
    assert patch["metadata"]["annotations"] == {"finetune.dev/applied-digest": None}
    ours, theirs, status = patch["metadata"]["managedFields"]
    env = ours["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"][SERVER]["f:env"]
    assert env == {".": {}, 'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}}
    assert theirs["fieldsV1"] == {"f:metadata": {"f:labels": {"f:x": {}}}}
    assert status["subresource"] == "status"
    assert {path for path in ours["fieldsV1"]["f:spec"]} == {"f:replicas", "f:selector", "f:template"}


def test_what_was_added_becomes_ours_also_where_our_account_was_removed() -> None:
    found = stored(entry(ADDED_ENV, "kubectl-set"))
    del found["metadata"]["managedFields"][0]
    patch = take_over(found)
    assert patch is not None
    (ours,) = patch["metadata"]["managedFields"]
    assert (ours["manager"], ours["operation"]) == ("finetune-operator", "Apply")
    assert ours["fieldsV1"] == ADDED_ENV


def test_who_has_nothing_left_is_not_named_any_more() -> None:
    patch = take_over(stored(entry(ADDED_ENV, "kubectl-set")))
    assert patch is not None
    assert [item["manager"] for item in patch["metadata"]["managedFields"]] == ["finetune-operator"]


def test_a_leaf_of_ours_keeps_its_place_when_a_member_is_taken_over() -> None:
    medium = deep(
        "f:spec", "f:template", "f:spec", "f:volumes", 'k:{"name":"tmp"}', "f:emptyDir", leaf={"f:medium": {}}
    )
    patch = take_over(stored(entry(medium, "kubectl-edit")))
    assert patch is not None
    volumes = patch["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:volumes"]
    assert volumes['k:{"name":"tmp"}']["f:emptyDir"] == {".": {}, "f:medium": {}}


IMAGE = (*CONTAINER, "f:image")
SET_IMAGE = entry(deep(*IMAGE, leaf={}), "kubectl-set")
CONTAINER_WORDS = "spec.template.spec.containers[server]"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (stored(), {}),
        (stored(SET_IMAGE, ours=without(OURS, *IMAGE)), {f"{CONTAINER_WORDS}.image": "kubectl-set"}),
        (
            stored(entry(ADDED_ENV, "helm")),
            {f"{CONTAINER_WORDS}.env[A].name": "helm", f"{CONTAINER_WORDS}.env[A].value": "helm"},
        ),
        (stored(ours=without(OURS, *CONTAINER, "f:args")), {f"{CONTAINER_WORDS}.args": None}),
        (
            stored(
                entry({"f:spec": {"f:replicas": {}}}, "kubectl", subresource="scale"),
                ours=without(OURS, "f:spec", "f:replicas"),
            ),
            {"spec.replicas": "kubectl"},
        ),
        (stored(entry({"f:status": {"f:replicas": {}}}, "kube-controller-manager", subresource="status")), {}),
        (stored(entry(deep("f:spec", "f:template", "f:metadata", leaf={"f:annotations": {"f:x": {}}}), "kubectl")), {}),
        (stored(ours={}), {"spec": None}),
    ],
    ids=["nothing", "set image", "set env", "removed", "scaled", "status", "rollout restart", "all is disowned"],
)
def test_changes_by_others_are_reported_by_field_and_manager(
    found: dict[str, Any], told: dict[str, str | None]
) -> None:
    assert {field: change.manager for field, change in drifted(DESIRED, found).items()} == told


EARLIER, LATER = "2026-11-22T12:00:00Z", "2026-11-22T12:00:03Z"


def changed(
    written: str | None, applied: str = EARLIER, *, version: str = "7", generation: int | None = None
) -> set[str]:
    """The ids of what was done by another's write of the image and the removal of args, since we applied."""
    ours = without(without(OURS, *IMAGE), *CONTAINER, "f:args")
    found = stored({**SET_IMAGE, "time": written}, ours=ours)
    found["metadata"]["managedFields"][0]["time"] = applied
    found["metadata"]["resourceVersion"] = version
    if generation is not None:
        found["metadata"]["generation"] = generation
    return {change.id for change in drifted(DESIRED, found).values()}


def test_a_change_is_known_again_until_it_is_put_right_and_distinguished_from_the_next_one() -> None:
    assert len(changed(EARLIER)) == 2
    assert changed(EARLIER, version="8") == changed(EARLIER), "the status was written meanwhile"
    assert len(changed(EARLIER) & changed(LATER)) == 1, "the same manager has set the image again"
    assert changed(LATER, LATER).isdisjoint(changed(EARLIER)), "and we had applied it in between"
    assert changed(None, LATER).isdisjoint(changed(None)), "by kubectl scale, whose entry has no time"
    assert changed(None, version="8") == changed(None)


def test_within_one_second_the_generation_tells_a_change_from_the_next_one() -> None:
    """The writer sets it, we put it back, and the writer sets it again."""
    first, again = changed(EARLIER, EARLIER, generation=5), changed(EARLIER, EARLIER, generation=7)
    assert first.isdisjoint(again)
    assert changed(EARLIER, EARLIER, generation=5, version="8") == first, "the status was written meanwhile"
    assert changed(None, EARLIER, generation=5).isdisjoint(changed(None, EARLIER, generation=7))


def test_a_change_of_an_object_that_nobody_has_an_account_of_is_reported_by_its_version() -> None:
    first, second = stored(), stored()
    for found, version in ((first, "7"), (second, "8")):
        found["metadata"] |= {"managedFields": [], "resourceVersion": version}
    assert drifted(DESIRED, first)["spec"].id != drifted(DESIRED, second)["spec"].id


def test_a_field_that_new_content_is_the_first_to_have_is_nobodys() -> None:
    found = stored(ours=without(OURS, *CONTAINER, "f:args"))
    found["metadata"]["annotations"]["finetune.dev/applied-digest"] = "of what was applied before"
    assert drifted(DESIRED, found) == {}


def test_what_was_taken_over_and_is_not_applied_yet_is_no_drift_again() -> None:
    found = stored()
    del found["metadata"]["annotations"]["finetune.dev/applied-digest"]
    found["metadata"]["managedFields"][0]["fieldsV1"] = without(
        OURS, "f:metadata", "f:annotations", "f:finetune.dev/applied-digest"
    )
    assert not is_applied(DESIRED, found)
    assert drifted(DESIRED, found) == {}
