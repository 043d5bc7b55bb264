"""Folders that `save_to_disk` of Hugging Face's datasets wrote: their state.json says which files are the dataset.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import PurePosixPath

import msgspec

STATE = "state.json"
LONGEST_STATE_BYTES = 16 * 1024 * 1024
SHARD_SUFFIX = ".arrow"
SHOWN_SHARDS = 3


class MissingShardsError(ValueError):
    """A folder lacks shards of its dataset."""


class _Shard(msgspec.Struct):
    filename: str


class _State(msgspec.Struct):
    """What is read of a state.json; others than of a saved dataset have no `_data_files`."""

    shards: list[_Shard] = msgspec.field(name="_data_files")


def without_unnamed_shards(chosen: Collection[str], paths: Collection[str], read: Callable[[str], bytes]) -> list[str]:
    """The `chosen` files of a listing, without those that a state.json beside them does not name, as leftovers of an
    earlier save and the caches of `map`: load_from_disk reads neither.

    `read`: the first LONGEST_STATE_BYTES of a file. Raises MissingShardsError when one that is named is not there.
    """
    there = frozenset(paths)
    shards_of: dict[PurePosixPath, frozenset[str]] = {}
    for folder in sorted({PurePosixPath(path).parent for path in chosen if path.endswith(SHARD_SUFFIX)}):
        state = str(folder / STATE)
        named = _named_shards(read(state)) if state in there else None
        if named is None:
            continue
        shards_of[folder] = frozenset(str(folder / name) for name in named)
        if missing := sorted(shards_of[folder] - there):
            raise MissingShardsError(
                f"{state} names {len(named)} shards, of which {len(missing)} are not there: "
                f"{', '.join(missing[:SHOWN_SHARDS])}. Upload the whole folder again."
            )
    return [
        path
        for path in chosen
        if not path.endswith(SHARD_SUFFIX) or path in shards_of.get(PurePosixPath(path).parent, (path,))
    ]


def _named_shards(state: bytes) -> list[str] | None:
    """None: it is not of a saved dataset."""
    try:
        return [shard.filename for shard in msgspec.json.decode(state, type=_State).shards]
    except (msgspec.MsgspecError, RecursionError):
        return None
