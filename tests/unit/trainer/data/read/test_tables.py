"""Parquet and Arrow have the limits of JSON Lines, and what is missing at their end is told."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from finetune_trainer.__main__ import app
from finetune_trainer.data.read import jsonl
from finetune_trainer.data.read.jsonl import LONGEST_LINE_BYTES, LineError
from finetune_trainer.data.read.records import read_records
from finetune_trainer.data.read.tables import tables
from finetune_trainer.data.read.tables.sizes import least_json_bytes


def write_parquet(file: Path, table: pyarrow.Table) -> None:
    """As other writers do it: without pyarrow's note, a dictionary in the file is none in memory."""
    pyarrow.parquet.write_table(table, file, store_schema=False, dictionary_pagesize_limit=2**30)


def write_parquet_with_notes(file: Path, table: pyarrow.Table) -> None:
    pyarrow.parquet.write_table(table, file, dictionary_pagesize_limit=2**30)


def write_arrow_stream(file: Path, table: pyarrow.Table) -> None:
    with pyarrow.ipc.new_stream(str(file), table.schema) as writer:
        writer.write_table(table)


def write_arrow_file(file: Path, table: pyarrow.Table) -> None:
    with pyarrow.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table)


TABLES = [write_parquet, write_parquet_with_notes, write_arrow_stream, write_arrow_file]


def repeated(text: str, rows: int) -> pyarrow.Array:
    """A column that holds a text once, and refers to it in every row."""
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), pyarrow.array([text]))


@pytest.mark.parametrize("write", TABLES)
def test_a_text_that_a_table_holds_once_is_not_in_memory_for_every_row(tmp_path: Path, write: Any) -> None:
    """All of them would be 800 MiB. To write one, orjson takes many times its length."""
    text = "x" * 2**22
    write(tmp_path / "data", pyarrow.table({"completion": repeated(text, 200)}))
    before = pyarrow.default_memory_pool().bytes_allocated()
    tracemalloc.start()
    try:
        first = next(read_records(tmp_path / "data"))
        assert pyarrow.default_memory_pool().bytes_allocated() - before < 256 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    finally:
        tracemalloc.stop()
    assert json.loads(first[1]) == {"completion": text}  # type: ignore[index]


@pytest.mark.parametrize("write", TABLES)
def test_two_columns_of_one_name_are_refused_and_none_is_learned_in_silence(tmp_path: Path, write: Any) -> None:
    columns = [pyarrow.array([text] * 2) for text in ("2+2?", "4", "5")]
    write(tmp_path / "data", pyarrow.Table.from_arrays(columns, names=["prompt", "completion", "completion"]))
    (error,) = read_records(tmp_path / "data")
    assert error == LineError(1, "The table has several columns or fields named 'completion'. Keep one of them.")


@pytest.mark.parametrize("write", TABLES)
def test_so_are_two_fields_of_messages(tmp_path: Path, write: Any) -> None:
    fields = [pyarrow.array(texts) for texts in (["user", "assistant"], ["2+2?", "4"], ["2+2?", "5"])]
    message = pyarrow.StructArray.from_arrays(fields, names=["role", "content", "content"])
    write(tmp_path / "data", pyarrow.table({"messages": pyarrow.ListArray.from_arrays([0, 2], message)}))
    (error,) = read_records(tmp_path / "data")
    assert isinstance(error, LineError)
    assert "named 'content'" in error.message


@pytest.mark.parametrize("write", TABLES)
def test_a_row_is_no_longer_than_a_line_may_be(tmp_path: Path, write: Any) -> None:
    long = ["a", "b" * LONGEST_LINE_BYTES, "c"]
    write(tmp_path / "data", pyarrow.table({"prompt": long, "completion": ["x", "y", "z"]}))
    first, second, third = read_records(tmp_path / "data")
    assert second == LineError(2, "The line is longer than 16 MiB.")
    assert [first, third] == [(1, b'{"prompt":"a","completion":"x"}'), (3, b'{"prompt":"c","completion":"z"}')]


