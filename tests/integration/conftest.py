"""What integration tests share: one control plane for the session, with our CRDs in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster.components.control_plane import ControlPlane, control_plane
from tests.integration.crds import install_crds


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    """A real API server, controller-manager and scheduler, without nodes: nothing runs a Pod."""
    with control_plane() as plane:
        install_crds(plane)
        yield plane
