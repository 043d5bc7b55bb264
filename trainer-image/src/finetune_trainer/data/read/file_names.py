"""Which files of a folder are a dataset's data. Part of the instant `validate` command: imports nothing heavy."""

from __future__ import annotations

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


def _without_packing(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)
