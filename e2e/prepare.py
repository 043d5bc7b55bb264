"""What takes minutes on a fresh machine, done before the tests, where its progress can be seen."""

from __future__ import annotations

from e2e.cluster import resolve
from e2e.cluster.binaries import CONTROL_PLANE, binaries
from e2e.images import build_and_push
from e2e.steps import StepFailed, console, failing_plainly


def prepare() -> None:
    """The cluster and the images; where containers can't run, what the integration tests need."""
    try:
        resolve.flavour()
    except StepFailed as reason:
        console.print(f"The end-to-end tests are left out: {reason}", markup=False)
        binaries(CONTROL_PLANE)
        return
    build_and_push(resolve.up())


if __name__ == "__main__":
    with failing_plainly():
        prepare()
