"""The rows of Parquet and Arrow files, in batches whose size does not grow with the file's."""

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
    """Few rows at a time of a row group that may have large values: any row may repeat the largest one."""
    with pyarrow.parquet.ParquetFile(file) as opened:
        for number in range(opened.num_row_groups):
            group = opened.metadata.row_group(number)
            largest = max([1, *(group.column(column).total_uncompressed_size for column in range(group.num_columns))])
            rows = min(ROWS_AT_ONCE, max(1, BYTES_AT_ONCE // largest))
            yield from opened.iter_batches(rows, row_groups=[number])


def arrow_batches(file: Path) -> Iterator[Any]:
    """The batches of either of Arrow's formats. Raises ValueError for a stream that was cut off."""
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
    """pyarrow takes the end of the file for the end of the stream, and reads nothing behind the marker of the end.

    https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
    """
    reader = pyarrow.ipc.open_stream(source)
    end = source.tell()
    for batch in reader:
        end = source.tell()
        yield batch
    source.seek(end)
    if source.read(len(ARROW_STREAM_END)) != ARROW_STREAM_END:
        raise ValueError("it was cut off there, without the marker that ends it. Upload it again")
    if source.tell() != source.size():
        raise ValueError("another stream begins there. Upload each as a file of its own")
