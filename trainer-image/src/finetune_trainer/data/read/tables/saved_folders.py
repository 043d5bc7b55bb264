"""Folders written by `save_to_disk` of Hugging Face's datasets: their state.json lists the files of the dataset.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath

import msgspec

STATE = "state.json"
MOST_STATE_BYTES = 16 * 1024 * 1024
"""The maximum total size of all state.json files of a listing. One with 10,000 shards has half a megabyte."""
SHARD_SUFFIX = ".arrow"
SHOWN_SHARDS = 3


class SavedFolderError(ValueError):
    """A folder's state.json can't be read, or lists shards that do not exist."""


class _Shard(msgspec.Struct):
    filename: str


class _State(msgspec.Struct):
    """The part of a state.json that is read; state.json files of other programs have no `_data_files`."""

    shards: list[_Shard] = msgspec.field(name="_data_files")


def without_unnamed_shards(
    chosen: Collection[str], sizes: Mapping[str, int], read: Callable[[str], bytes]
) -> list[str]:
    """The `chosen` files of a listing without those that a state.json beside them does not list.

    These are leftovers of an earlier save and caches of `map`, which load_from_disk does not read either. `sizes`: the
    bytes of every file of the listing. `read`: returns the content of a file. Raises SavedFolderError.
    """
    folders = sorted({PurePosixPath(path).parent for path in chosen if path.endswith(SHARD_SUFFIX)})
    saved = {folder: str(folder / STATE) for folder in folders if str(folder / STATE) in sizes}
    if (size := sum(sizes[state] for state in saved.values())) > MOST_STATE_BYTES:
        largest = max(saved.values(), key=lambda state: sizes[state])
        raise SavedFolderError(
            f"The {STATE} files beside its .arrow files have {size / 2**20:.1f} MiB together, and "
            f"the maximum is {MOST_STATE_BYTES // 2**20}; the largest is {largest}. Use fewer folders, or delete what "
            "`save_to_disk` did not write."
        )
    shards_of: dict[PurePosixPath, frozenset[str]] = {}
    for folder, state in saved.items():
        named = _named_shards(state, read(state))
        if named is None:
            continue
        shards_of[folder] = frozenset(str(folder / name) for name in named)
        if missing := sorted(shards_of[folder] - sizes.keys()):
            raise SavedFolderError(
                f"{state} lists {len(named)} shards, of which {len(missing)} are missing: "
                f"{', '.join(missing[:SHOWN_SHARDS])}. Upload the whole folder again."
            )
    return [
        path
        for path in chosen
        if not path.endswith(SHARD_SUFFIX) or path in shards_of.get(PurePosixPath(path).parent, (path,))
    ]


def _named_shards(path: str, state: bytes) -> list[str] | None:
    """The shards of a state.json; None if it is another program's. Raises SavedFolderError if it is not valid JSON."""
    try:
        return [shard.filename for shard in msgspec.json.decode(state, type=_State).shards]
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SavedFolderError(f"{path} can't be read: {error}. Upload the whole folder again.") from error
