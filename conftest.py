"""What every test run has: bytecode of what it imports, and, with several workers, who runs what in which order."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ORDER = (
    "tests/integration/operator/",
    "tests/integration/test_",
    "tests/integration/",
    "tests/unit/",
)
"""What takes longest without a pause begins first; what is short and independent fills the end."""

SHARED = ("quiet_stage", "release", "service")
"""Fixtures of a session that keep all their tests to one worker: they take longer to make than the tests gain by two
workers. A control plane is up in seconds, and most tests with one wait for it: each worker has its own."""

# How long an example takes says more of what else the machine does than of the code. The examples are the same in each
# run, so that a change fails for what it did; HYPOTHESIS_PROFILE=explore draws new ones.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("same", deadline=None, suppress_health_check=_SLOW, derandomize=True)
settings.register_profile("explore", deadline=None, suppress_health_check=_SLOW, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Of models as small as the tests', more threads only wait for each other: the same training takes several times the CPU
# time with two. Here, since torch reads it once, when the first module imports it.
os.environ["OMP_NUM_THREADS"] = "1"

# A new object outlives the next 700, at which Python looks whether it is garbage: some hundredths of the CPU time.
gc.set_threshold(20_000)

# Importing torch, transformers and TRL takes twice as long without, and dozens of processes do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which puts the groups into the tests' names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: a fifth of a short training is the collector's look at all of torch."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def _place(item: pytest.Item) -> int:
    return next((place for place, start in enumerate(ORDER) if item.nodeid.startswith(start)), len(ORDER))


def _group(item: pytest.Item) -> str:
    """The tests of a group are run by one worker, one after another: they share what is made once. "" for none."""
    file = item.nodeid.partition("::")[0]
    if file.startswith("tests/unit/"):
        return file
    definitions: dict[str, Sequence[pytest.FixtureDef[Any]]] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    scopes = {name: found[-1].scope for name, found in definitions.items()}
    if shared := next((name for name in SHARED if scopes.get(name) == "session"), ""):
        return shared
    return file if "module" in scopes.values() else ""
