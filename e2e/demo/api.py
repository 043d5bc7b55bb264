"""Our objects of a cluster, read and waited for."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config

from e2e.cluster.binaries import binaries
from e2e.cluster.machine.commands import run
from e2e.steps import Step, StepFailed
from finetune_api.base import GROUP, VERSION

Object = dict[str, Any]

POLL_SECONDS = 0.5
STALLED_FOR_SECONDS = 90.0
LONGEST_SECONDS = 3600.0
"""Of one wait, however steadily it advances."""


@dataclass(frozen=True)
class Api:
    """A cluster, by the kubeconfig of its administrator."""

    kubeconfig: Path

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """What kubectl prints. Raises StepFailed with what it says when it fails."""
        command = binaries(["kubectl"])["kubectl"]
        return run(command, "--kubeconfig", self.kubeconfig, *arguments, input=stdin, timeout=timeout)

    def remove_namespace(self, namespace: str) -> None:
        """Remove a namespace, what serves in it first, and wait until it is gone.

        Kubernetes looks at a namespace again only after half of the grace of the Pods that are left in it: a minute
        for those that serve, however soon they end. Raises StepFailed when it is not gone in time.
        """
        serving = ("delete", "modeldeployments", "--all", "--cascade=foreground", "--timeout=120s")
        self.kubectl("-n", namespace, *serving, timeout=150)
        self.kubectl("delete", "namespace", namespace, "--timeout=120s", timeout=150)

    def get(self, plural: str, namespace: str, name: str) -> Object:
        """One of our objects."""
        found = _objects(self.kubeconfig).get_namespaced_custom_object(
            GROUP, VERSION, namespace, plural, name, _request_timeout=10
        )
        assert isinstance(found, dict)
        return found


@functools.cache
def _objects(kubeconfig: Path) -> client.CustomObjectsApi:
    """One connection, kept: a new one for each look is a quarter of a core while the examples run."""
    return client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))


def condition(item: Object, kind: str) -> Object:
    """A condition of an object; empty when it has none of this type."""
    conditions = item.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), {})


def advance(item: Object) -> tuple[object, ...]:
    """How far an object has come; another value is an advance."""
    status = item.get("status", {})
    return status.get("phase"), status.get("attempt", {}).get("number"), status.get("progress", {}).get("step")


def wait_ready(
    api: Api,
    plural: str,
    namespace: str,
    name: str,
    current: Step,
    describe: Callable[[Object], str],
    *,
    timeout: float,
) -> Object:
    """Wait until an object is Ready, telling how it stands.

    Raises StepFailed when it stalls, when it does not advance for `timeout` seconds, or after LONGEST_SECONDS.
    """
    began = advanced = time.monotonic()
    reached: tuple[object, ...] | None = None
    stalled_since: float | None = None
    while True:
        item = api.get(plural, namespace, name)
        observed = item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
        if observed and condition(item, "Ready").get("status") == "True":
            return item
        current.say(describe(item))
        now = time.monotonic()
        if advance(item) != reached:
            reached, advanced = advance(item), now
        stalled = condition(item, "Stalled")
        if stalled.get("status") != "True":
            stalled_since = None
        elif stalled_since is None:
            stalled_since = now
        hint = f"`kubectl -n {namespace} describe {plural} {name}` tells more."
        if stalled_since is not None and now - stalled_since > STALLED_FOR_SECONDS:
            raise StepFailed(f"{name} is stalled: {stalled.get('reason')}: {stalled.get('message')} {hint}")
        if now - advanced > timeout or now - began > LONGEST_SECONDS:
            ready = condition(item, "Ready")
            raise StepFailed(
                f"{name} is not ready after {now - began:.0f} s, {now - advanced:.0f} s of them without an advance: "
                f"{ready.get('reason')}: {ready.get('message')} {hint}"
            )
        time.sleep(POLL_SECONDS)
