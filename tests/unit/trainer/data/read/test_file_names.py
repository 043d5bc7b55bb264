"""Globs, and which files of a folder are data."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.sources import match_glob
from finetune_trainer.data.read.file_names import is_data


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.jsonl", "a.jsonl", True),
        ("*.jsonl", "b/a.jsonl", False),
        ("*/a.jsonl", "b/a.jsonl", True),
        ("*/a.jsonl", "b/c/a.jsonl", False),
        ("**/a.jsonl", "a.jsonl", True),
        ("**/a.jsonl", "b/c/a.jsonl", True),
        ("**/a.jsonl", "b/ca.jsonl", False),
        ("b/**", "b/c/a.jsonl", True),
        ("b/**", "c/b/a.jsonl", False),
        ("part-*", "part-00000", True),
        ("a.jsonl", "aXjsonl", False),
        ("a[b].jsonl", "a[b].jsonl", True),
        ("a[b].jsonl", "ab.jsonl", False),
        ("(a+)+*", "(a+)+b", True),
    ],
)
def test_a_star_stays_within_a_folder_and_two_go_across(pattern: str, path: str, matches: bool) -> None:
    assert match_glob(pattern, path) is matches


@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=8))
def test_a_glob_means_what_its_regular_expression_would(pattern: str, path: str) -> None:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    expression = "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*)", pattern))
    assert match_glob(pattern, path) is (re.fullmatch(expression, path) is not None)


@pytest.mark.parametrize("part", ["**/", "*a", "**a"])
def test_a_glob_of_many_stars_takes_no_longer_than_its_length(part: str) -> None:
    """Such a regular expression takes years."""
    assert not match_glob(part * 100 + "x", "a/" * 200 + "a" * 400)


@pytest.mark.parametrize(
    ("path", "in_folder", "in_glob"),
    [
        ("train.jsonl", True, True),
        ("train.jsonl.gz", True, True),
        ("deep/train.json.zst", True, True),
        ("data-00000-of-00002.arrow", True, True),
        ("train.parquet", True, True),
        ("part-00000", False, True),
        ("README.md", False, True),
        ("train.csv", False, True),
        ("_SUCCESS", False, False),
        (".hidden.jsonl", False, False),
        ("state.json", False, False),
        ("dataset_info.json", False, False),
    ],
)
def test_hidden_files_and_metadata_are_no_data_and_in_a_folder_the_suffix_decides(
    path: str, in_folder: bool, in_glob: bool
) -> None:
    assert (is_data(path, in_folder=True), is_data(path, in_folder=False)) == (in_folder, in_glob)
