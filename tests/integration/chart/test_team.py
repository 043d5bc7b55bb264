"""The chart of a team on a real API server: three teams by a values file each, and what each may do to the others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.machine.commands import run
from finetune_operator.pods.roles import POD_ROLES
from tests.integration.chart.release import CHART, Release

TEAM_CHART = CHART.parent / "finetune-team"
TEAMS = ("red", "green", "blue")
USERS_MAY = [
    *((verb, kind) for kind in ("finetunejobs", "evaluations", "modeldeployments") for verb in ("create", "delete")),
    *((verb, kind) for kind in ("pods", "pods/log", "events", "finetunejobs") for verb in ("get",)),
]
NOBODY_MAY = [
    ("get", "secrets"),
    ("create", "pods"),
    ("create", "pods/exec"),
    ("create", "jobs"),
    ("patch", "finetunejobs/status"),
    ("patch", "evaluations/status"),
    ("update", "networkpolicies"),
    ("update", "resourcequotas"),
    ("create", "rolebindings"),
    ("create", "finetuneclasses"),
]


def values(team: str) -> dict[str, Any]:
    return {
        "namespace": f"team-{team}",
        "users": [{"kind": "Group", "name": team}],
        "viewers": [{"kind": "User", "name": f"{team}-guest"}],
        "quota": {"pods": 0 if team == "blue" else 5},
    }


def install(release: Release, team: str, folder: Path) -> str:
    """What Helm says about an installed team."""
    file = folder / f"{team}.yaml"
    file.write_text(yaml.safe_dump(values(team)))
    return release.helm("upgrade", "--install", f"team-{team}", str(TEAM_CHART), "-f", str(file))


@pytest.fixture(scope="module")
def notes(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What was said about each team when it was installed."""
    folder = tmp_path_factory.mktemp("teams")
    yield {team: install(release, team, folder) for team in TEAMS}
    for team in TEAMS:
        release.helm("uninstall", f"team-{team}")


def may(release: Release, user: str, group: str, verb: str, resource: str, namespace: str) -> bool:
    """The API server's own answer for a user who is in one group."""
    plural, _, subresource = resource.partition("/")
    asked = ["auth", "can-i", verb, plural, *([f"--subresource={subresource}"] if subresource else [])]
    command = [release.commands["kubectl"], "--kubeconfig", release.plane.kubeconfig, *asked]
    identity = ["--as", user, "--as-group", group, "--as-group", "system:authenticated", "-n", namespace]
    answer = subprocess.run([*command, *identity], capture_output=True, text=True, timeout=30, check=False)
    return answer.stdout.strip() == "yes"


@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize(("verb", "resource"), USERS_MAY)
def test_users_work_in_their_own_namespace_only(release: Release, verb: str, resource: str) -> None:
    allowed = {team for team in TEAMS if may(release, "ada", "red", verb, resource, f"team-{team}")}
    assert allowed == {"red"}


@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize(("verb", "resource"), NOBODY_MAY)
def test_users_forge_nothing_and_read_no_secret(release: Release, verb: str, resource: str) -> None:
    assert not may(release, "ada", "red", verb, resource, "team-red")


@pytest.mark.usefixtures("notes")
def test_viewers_read_and_write_nothing(release: Release) -> None:
    guest = ("red-guest", "guests")
    assert may(release, *guest, "get", "finetunejobs", "team-red")
    assert may(release, *guest, "get", "pods/log", "team-red")
    assert not may(release, *guest, "get", "finetunejobs", "team-green")
    for verb, resource in [("create", "finetunejobs"), ("get", "secrets"), *NOBODY_MAY]:
        assert not may(release, *guest, verb, resource, "team-red"), (verb, resource)


def test_a_missing_secret_is_reported_with_the_command_that_makes_it(
    release: Release, notes: dict[str, str], tmp_path: Path
) -> None:
    told = "Secret s3-credentials does not exist"
    assert told in notes["green"]
    secret = ("-n", "team-green", "create", "secret", "generic", "s3-credentials")
    assert f"kubectl {' '.join(secret)}" in notes["green"]
    release.kubectl(*secret, "--from-literal=AWS_ACCESS_KEY_ID=a")
    again = install(release, "green", tmp_path)
    assert told not in again
    assert "has no AWS_SECRET_ACCESS_KEY" in again
    release.kubectl("-n", "team-green", "delete", "secret", "s3-credentials")
    release.kubectl(*secret, "--from-literal=AWS_ACCESS_KEY_ID=a", "--from-literal=AWS_SECRET_ACCESS_KEY=b")
    assert "WARNING" not in install(release, "green", tmp_path)


@pytest.mark.usefixtures("notes")
def test_a_quota_is_the_namespaces(release: Release) -> None:
    hard = release.get("-n", "team-red", "resourcequota", "fine-tuning")["spec"]["hard"]
    assert hard == {"pods": "5"}


@pytest.mark.usefixtures("notes")
def test_pods_of_every_role_are_fenced(release: Release) -> None:
    """Each role by exactly one policy, in both directions."""
    policies = release.get("-n", "team-red", "networkpolicy")["items"]
    fenced: list[str] = []
    for policy in policies:
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        selector = spec["podSelector"]
        fenced += selector.get("matchLabels", {}).values()
        fenced += [value for one in selector.get("matchExpressions", []) for value in one["values"]]
        blocks = [peer["ipBlock"] for rule in spec["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
        assert all("169.254.0.0/16" in block["except"] for block in blocks if block["cidr"] == "0.0.0.0/0")
    assert sorted(fenced) == sorted(POD_ROLES)


@pytest.mark.usefixtures("notes")
def test_the_namespace_outlives_the_release(release: Release, tmp_path: Path) -> None:
    release.helm("uninstall", "team-blue")
    assert release.get("namespace", "team-blue")["status"]["phase"] == "Active"
    install(release, "blue", tmp_path)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ((), "namespace"),
        (("namespace=Team",), "does not match pattern"),
        (("namespace=a", "user[0].name=x"), "additional properties 'user' not allowed"),
        (("namespace=a", "users[0].kind=Role", "users[0].name=x"), "kind"),
        (("namespace=a", "queue.name="), "name"),
    ],
)
def test_a_wrong_value_is_refused(given: tuple[str, ...], complaint: str) -> None:
    words = [word for value in given for word in ("--set", value)]
    command = [binaries(["helm"])["helm"], "template", "team", TEAM_CHART, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_queue_draws_from_its_cluster_queue() -> None:
    words = ("--set", "namespace=a", "--set", "queue.clusterQueue=gpus")
    text = run(binaries(["helm"])["helm"], "template", "team", str(TEAM_CHART), *words)
    (queue,) = [item for item in yaml.safe_load_all(text) if item and item["kind"] == "LocalQueue"]
    assert queue["metadata"]["name"] == "fine-tuning"
    assert queue["spec"] == {"clusterQueue": "gpus"}


def test_it_passes_helm_lint() -> None:
    run(binaries(["helm"])["helm"], "lint", "--strict", str(TEAM_CHART), "--set", "namespace=a")
