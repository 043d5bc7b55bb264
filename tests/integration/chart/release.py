"""A release of the chart on a real API server, and its operator as a process with the release's token and flags."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.commands import run

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "finetune-operator"
RELEASE, NAMESPACE, TEAM = "finetune-operator", "finetune-system", "team-a"
WAIT_SECONDS = 30
CLASS = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneClass",
    "metadata": {"name": "cpu", "annotations": {"finetune.dev/is-default-class": "true"}},
    "spec": {"storage": {"bucket": "models", "credentialsSecretName": "s3"}},
}
TRAINER_IMAGE = "example.com/trainer:1"
BASE, TUNED, DATA = "s3://models/base", "s3://models/tuned", "s3://data/lines.jsonl"
GRADER = {"name": "exact", "type": "StringCheck", "stringCheck": {}}


@dataclass(frozen=True)
class Release:
    """A control plane with the chart's release in it."""

    plane: ControlPlane
    commands: Mapping[str, Path]

    def kubectl(self, *words: str, stdin: object = None) -> str:
        text = None if stdin is None else json.dumps(stdin)
        return run(self.commands["kubectl"], "--kubeconfig", self.plane.kubeconfig, *words, input=text)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def wait(self, *words: str, until: str) -> None:
        """Wait for a condition in the words of `kubectl wait --for`."""
        self.kubectl("wait", *words, f"--for={until}", f"--timeout={WAIT_SECONDS}s")

    def wait_reason(self, name: str, reason: str) -> None:
        """Wait until an object of the team is Ready, or not Ready, for this reason."""
        self.wait("-n", TEAM, name, until=f"jsonpath={{.status.conditions[?(@.type=='Ready')].reason}}={reason}")

    def helm(self, *words: str) -> str:
        return run(self.commands["helm"], "--kubeconfig", self.plane.kubeconfig, "-n", NAMESPACE, *words)

    def allowed(
        self, user: str, groups: Sequence[str], questions: Sequence[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], bool]:
        """The API server's answer to each (verb, group, resource[/subresource]) in the team's namespace."""
        reviews = []
        for verb, group, resource in questions:
            plural, _, subresource = resource.partition("/")
            asked = {"namespace": TEAM, "verb": verb, "group": group, "resource": plural, "subresource": subresource}
            reviews.append(
                {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SubjectAccessReview",
                    "spec": {"user": user, "groups": list(groups), "resourceAttributes": asked},
                }
            )
        body = {"apiVersion": "v1", "kind": "List", "items": reviews}
        answers = self.kubectl("create", "-f", "-", "-o", 'jsonpath={.status.allowed}{" "}', stdin=body).split()
        return {question: answer == "true" for question, answer in zip(questions, answers, strict=True)}


@dataclass(frozen=True)
class Operator:
    """The running operator: its log, the port of its progress endpoint, and its process."""

    log: Path
    progress_port: int
    process: subprocess.Popen[bytes]

    def end(self) -> None:
        """As its Pod ends. Raises AssertionError where it did not run until now, or ends with an error."""
        assert self.process.poll() is None, self.log.read_text()
        self.process.terminate()
        assert self.process.wait(WAIT_SECONDS) == 0, self.log.read_text()


def start_job(release: Release, name: str) -> tuple[str, ...]:
    """Make a FineTuneJob; returns what selects the children of its preflight, once there is a Pod.

    Nothing runs the Pod, as there is no kubelet.
    """
    apply(release, "FineTuneJob", name, model={"uri": BASE}, dataset={"training": {"uri": DATA}})
    uid = release.get("-n", TEAM, "ftj", name)["metadata"]["uid"]
    selector = ("-l", f"finetune.dev/owner-uid={uid},finetune.dev/role=preflight")
    release.wait("-n", TEAM, "pod", *selector, until="create")
    return selector


def start_evaluation(release: Release, name: str) -> tuple[str, ...]:
    """Make an Evaluation; returns what selects its Job and the Pods of that, once there is one."""
    candidates = [{"name": "tuned", "model": {"uri": TUNED}}]
    spec = {"candidates": candidates, "baseline": {"model": {"uri": BASE}}, "dataset": {"uri": DATA}}
    apply(release, "Evaluation", name, **spec, graders=[GRADER])
    uid = release.get("-n", TEAM, "eval", name)["metadata"]["uid"]
    selector = ("-l", f"finetune.dev/owner-uid={uid},finetune.dev/role=evaluate")
    release.wait("-n", TEAM, "pod", *selector, until="create")
    return selector


def apply(release: Release, kind: str, name: str, **spec: object) -> None:
    body = {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    release.kubectl("-n", TEAM, "apply", "-f", "-", stdin=body)


def certificate(release: Release) -> dict[str, str]:
    data: dict[str, str] = release.get("-n", NAMESPACE, "secret", f"{RELEASE}-tls")["data"]
    return data


def account_kubeconfig(release: Release, account: str = RELEASE) -> Path:
    """A kubeconfig that holds a token of one of the chart's accounts, and no certificate."""
    config = yaml.safe_load(release.plane.kubeconfig.read_text())
    token = release.kubectl("-n", NAMESPACE, "create", "token", account).strip()
    config["users"][0]["user"] = {"token": token}
    path = release.plane.home / f"{account}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def rendered(*values: str, flags: Sequence[str] = ()) -> list[Any]:
    """The objects that the chart makes with these values."""
    given = [flag for value in values for flag in ("--set", value)]
    text = run(binaries(["helm"])["helm"], "template", RELEASE, CHART, "-n", NAMESPACE, *given, *flags)
    return [item for item in yaml.safe_load_all(text) if item]


PODS_BY_HAND: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "trainer",
            "image": "example.com/mine:1",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def refusal(release: Release, user: str, *words: str, stdin: object = None) -> str:
    """What kubectl tells this user in the team's namespace, where it fails; empty where it does not."""
    command = [release.commands["kubectl"], "--kubeconfig", release.plane.kubeconfig_for(user), "-n", TEAM, *words]
    text = None if stdin is None else json.dumps(stdin)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    return "" if done.returncode == 0 else done.stderr


def rights_settle(
    release: Release, user: str, *, asked: Sequence[tuple[str, str]], expected: Sequence[tuple[str, str]]
) -> bool:
    """Whether the user comes to have exactly the expected rights; rules take a moment to spread."""
    questions = [(verb, "finetune.dev", resource) for verb, resource in asked]
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        answers = release.allowed(user, ["system:authenticated"], questions)
        if [(verb, resource) for (verb, _, resource), allowed in answers.items() if allowed] == list(expected):
            return True
        time.sleep(0.1)
    return False
