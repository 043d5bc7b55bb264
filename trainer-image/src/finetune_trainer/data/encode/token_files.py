"""Tokenized rows in Arrow's streaming format: preflight stores them once, and training reads them without a tokenizer.

https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

NUMBERS_AT_ONCE = 1 << 17
"""How many numbers a batch has at least: in Python they take ten times the memory that they take in Arrow."""
TOKENS = pa.list_(pa.int32())

Tokens = Mapping[str, Sequence[int] | str]
"""A row: token ids and labels by column, or a text, as a Method makes it of text."""


class TokenWriter:
    """Writes rows to a compressed file, which is there once there is a row."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._rows: list[Tokens] = []
        self._numbers = 0
        self._stream: Any = None

    def write(self, row: Tokens) -> None:
        """Add a row."""
        self._rows.append(row)
        self._numbers += sum(map(len, row.values()))
        if self._numbers >= NUMBERS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        if self._stream is not None:
            self._stream.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = self._rows[0].items()
        schema = pa.schema([(name, pa.string() if isinstance(value, str) else TOKENS) for name, value in columns])
        if self._stream is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._stream = pa.ipc.new_stream(str(self.file), schema, options=options)
        self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=schema))
        self._rows, self._numbers = [], 0


def read_rows(file: Path, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
    """The rows with these numbers, counted from 0, of a compressed file, which is read a batch at a time."""
    found: dict[int, dict[str, Any]] = {}
    first = 0
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            here = [number for number in numbers if first <= number < first + batch.num_rows]
            found |= {number: row for number in here for row in batch.slice(number - first, 1).to_pylist()}
            first += batch.num_rows
    return found


def expand(compressed: Path, file: Path) -> None:
    """Write the rows of a compressed file as they are mapped into memory, a batch at a time."""
    with (
        pa.memory_map(str(compressed)) as source,
        pa.ipc.open_stream(source) as stream,
        pa.ipc.new_stream(str(file), stream.schema) as plain,
    ):
        for batch in stream:
            plain.write_batch(batch)


def mapped_rows(file: Path, fingerprint: str) -> Any:
    """A `datasets.Dataset` of a file that `expand` wrote. It takes no memory.

    `fingerprint`: the same in all processes of a node, which share what they make of it.
    """
    from datasets import Dataset
    from datasets.table import MemoryMappedTable

    return Dataset(MemoryMappedTable.from_file(str(file)), fingerprint=fingerprint)
