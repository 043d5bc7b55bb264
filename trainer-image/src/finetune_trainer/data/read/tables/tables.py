"""Reads the rows of a table, each as a line of JSON, with the limits of JSON Lines. Imported only for tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow
from pyarrow import types

from finetune_trainer.data.read.conversions import without_nulls
from finetune_trainer.data.read.jsonl import LONGEST_LINE_BYTES, LineError, most_unpacked, too_long, unpacks_too_far
from finetune_trainer.data.read.tables.sizes import least_json_bytes

NumberedRow = tuple[int, bytes]


def read_table(file: Path, batches: Callable[[Path], Iterator[Any]]) -> Iterator[NumberedRow | LineError]:
    """Each row's number, counted from 1, and its JSON, or its error."""
    number = read = 0
    most = most_unpacked(file)
    try:
        for batch in batches(file):
            if repeated := _repeated_name(pyarrow.struct(batch.schema)):
                yield LineError(1, f"The table has several columns or fields named {repeated!r}. Keep one of them.")
                return
            for row in _rows(batch):
                number += 1
                line = too_long(number) if row is None else _to_json(number, row)
                read += 0 if isinstance(line, LineError) else len(line[1])
                if read > most:
                    yield unpacks_too_far(number, most)
                    return
                yield line
    except (pyarrow.ArrowException, IndexError, OSError, TypeError, ValueError) as error:  # Also for invalid UTF-8.
        yield LineError(number + 1, f"The file can't be read beyond row {number}: {error}")


def _repeated_name(kind: Any) -> str | None:
    """A name that a row's JSON would repeat: pyarrow keeps the last such column, and rejects such fields."""
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _repeated_name(kind.storage_type)
    if types.is_dictionary(kind):
        return _repeated_name(kind.value_type)
    fields = [kind.field(at) for at in range(kind.num_fields)]
    if types.is_struct(kind):
        names: list[str] = [field.name for field in fields]
        if repeated := next((name for at, name in enumerate(names) if name in names[:at]), None):
            return repeated
    return next((found for field in fields if (found := _repeated_name(field.type))), None)


def _rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; None for a row that is too long.

    They are decoded one by one if they are large together, or if their size is unknown.
    """
    size = least_json_bytes(batch.to_struct_array())
    if size is not None and size <= LONGEST_LINE_BYTES:
        yield from batch.to_pylist()
        return
    for at in range(batch.num_rows):
        row = batch.slice(at, 1)
        size = least_json_bytes(row.to_struct_array())
        yield row.to_pylist()[0] if size is None or size <= LONGEST_LINE_BYTES else None


def _to_json(number: int, row: dict[str, Any]) -> NumberedRow | LineError:
    row = without_nulls(row)
    try:
        line = orjson.dumps(row, default=_text)
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            return LineError(number, f"The column {_not_text(row)!r} holds bytes that are not UTF-8 text.")
        return LineError(number, f"The row can't be written as JSON: {error}.")
    return (number, line) if len(line) <= LONGEST_LINE_BYTES else too_long(number)


def _text(value: object) -> str:
    """Text of older Parquet writers (Spark, Impala), which do not mark it as such: it is read as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _not_text(row: dict[str, Any]) -> str:
    """The first column that can't be written as JSON."""
    for column, value in row.items():
        try:
            orjson.dumps(value, default=_text)
        except orjson.JSONEncodeError:
            return column
    raise AssertionError("every column of the row can be written")
