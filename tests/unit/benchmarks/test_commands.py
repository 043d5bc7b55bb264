"""Each benchmark's command line can be made: Typer refuses some annotations only then."""

from __future__ import annotations

import importlib

import pytest
import typer


@pytest.mark.parametrize("name", ["controller", "gpu", "rft", "trainer"])
def test_a_benchmarks_command_can_be_made(name: str) -> None:
    assert typer.main.get_command(importlib.import_module(f"benchmarks.{name}.__main__").app)
