"""The kernel's count of processes that it killed for their memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.supervision.oom import count_oom_kills


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("low 0\n", 0),
        (None, 0),
    ],
    ids=["version 2", "version 1", "an old kernel", "no cgroup"],
)
def test_oom_kills_are_counted(tmp_path: Path, text: str | None, kills: int) -> None:
    file = tmp_path / "memory.events"
    if text is not None:
        file.write_text(text)
    assert count_oom_kills((tmp_path / "none", file)) == kills
