"""Which files of a folder are a dataset's data. Part of the instant `validate` command: imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".arrow")
PACKED = (".gz", ".zst", ".zstd")
SPLITS = "dataset_dict.json"
ABOUT_THE_DATASET = (SPLITS, "dataset_info.json", "dataset_infos.json", "state.json")
"""Metadata files that Hugging Face's libraries write next to the data."""


def is_data(path: str, *, in_folder: bool) -> bool:
    """Whether a file of a folder or glob is data: never if hidden or metadata; in a folder the suffix decides."""
    name = PurePosixPath(path).name
    if name.startswith((".", "_")) or name in ABOUT_THE_DATASET:
        return False
    return not in_folder or _without_packing(name).endswith(SUFFIXES)


def match_glob(pattern: str, path: str) -> bool:
    """Whether a path matches a glob: `*` is anything within a folder, `**` anything, `**/` any number of folders.

    A regular expression could take exponential time in the number of stars.
    """
    ends = {0}  # The positions at which the parts so far may end.
    for part in re.split(r"(\*\*/|\*\*|\*)", pattern):
        if part == "*":
            ends = _within_folder(path, ends)
        elif part in ("**", "**/") and ends:
            after = range(min(ends), len(path) + 1)
            ends = set(after) if part == "**" else ends | {end for end in after if path.endswith("/", 0, end)}
        else:
            ends = {end + len(part) for end in ends if path.startswith(part, end)}
    return len(path) in ends


def _within_folder(path: str, starts: set[int]) -> set[int]:
    """The positions at which a text without / that starts at one of `starts` may end."""
    ends: set[int] = set()
    for start in sorted(starts):
        end = start
        while end not in ends:
            ends.add(end)
            if end == len(path) or path[end] == "/":
                break
            end += 1
    return ends


def _without_packing(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)
