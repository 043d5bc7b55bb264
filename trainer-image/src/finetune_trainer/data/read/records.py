"""Reads the records of a file of any format, one at a time, each as a line of JSON.

JSON Lines (plain, gzip or zstd), Parquet, and Arrow as Hugging Face's `save_to_disk` writes it. The format is
recognized by the file's first bytes, never by its name. Memory use does not grow with the file, and all formats have
the same limits of line length and decompressed size. The libraries for Parquet, Arrow and zstd are imported only when
needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from finetune_trainer.data.read.jsonl import LineError, most_unpacked, read_lines, read_stream

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"
ARROW_MAGICS = (b"\xff\xff\xff\xff", b"ARROW1")
"""Of Arrow's stream and file formats."""

NumberedRecord = tuple[int, bytes]


def read_records(file: Path) -> Iterator[NumberedRecord | LineError]:
    """The number of each record, counted from 1 (the line in JSON Lines), and its JSON. Raises OSError."""
    with file.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(ZSTD_MAGIC):
        return _read_zstd(file)
    if start.startswith((PARQUET_MAGIC, *ARROW_MAGICS)):
        from finetune_trainer.data.read.tables.batches import arrow_batches, parquet_batches
        from finetune_trainer.data.read.tables.tables import read_table

        return read_table(file, parquet_batches if start.startswith(PARQUET_MAGIC) else arrow_batches)
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