def test_nor_is_one_that_its_quotes_make_longer(tmp_path: Path) -> None:
    write_arrow_file(tmp_path / "data", pyarrow.table({"prompt": ['"' * (LONGEST_LINE_BYTES * 3 // 4)]}))
    assert list(read_records(tmp_path / "data")) == [LineError(1, "The line is longer than 16 MiB.")]


@pytest.mark.parametrize("write", [write_arrow_stream, write_arrow_file])
def test_a_row_that_would_be_gigabytes_is_not_made(tmp_path: Path, write: Any) -> None:
    """A list may refer to one text a thousand times."""
    column = pyarrow.ListArray.from_arrays([0, 1, 1000], repeated("x" * 2**20, 1000))
    write(tmp_path / "data", pyarrow.table({"prompt": column}))
    tracemalloc.start()
    try:
        first, second = read_records(tmp_path / "data")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert first == (1, json.dumps({"prompt": ["x" * 2**20]}, separators=(",", ":")).encode())
    assert second == LineError(2, "The line is longer than 16 MiB.")


@pytest.mark.parametrize("write", TABLES)
def test_a_table_expands_no_further_than_other_files(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "SMALLEST_BOMB_BYTES", 2**20)
    write(tmp_path / "data", pyarrow.table({"completion": repeated("x" * 2**17, 1000)}))
    *read, last = read_records(tmp_path / "data")
    assert isinstance(last, LineError)
    assert last.message.startswith("The file unpacks to more than")
    assert 1 < len(read) < 500


COLUMNS = [
    pyarrow.array([[("a", 1)], None, [("b", 2), ("c", 3)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    pyarrow.array(["a", None, "b"], pyarrow.string_view()),
    pyarrow.array([[1], None, [2, 3]], pyarrow.list_(pyarrow.int64())),
    pyarrow.array([["a", "b"], None, ["c", "d"]], pyarrow.list_(pyarrow.large_string(), 2)),
    pyarrow.array([{"a": None, "b": 1.5}, None, {"a": "x", "b": None}]),
    pyarrow.array([b"abc", None, b"def"], pyarrow.binary(3)),
    pyarrow.array([True, None, False]),
    pyarrow.nulls(3),
    pyarrow.array([[["a"]], None, [["b"], None]], pyarrow.list_view(pyarrow.list_(pyarrow.string_view()))),
    pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, None, 0]), pyarrow.array([["a", None], ["b"]])),
    pyarrow.RunEndEncodedArray.from_arrays([1, 2, 3], pyarrow.array([["a"], None, ["b"]])),
    pyarrow.UnionArray.from_sparse(
        pyarrow.array([0, 0, 1], pyarrow.int8()), [pyarrow.array(["a", None, None]), pyarrow.array([0, 0, 1])]
    ),
    pyarrow.UnionArray.from_dense(
        pyarrow.array([0, 0, 1], pyarrow.int8()),
        pyarrow.array([0, 1, 0], pyarrow.int32()),
        [pyarrow.array([["a"], None]), pyarrow.array([1])],
    ),
]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type))
@pytest.mark.parametrize("text", ["short", "x" * (LONGEST_LINE_BYTES // 2)], ids=["at once", "one by one"])
def test_every_type_of_column_is_read(tmp_path: Path, column: pyarrow.Array, text: str) -> None:
    """Also where the rows are too large together."""
    write_arrow_file(tmp_path / "data", pyarrow.table({"x": column, "prompt": [text] * 3}))
    read = [json.loads(line) for _, line in read_records(tmp_path / "data")]  # type: ignore[misc]
    assert [row["prompt"] for row in read] == [text] * 3
    assert "x" not in read[1]


TEXT = "x" * 2**20
MANY = 200
FIRST = pyarrow.array([0] * MANY, pyarrow.int32())
AS_VIEW = pyarrow.array([TEXT], pyarrow.string_view())
LARGE_TOGETHER = {
    "dictionary of lists": pyarrow.DictionaryArray.from_arrays(FIRST, pyarrow.array([[TEXT]])),
    "dictionary of structs": pyarrow.DictionaryArray.from_arrays(FIRST, pyarrow.array([{"a": TEXT}])),
    "runs": pyarrow.RunEndEncodedArray.from_arrays([MANY], pyarrow.array([TEXT])),
    "runs of lists": pyarrow.RunEndEncodedArray.from_arrays([MANY], pyarrow.array([[TEXT]])),
    "sparse union": pyarrow.UnionArray.from_sparse(pyarrow.array([0] * MANY, pyarrow.int8()), [repeated(TEXT, MANY)]),
    "dense union": pyarrow.UnionArray.from_dense(
        pyarrow.array([0] * MANY, pyarrow.int8()), pyarrow.array(range(MANY), pyarrow.int32()), [repeated(TEXT, MANY)]
    ),
    "views of lists": pyarrow.ListViewArray.from_arrays(FIRST, [1] * MANY, pyarrow.array([TEXT])),
    "views of text": pyarrow.StringViewArray.from_buffers(
        pyarrow.string_view(),
        MANY,
        [None, pyarrow.py_buffer(AS_VIEW.buffers()[1].to_pybytes() * MANY), *AS_VIEW.buffers()[2:]],
    ),
}


@pytest.mark.parametrize("kind", LARGE_TOGETHER)
def test_whatever_a_column_refers_to_often_is_not_in_memory_for_every_row(tmp_path: Path, kind: str) -> None:
    """Together they would be 200 MiB."""
    write_arrow_file(tmp_path / "data", pyarrow.table({"x": LARGE_TOGETHER[kind]}))
    before = pyarrow.default_memory_pool().bytes_allocated()
    tracemalloc.start()
    try:
        rows = sum(TEXT.encode() in line for _, line in read_records(tmp_path / "data"))  # type: ignore[misc]
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        assert pyarrow.default_memory_pool().bytes_allocated() - before < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert rows == MANY


NESTED = {
    **LARGE_TOGETHER,
    "nulls": pyarrow.nulls(2**25),
    "long run": pyarrow.RunEndEncodedArray.from_arrays([2**25], pyarrow.array([1])),
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_row_that_refers_to_them_often_is_refused_unmade(tmp_path: Path, kind: str) -> None:
    column = pyarrow.LargeListArray.from_arrays([0, len(NESTED[kind])], NESTED[kind])
    write_arrow_file(tmp_path / "data", pyarrow.table({"x": column}))
    tracemalloc.start()
    try:
        assert list(read_records(tmp_path / "data")) == [LineError(1, "The line is longer than 16 MiB.")]
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_rows_whose_size_nobody_knows_are_made_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a type that a later Arrow brings."""
    write_arrow_file(tmp_path / "data", pyarrow.table({"x": repeated(TEXT, MANY)}))
    monkeypatch.setattr(tables, "least_json_bytes", lambda _: None)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_records(tmp_path / "data")) == MANY
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_only_what_a_slice_of_a_table_has_is_measured() -> None:
    text = pyarrow.array(["1", "22", "333", None])
    runs = pyarrow.RunEndEncodedArray.from_arrays([1, 3, 4], pyarrow.array(["1", "22", "333"]))
    union = pyarrow.UnionArray.from_dense(
        pyarrow.array([0, 1, 0, 0], pyarrow.int8()),
        pyarrow.array([0, 0, 1, 2], pyarrow.int32()),
        [text, pyarrow.array([7])],
    )
    hidden = pyarrow.ListArray.from_arrays([0, 1, 3, 3, 4], text, mask=pyarrow.array([False, True, False, False]))
    for array, sizes in ((text, [1, 2, 3, 0]), (runs, [1, 2, 2, 3]), (union, [1, 1, 2, 3]), (hidden, [2, 0, 0, 1])):
        for start in range(5):
            for end in range(start, 5):
                assert least_json_bytes(array.slice(start, end - start)) == sum(sizes[start:end]), array.type


def stream(rows: int) -> tuple[bytes, list[int]]:
    """An Arrow stream of batches of one row, and where its schema and each batch end."""
    table, sink = pyarrow.table({"prompt": ["p"] * rows, "completion": ["c"] * rows}), io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        ends = []
        for batch in table.to_batches(max_chunksize=1):
            writer.write_batch(batch)
            ends.append(sink.tell())
    return sink.getvalue(), ends


def test_an_arrow_stream_that_is_cut_off_is_named_wherever_it_is_cut(tmp_path: Path) -> None:
    """At the end of a batch pyarrow takes the end of the file for the end of the stream."""
    whole, ends = stream(rows=4)
    (tmp_path / "data").write_bytes(whole)
    assert len(list(read_records(tmp_path / "data"))) == 4
    for cut in sorted({*ends, *range(ends[0] - 40, len(whole), 7), len(whole) - 1}):
        (tmp_path / "data").write_bytes(whole[:cut])
        *rows, last = read_records(tmp_path / "data")
        assert isinstance(last, LineError), cut
        assert (last.line, len(rows)) == (len(rows) + 1, sum(end <= cut for end in ends))


def test_what_stands_behind_an_arrow_stream_is_not_left_out_in_silence(tmp_path: Path) -> None:
    whole, _ = stream(rows=2)
    (tmp_path / "data").write_bytes(whole + whole)
    *rows, last = read_records(tmp_path / "data")
    assert len(rows) == 2
    assert isinstance(last, LineError)
    assert "another stream starts there. Upload each one as a separate file" in last.message


def test_a_saved_folder_that_lacks_a_shard_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{number}", "completion": "a"} for number in range(12)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    assert CliRunner().invoke(app, ["validate", str(tmp_path / "saved")]).exit_code == 0
    (tmp_path / "saved" / "data-00001-of-00003.arrow").unlink()
    refused = CliRunner().invoke(app, ["validate", str(tmp_path / "saved")])
    assert refused.exit_code == 1
    assert "lists 3 shards, of which 1 are missing" in refused.output
