"""`rerun` chooses a runId, and what a GitOps tool will undo is told."""

from __future__ import annotations

import pytest

from finetune_view.changes import next_run_id, refused_run_id, warning_of_gitops
from kubectl_finetune.cluster.resource import resource
from kubectl_finetune.errors import PluginError
from tests.unit.kubectl_finetune.cluster_objects import seen


@pytest.mark.parametrize(
    ("run_id", "history", "expected"),
    [
        ("1", [], "2"),
        ("3", ["1", "2"], "4"),
        ("1", ["5", "nightly"], "6"),
        ("nightly", [], "nightly-2"),
        ("nightly", ["nightly-2"], "nightly-3"),
        ("a" * 63, [], f"{'a' * 55}-2"),
        ("٣", [], "٣-2"),
    ],
)
def test_the_next_run_has_an_id_that_was_not_used(run_id: str, history: list[str], expected: str) -> None:
    status = {"runId": run_id, "history": [{"runId": one} for one in history]}
    assert next_run_id(seen(status, spec={"runId": run_id})) == expected


def test_a_run_id_that_was_used_runs_nothing_again() -> None:
    view = seen({"runId": "3", "history": [{"runId": "1"}, {"runId": "2"}]}, spec={"runId": "3"})
    assert refused_run_id(view, "2") == (
        "runId '2' of FineTuneJob router was used by an earlier run (status.history) and can't be used again. "
        "Use a new one: 4 is free."
    )
    assert "is that of the present run" in refused_run_id(view, "3")
    assert refused_run_id(view, "4") == "" == refused_run_id(view, "nightly")
    assert refused_run_id(view, next_run_id(view)) == ""


def test_who_sets_a_change_back_is_reported() -> None:
    managed = seen({}, annotations={"argocd.argoproj.io/tracking-id": "app:finetune.dev/FineTuneJob:team-a/router"})
    assert "Argo CD manages this object" in warning_of_gitops(managed)
    assert "Flux" in warning_of_gitops(seen({}, labels={"kustomize.toolkit.fluxcd.io/name": "app"}))
    assert warning_of_gitops(seen({})) == ""


def test_objects_are_named_as_kubectl_names_them() -> None:
    assert str(resource("router")) == "FineTuneJob router"
    assert [str(resource(f"{kind}/a")) for kind in ("eval", "Evaluation", "evaluations.finetune.dev")] == [
        "Evaluation a"
    ] * 3
    assert resource("mdep/a").argument == "mdep/a"
    for wrong in ("--all", "a b", "", "pods/a", "eval/", "../x", "A", "a\x1b[2J", "a" * 254):
        with pytest.raises(PluginError):
            resource(wrong)
