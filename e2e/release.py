"""Installs the operator into a cluster through its Helm chart, as a user would."""

from __future__ import annotations

from pathlib import Path

from e2e.cluster.binaries import binaries
from e2e.cluster.machine.commands import run
from e2e.cluster.resolve import Cluster
from e2e.images.build import Images
from e2e.steps import Step

RELEASE = "finetune-operator"
NAMESPACE = "finetune-system"
CHART = Path(__file__).parent.parent / "charts" / "finetune-operator"
TIMEOUT_SECONDS = 180


def install(cluster: Cluster, images: Images, current: Step) -> None:
    """`helm upgrade --install`, and wait until the operator is ready."""
    helm = binaries(["helm"])["helm"]
    forget_interrupted(cluster.kubeconfig)
    repository, _, digest = images.operator.partition("@")
    current.run(
        [
            *(helm, "upgrade", RELEASE, CHART, "--install", "--create-namespace"),
            *("--kubeconfig", cluster.kubeconfig, "--namespace", NAMESPACE),
            *("--set", f"image.repository={repository}", "--set", f"image.digest={digest}"),
            *("--set", f"trainerImage={images.trainer}"),
            *("--wait", "--timeout", f"{TIMEOUT_SECONDS}s"),
        ],
        timeout=TIMEOUT_SECONDS + 30,
    )


def forget_interrupted(kubeconfig: Path) -> None:
    """Remove Helm's notes of an installation that was killed: it would refuse every further one as going on."""
    kubectl = binaries(["kubectl"])["kubectl"]
    pending = "status in (pending-install,pending-upgrade,pending-rollback)"
    selector = f"--selector=owner=helm,name={RELEASE},{pending}"
    run(kubectl, "--kubeconfig", kubeconfig, "--namespace", NAMESPACE, "delete", "secret", selector)
