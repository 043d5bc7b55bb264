from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.trainer.sandbox.sandboxed import RunningSandbox, running_sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[RunningSandbox]:
    with running_sandbox() as running:
        assert running.server.walls.problem is None
        yield running
