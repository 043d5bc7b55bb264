"""Which cluster is used, and what is said where none can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.registry import REGISTRY
from e2e.cluster.resolve import Cluster, Flavour, choose, existing
from e2e.steps import StepFailed


@pytest.mark.parametrize(
    ("wanted", "docker", "linux_root", "flavour"),
    [
        ("", True, True, Flavour.KIND),
        ("", True, False, Flavour.KIND),
        ("", False, True, Flavour.OWN),
        ("existing", True, True, Flavour.EXISTING),
        ("existing", False, False, Flavour.EXISTING),
        ("own", True, True, Flavour.OWN),
        ("kind", True, False, Flavour.KIND),
    ],
)
def test_the_cluster_is_the_one_asked_for_or_the_best_that_can_run_here(
    wanted: str, docker: bool, linux_root: bool, flavour: Flavour
) -> None:
    assert choose(wanted, docker=docker, linux_root=linux_root) is flavour


@pytest.mark.parametrize(
    ("wanted", "docker", "linux_root", "says"),
    [
        ("", False, False, "start Docker .* run as root .* or set CLUSTER=existing"),
        ("kind", False, True, "CLUSTER=kind can't run here: Docker does not answer"),
        ("own", True, False, "CLUSTER=own can't run here: .* this is not root"),
        ("minikube", True, True, "CLUSTER=minikube is none of: existing, kind, own"),
    ],
)
def test_no_cluster_can_be_had(wanted: str, docker: bool, linux_root: bool, says: str) -> None:
    with pytest.raises(StepFailed, match=says):
        choose(wanted, docker=docker, linux_root=linux_root)


def test_an_existing_cluster_is_given_by_its_kubeconfig_and_registry(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.touch()
    environment = {"KUBECONFIG": str(config), "REGISTRY": "example.com/me"}
    assert existing(environment) == Cluster(Flavour.EXISTING, config, "example.com/me")


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({}, "needs KUBECONFIG"),
        ({"KUBECONFIG": "missing", "REGISTRY": REGISTRY}, "needs KUBECONFIG"),
        ({"KUBECONFIG": "config"}, "needs REGISTRY"),
    ],
)
def test_the_users_own_cluster_needs(
    given: dict[str, str], needs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").touch()
    with pytest.raises(StepFailed, match=needs):
        existing(given)
