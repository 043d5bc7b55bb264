"""What the end-to-end tests share: one real cluster with the operator and the storage in it, for the whole run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from e2e.cluster import resolve
from e2e.demo.scenario import Platform, prepare
from e2e.steps import StepFailed

Shown = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture(scope="session")
def shown(request: pytest.FixtureRequest) -> Shown:
    """Shows the steps of a set-up, which takes minutes; beside other workers they are told only if it fails."""
    if hasattr(request.config, "workerinput"):
        return contextlib.nullcontext
    shown: Shown = request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled
    return shown


@pytest.fixture(scope="session")
def platform(shown: Shown) -> Platform:
    """The platform; skipped, in one line, where this machine can't run containers."""
    try:
        resolve.flavour()
    except StepFailed as reason:
        pytest.skip(str(reason))
    with shown():
        return prepare()
