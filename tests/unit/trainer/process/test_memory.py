"""How much memory a container has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.process.memory import available_memory

MIB = 2**20


@pytest.mark.parametrize("version", [1, 2])
def test_it_is_what_the_limit_leaves_and_cached_files_are_free(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "memory" if version == 1 else tmp_path
    folder.mkdir(exist_ok=True)
    limit, used = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    (folder / limit).write_text(f"{400 * MIB}\n")
    (folder / used).write_text(f"{300 * MIB}\n")
    name = "total_inactive_file" if version == 1 else "inactive_file"
    (folder / "memory.stat").write_text(f"anon {200 * MIB}\n{name} {50 * MIB}\n")
    assert available_memory(tmp_path) == 150 * MIB


def test_nothing_is_left_beyond_the_limit(tmp_path: Path) -> None:
    for name, text in (("memory.max", "100"), ("memory.current", "200"), ("memory.stat", "anon 200\n")):
        (tmp_path / name).write_text(text)
    assert available_memory(tmp_path) == 0


@pytest.mark.parametrize("limit", ["max", None, str(2**62)])
def test_without_a_limit_it_is_half_of_the_node(tmp_path: Path, limit: str | None) -> None:
    without = available_memory(tmp_path / "no cgroup")
    if limit is not None:
        for name, text in (("memory.max", limit), ("memory.current", "1"), ("memory.stat", "")):
            (tmp_path / name).write_text(text)
    assert available_memory(tmp_path) == without > MIB
