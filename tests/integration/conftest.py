"""What integration tests share: one control plane for the session, with our CRDs in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.cluster.components.control_plane import ControlPlane, control_plane
from tests.integration.crds import install_crds

CONTROL_PLANES = ("cluster", "quiet_stage", "release")
"""Fixtures of the session with a control plane: while nobody asks it anything, one takes 2 seconds of CPU a minute."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    """A real API server, controller-manager and scheduler, without nodes: nothing runs a Pod."""
    with control_plane() as plane:
        install_crds(plane)
        yield plane


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End each control plane when the run comes to the tests behind the last one with it, and not with the session."""
    if nextitem is None:
        return  # the session ends
    uses = item.session.stash.setdefault(_USES, None) or _uses(item.session.items)
    item.session.stash[_USES] = uses
    for plane, last in uses.last.items():
        if last < uses.place[nextitem]:
            plane.finish(item._request)  # type: ignore[attr-defined]  # with what was made of it; nothing where it has ended


@dataclass(frozen=True)
class _Uses:
    """The place of each test in the run's order, and that of the last test with each control plane."""

    place: dict[pytest.Item, int]
    last: dict[pytest.FixtureDef[Any], int]


_USES = pytest.StashKey[_Uses | None]()


def _uses(items: Sequence[pytest.Item]) -> _Uses:
    last = {}
    for place, item in enumerate(items):
        definitions = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
        last.update({definitions[name][-1]: place for name in CONTROL_PLANES if name in definitions})
    return _Uses({item: place for place, item in enumerate(items)}, last)
