"""What takes minutes on a fresh machine: the cluster's programs and the images, made side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed

from e2e.cluster import resolve
from e2e.cluster.binaries import CONTROL_PLANE, binaries
from e2e.cluster.resolve import Cluster
from e2e.images import build as images
from e2e.images.build import Images
from e2e.steps import StepFailed, console, end_commands, failing_plainly


def cluster_with_images() -> tuple[Cluster, Images]:
    """The cluster, up, with the images in its registry. Raises StepFailed."""
    resolve.flavour()
    with ThreadPoolExecutor(2) as pool:
        try:
            # Compiling keeps the CPUs busy, images mostly wait for downloads and the disk.
            halves = (pool.submit(images.build), pool.submit(_cluster))
            for half in as_completed(halves):
                if isinstance(error := half.exception(), StepFailed) and not all(one.done() for one in halves):
                    console.print(f"{error}\nThe other half is finished first; the next run finds it.", markup=False)
        except KeyboardInterrupt:
            end_commands()
            raise
    building, bringing_up = halves
    cluster = bringing_up.result()
    building.result()
    return cluster, images.push(cluster)


def _cluster() -> Cluster:
    cluster = resolve.up()
    binaries(["helm"])
    return cluster


def prepare() -> None:
    """Before the tests, where its progress can be seen; without containers, what the integration tests need."""
    try:
        resolve.flavour()
    except StepFailed as reason:
        console.print(f"The end-to-end tests are left out: {reason}", markup=False)
        binaries([*CONTROL_PLANE, "helm"])
        return
    cluster_with_images()


if __name__ == "__main__":
    with failing_plainly():
        prepare()
