"""Lines of a JSON Lines file, plain or gzip, read one at a time; what is wrong is named with its line.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson

LONGEST_LINE_BYTES = 16 * 1024 * 1024

GZIP_MAGIC = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class LineError:
    """What is wrong with a line, counted from 1."""

    line: int
    message: str


@dataclass(frozen=True)
class Record:
    """The JSON value of a line."""

    line: int
    value: object


def read_lines(file: Path) -> Iterator[tuple[int, bytes] | LineError]:
    """Every line that is not blank, with its number, or what keeps it from being read. Raises OSError."""
    with file.open("rb") as raw:
        packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        with gzip.open(raw) if packed else raw as stream:
            yield from read_stream(stream)


def parse(number: int, line: bytes) -> Record | LineError:
    """A line's JSON value, or why it has none."""
    try:
        return Record(number, orjson.loads(line.rstrip(b"\r\n")))
    except orjson.JSONDecodeError as error:
        return LineError(number, _why_not_json(line, error))


def read_stream(stream: IO[bytes] | gzip.GzipFile | io.BufferedReader) -> Iterator[tuple[int, bytes] | LineError]:
    """The same of an open stream."""
    number = 0
    while True:
        try:
            line = stream.readline(LONGEST_LINE_BYTES + 1)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            yield LineError(number + 1, f"The gzip file is broken: {error}.")
            return
        if not line:
            return
        number += 1
        if number == 1 and line.startswith(UTF16_BOMS):
            yield LineError(1, "The file is UTF-16. Save it as UTF-8.")
            return
        if len(line) > LONGEST_LINE_BYTES:
            yield LineError(number, f"The line is longer than {LONGEST_LINE_BYTES // 2**20} MiB.")
            _skip_rest_of_line(stream)
        elif not line.isspace():
            yield number, line


def _why_not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    if line.startswith(UTF8_BOM):
        return "The line starts with a byte order mark (BOM). Save the file as UTF-8 without one."
    if b"\x00" in line:
        return f"The line has a NUL byte at column {line.index(0) + 1}. Is the file really UTF-8 text?"
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        return f"The line is not UTF-8: invalid byte 0x{line[bad.start]:02x} at column {bad.start + 1}."
    return f"The line is not JSON: {error.msg.split(': line')[0]} at column {error.colno}."


def _skip_rest_of_line(stream: IO[bytes] | gzip.GzipFile | io.BufferedReader) -> None:
    while rest := stream.readline(LONGEST_LINE_BYTES):
        if rest.endswith(b"\n"):
            return
