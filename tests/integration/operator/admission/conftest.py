"""An API server that looks at objects, and keeps none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster.components.control_plane import ControlPlane
from tests.integration.operator.api import Api, namespace


@pytest.fixture(scope="module")
def api(cluster: ControlPlane) -> Iterator[Api]:
    """One namespace for all: hardly any of these objects comes to be."""
    with namespace(cluster) as api:
        yield api
