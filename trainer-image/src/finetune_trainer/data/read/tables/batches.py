"""The rows of Parquet and Arrow files, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

ARROW_FILE_MAGIC = b"ARROW1"
ARROW_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
ROWS_AT_ONCE = 256
BYTES_AT_ONCE = 128 * 1024 * 1024


def parquet_batches(file: Path) -> Iterator[Any]:
    """The batches of a Parquet file, with few rows each if values may be large: any row may repeat the largest one."""
    with pyarrow.parquet.ParquetFile(file) as opened:
        for number in range(opened.num_row_groups):
            group = opened.metadata.row_group(number)
            largest = max([1, *(group.column(column).total_uncompressed_size for column in range(group.num_columns))])
            rows = min(ROWS_AT_ONCE, max(1, BYTES_AT_ONCE // largest))
            yield from opened.iter_batches(rows, row_groups=[number])


def arrow_batches(file: Path) -> Iterator[Any]:
    """The batches of an Arrow file or stream. Raises ValueError for a truncated stream."""
    with pyarrow.memory_map(str(file)) as source:
        is_file = source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC
        source.seek(0)
        for batch in _file_batches(source) if is_file else _stream_batches(source):
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield batch.slice(start, ROWS_AT_ONCE)


def _file_batches(source: Any) -> Iterator[Any]:
    reader = pyarrow.ipc.open_file(source)
    return map(reader.get_batch, range(reader.num_record_batches))


def _stream_batches(source: Any) -> Iterator[Any]:
    """Checks the end-of-stream marker: pyarrow accepts a truncated stream, and ignores what follows the marker.

    https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
    """
    reader = pyarrow.ipc.open_stream(source)
    end = source.tell()
    for batch in reader:
        end = source.tell()
        yield batch
    source.seek(end)
    if source.read(len(ARROW_STREAM_END)) != ARROW_STREAM_END:
        raise ValueError("it is truncated there: the end-of-stream marker is missing. Upload it again")
    if source.tell() != source.size():
        raise ValueError("another stream starts there. Upload each one as a separate file")
