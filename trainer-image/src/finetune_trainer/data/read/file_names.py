"""Which files of a folder are a dataset's data. Part of the instant `validate` command: imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".arrow")
PACKED = (".gz", ".zst", ".zstd")
SPLITS = "dataset_dict.json"
ABOUT_THE_DATASET = (SPLITS, "dataset_info.json", "dataset_infos.json", "state.json")
"""What Hugging Face's libraries write next to the data."""


def is_data(path: str, *, in_folder: bool) -> bool:
    """Whether a file that a folder or a glob brings is data: in a folder by its suffix, nowhere if it is hidden."""
    name = PurePosixPath(path).name
    if name.startswith((".", "_")) or name in ABOUT_THE_DATASET:
        return False
    return not in_folder or _without_packing(name).endswith(SUFFIXES)


def match_glob(pattern: str, path: str) -> bool:
    """Whether a path matches a glob: `*` is anything within a folder, `**` anything, `**/` any folders or none."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    regex = "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*)", pattern))
    return re.fullmatch(regex, path, re.DOTALL) is not None


def _without_packing(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)
