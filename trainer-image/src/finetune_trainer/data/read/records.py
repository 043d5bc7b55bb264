"""Reads the records of a file of any format, one at a time, each as a line of JSON.

JSON Lines plain, gzip or zstd; Parquet; Arrow as Hugging Face's `save_to_disk` writes it. The format is recognized by
the file's first bytes, never by its name. Memory does not grow with the file. What only Parquet, Arrow and zstd need is
imported when one comes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from finetune_trainer.data.read.forms import without_nulls
from finetune_trainer.data.read.jsonl import LineError, most_unpacked, read_lines, read_stream

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"
ARROW_FILE_MAGIC = b"ARROW1"
ROWS_AT_ONCE = 256

NumberedRecord = tuple[int, bytes]


def read_records(file: Path) -> Iterator[NumberedRecord | LineError]:
    """Each record's number, counted from 1 (for JSON Lines the line's), and its JSON. Raises OSError."""
    with file.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(ZSTD_MAGIC):
        return _read_zstd(file)
    if start.startswith(PARQUET_MAGIC):
        return _read_table(file, _parquet_batches)
    if start.startswith((ARROW_STREAM_MAGIC, ARROW_FILE_MAGIC)):
        return _read_table(file, _arrow_batches)
    return read_lines(file)


def _read_zstd(file: Path) -> Iterator[NumberedRecord | LineError]:
    import pyarrow

    number = 0
    try:
        with pyarrow.input_stream(str(file), compression="zstd") as stream:
            for item in read_stream(io.BufferedReader(stream), most_unpacked(file)):
                number = item.line if isinstance(item, LineError) else item[0]
                yield item
    except OSError as error:
        yield LineError(number + 1, f"The zstd file is broken: {error}.")


def _read_table(file: Path, batches: Any) -> Iterator[NumberedRecord | LineError]:
    import pyarrow

    number = 0
    try:
        for batch in batches(file):
            for row in batch.to_pylist():
                number += 1
                yield _to_json(number, row)
    except (pyarrow.ArrowException, OSError, TypeError, ValueError) as error:  # the last two: text that is none
        yield LineError(number + 1, f"The file can't be read beyond row {number}: {error}")


def _to_json(number: int, row: dict[str, Any]) -> NumberedRecord | LineError:
    row = without_nulls(row)
    try:
        return number, orjson.dumps(row, default=_text)
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            return LineError(number, f"The column {_not_text(row)!r} holds bytes that are not UTF-8 text.")
        return LineError(number, f"The row can't be written as JSON: {error}.")


def _text(value: object) -> str:
    """Older writers of Parquet (Spark, Impala) mark no text as such: it comes as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _not_text(row: dict[str, Any]) -> str:
    """The first column that can't be written as JSON."""
    for column, value in row.items():
        try:
            orjson.dumps(value, default=_text)
        except orjson.JSONEncodeError:
            return column
    raise AssertionError("every column of the row can be written")


def _parquet_batches(file: Path) -> Iterable[Any]:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file).iter_batches(ROWS_AT_ONCE)  # type: ignore[no-any-return]


def _arrow_batches(file: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        stream = source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC
        source.seek(0)
        if stream:
            reader = pyarrow.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield from _slices(reader.get_batch(number))
        else:
            for batch in pyarrow.ipc.open_stream(source):
                yield from _slices(batch)


def _slices(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, ROWS_AT_ONCE):
        yield batch.slice(start, ROWS_AT_ONCE)
