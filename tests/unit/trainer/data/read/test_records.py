"""The formats of dataset files, each read as lines of JSON without being read whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.records import read_records

ROWS: list[dict[str, Any]] = [
    {
        "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "weight": 1}],
        "tools": [{"a": 1}],
    },
    {"messages": [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}]},
] * 300
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def write_zstd(file: Path, content: bytes) -> None:
    with pyarrow.output_stream(str(file), compression="zstd") as stream:
        stream.write(content)


def write_arrow_folder(file: Path) -> None:
    """One shard of what Hugging Face's save_to_disk writes."""
    Dataset.from_list(ROWS).save_to_disk(str(file.parent / "saved"))
    (file.parent / "saved" / "data-00000-of-00001.arrow").rename(file)


FORMATS = {
    "JSON Lines": lambda file: file.write_bytes(LINES),
    "gzip": lambda file: file.write_bytes(gzip.compress(LINES)),
    "zstd": lambda file: write_zstd(file, LINES),
    "Parquet": lambda file: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file, row_group_size=100),
    "Arrow of save_to_disk": write_arrow_folder,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_records(tmp_path: Path, write: Any) -> None:
    file = tmp_path / "data"  # the name tells nothing
    write(file)
    read = list(read_records(file))
    assert [number for number, _ in read] == list(range(1, len(ROWS) + 1))  # type: ignore[misc]
    assert [json.loads(line) for _, line in read] == ROWS  # type: ignore[misc]


def test_a_zstd_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    write_zstd(tmp_path / "whole", LINES)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    *_, last = read_records(tmp_path / "cut")
    assert isinstance(last, LineError)


def test_a_parquet_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-20])
    (error,) = read_records(tmp_path / "cut")
    assert isinstance(error, LineError)
    assert error.message.startswith("The file can't be read beyond row 0")


def test_text_that_its_writer_did_not_mark_as_text_is_text(tmp_path: Path) -> None:
    """Spark and Impala write columns of bytes."""
    column = pyarrow.array([b"hello", "café".encode()], pyarrow.binary())
    pyarrow.parquet.write_table(pyarrow.table({"prompt": column, "completion": column}), tmp_path / "data")
    read = [json.loads(line) for _, line in read_records(tmp_path / "data")]  # type: ignore[misc]
    assert read == [{"prompt": text, "completion": text} for text in ("hello", "café")]


def test_bytes_that_are_no_text_are_named_by_row_and_column(tmp_path: Path) -> None:
    table = pyarrow.table({"prompt": ["a", "b"], "completion": pyarrow.array([b"caf\xe9", b"d"], pyarrow.binary())})
    pyarrow.parquet.write_table(table, tmp_path / "data")
    assert list(read_records(tmp_path / "data")) == [
        LineError(1, "The column 'completion' holds bytes that are not UTF-8 text."),
        (2, b'{"prompt":"b","completion":"d"}'),
    ]
