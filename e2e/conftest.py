"""What the end-to-end tests share: one real cluster with the operator and the storage in it, for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster import resolve
from e2e.demo.scenario import Platform, prepare
from e2e.steps import StepFailed


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The platform; skipped, in one line, where this machine can't run containers."""
    try:
        resolve.flavour()
    except StepFailed as reason:
        pytest.skip(str(reason))
    terminal = request.config.pluginmanager.getplugin("capturemanager")
    # Minutes of set-up must not be silent.
    with terminal.global_and_fixture_disabled():
        yield prepare()
