"""What is read of a folder that `save_to_disk` wrote, before its data is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_trainer.__main__ import app
from finetune_trainer.data.read.tables.saved_folders import MOST_STATE_BYTES, SavedFolderError, without_unnamed_shards


def never(path: str) -> bytes:
    raise AssertionError(f"{path} was read")


def test_state_files_that_are_too_large_together_are_refused_unread() -> None:
    sizes = {f"{number}/data.arrow": 1 for number in range(4)}
    sizes |= {f"{number}/state.json": MOST_STATE_BYTES // 4 for number in range(4)}
    chosen = [path for path in sizes if path.endswith(".arrow")]
    assert without_unnamed_shards(chosen, sizes, lambda _: b"{}") == chosen
    with pytest.raises(
        SavedFolderError, match=r"have 16\.0 MiB together, and the maximum is 16; the largest is 2/state"
    ):
        without_unnamed_shards(chosen, sizes | {"2/state.json": MOST_STATE_BYTES // 4 + 1}, never)


def test_one_that_was_cut_off_is_refused_and_no_leftover_is_read_in_silence() -> None:
    state = json.dumps({"_data_files": [{"filename": "data.arrow"}]}).encode()
    sizes = {"data.arrow": 1, "leftover.arrow": 1, "state.json": len(state)}
    chosen = ["data.arrow", "leftover.arrow"]
    assert without_unnamed_shards(chosen, sizes, lambda _: state) == ["data.arrow"]
    for broken in (b"", state[:-5], b'{"a": ' + b"[" * 100_000):
        with pytest.raises(SavedFolderError, match=r"state\.json can't be read: .* Upload the whole folder again"):
            without_unnamed_shards(chosen, sizes, lambda _, broken=broken: broken)


def test_one_without_arrow_files_beside_it_or_of_something_else_does_not_matter() -> None:
    sizes = {"a.jsonl": 1, "state.json": MOST_STATE_BYTES + 1}
    assert without_unnamed_shards(["a.jsonl"], sizes, never) == ["a.jsonl"]
    sizes = {"a.arrow": 1, "state.json": 20}
    assert without_unnamed_shards(["a.arrow"], sizes, lambda _: b'{"step": 3}') == ["a.arrow"]


def test_validate_refuses_them_too(tmp_path: Path) -> None:
    (tmp_path / "data.arrow").touch()
    with (tmp_path / "state.json").open("wb") as state:
        state.truncate(MOST_STATE_BYTES + 1)
    refused = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert refused.exit_code == 1
    assert "MiB together, and the maximum is 16" in refused.output
