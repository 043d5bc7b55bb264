"""What upgrades change, and what an uninstallation leaves."""

from __future__ import annotations

from typing import Any

import yaml

from e2e.cluster.machine.commands import ask
from finetune_api.kinds import KINDS
from tests.integration.chart.release import CHART, NAMESPACE, RELEASE, Operator, Release, certificate

# What upgrades change


def test_upgrades_keep_the_certificate_and_do_not_restart_the_operator(release: Release) -> None:
    before, pod_template = certificate(release), deployed_template(release)
    for _ in range(2):
        release.helm("upgrade", RELEASE, str(CHART))
    assert certificate(release) == before
    assert deployed_template(release) == pod_template


def test_another_certificate_restarts_the_operator(release: Release) -> None:
    before = deployed_template(release)
    release.kubectl("-n", NAMESPACE, "create", "secret", "generic", "mine", "--from-literal=tls.crt=other")
    try:
        rendered = release.helm(
            "template", RELEASE, str(CHART), "--set", "progress.tls.existingSecret=mine", "--dry-run=server"
        )
    finally:
        release.kubectl("-n", NAMESPACE, "delete", "secret", "mine")
    objects = [item for item in yaml.safe_load_all(rendered) if item]
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    assert not [item for item in objects if item["kind"] == "Secret"]
    assert deployment["spec"]["template"]["metadata"]["annotations"] != before["metadata"]["annotations"]


def deployed_template(release: Release) -> Any:
    return release.get("-n", NAMESPACE, "deployment", RELEASE)["spec"]["template"]


def test_uninstalling_keeps_what_users_made_and_a_new_release_takes_it_over(
    release: Release, platform: None, operator: Operator
) -> None:
    """Last, since another release is there then. The operator ends as its Pod does, before its rights are gone."""
    trusted_by_running_pods = certificate(release)
    operator.end()
    # The hook's Pod would need a node.
    release.helm("uninstall", RELEASE, "--no-hooks")
    gone = ("-n", NAMESPACE, "get", f"deployment/{RELEASE}")
    assert ask(release.commands["kubectl"], "--kubeconfig", release.plane.kubeconfig, *gone) is None
    assert len(release.get("crd")["items"]) == len(KINDS)
    assert release.get("ftc", "cpu")
    release.helm("install", RELEASE, str(CHART))
    assert certificate(release) == trusted_by_running_pods
