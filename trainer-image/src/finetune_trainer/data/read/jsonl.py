"""Reads JSON Lines, plain or gzip, one line at a time; errors name the line.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import orjson

LONGEST_LINE_BYTES = 16 * 1024 * 1024
READ_AT_ONCE = 128 * 1024  # bytes; the default buffer holds only a few lines

MOST_TIMES_UNPACKED = 200
SMALLEST_BOMB_BYTES = 256 * 1024 * 1024

GZIP_MAGIC = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
TOO_DEEP = "The line is nested too deeply."
CSV_HEADER = re.compile(rb'"?[\w ]+"?([,;\t]"?[\w ]+"?)+')


@dataclass(frozen=True)
class LineError:
    """An error of a line, counted from 1."""

    line: int
    message: str
    uri: str | None = field(default=None, kw_only=True)
    """The file, where errors of several files are reported together."""


@dataclass(frozen=True)
class Record:
    """The JSON value of a line."""

    line: int
    value: object


class _RepeatedKeyError(Exception):
    """An object repeats a key, which is the argument."""


def read_lines(file: Path) -> Iterator[tuple[int, bytes] | LineError]:
    """Every line that is not blank, with its number, or the error of reading it. Raises OSError."""
    with file.open("rb", buffering=READ_AT_ONCE) as raw:
        is_gzip = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        if not is_gzip:
            yield from read_stream(raw)
            return
        with gzip.open(raw) as stream:
            yield from read_stream(stream, most_unpacked(file))


def most_unpacked(file: Path) -> int:
    """The maximum size of a decompressed file, in bytes: text compresses to a tenth, a bomb to a thousandth."""
    return max(SMALLEST_BOMB_BYTES, MOST_TIMES_UNPACKED * file.stat().st_size)


def too_long(number: int) -> LineError:
    """The error of a line or row of more than LONGEST_LINE_BYTES."""
    return LineError(number, f"The line is longer than {LONGEST_LINE_BYTES // 2**20} MiB.")


def unpacks_too_far(number: int, most: int) -> LineError:
    """The error at the line where a decompressed file exceeds its maximum size."""
    return LineError(number, f"The file unpacks to more than {most // 2**20} MiB: it is not read further.")


def parse(number: int, line: bytes) -> Record | LineError:
    """The JSON value of a line, or its error."""
    try:
        return Record(number, orjson.loads(line.rstrip(b"\r\n")))
    except orjson.JSONDecodeError as error:
        return LineError(number, _why_not_json(line, error))


def nests_too_deeply(value: object) -> bool:
    """Whether a parsed value can't be serialized again: orjson parses 1,024 levels and serializes 254."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False


def may_repeat_a_key(line: bytes) -> bool:
    """Whether an object of the line may repeat a key; False is certain.

    A decoder drops repeated keys, so the line has fewer quotes when serialized again. Escaped quotes may hide that.
    """
    if b"\\u0022" in line:
        return True
    try:
        return orjson.dumps(orjson.loads(line)).count(b'"') != line.count(b'"')
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return True


def repeated_key(line: bytes | str) -> str | None:
    """The error of a key that an object repeats, or None: decoders differ in which value they keep.

    A value that is nested too deeply to be checked is an error, too.
    """

    def check(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(key)
            seen.add(key)

    try:
        json.loads(line, object_pairs_hook=check)
    except _RepeatedKeyError as error:
        return f"The key {error.args[0]!r} appears twice in one object."
    except RecursionError:
        return TOO_DEEP if _is_json(line) else None
    except ValueError:
        return None
    return None


def _is_json(line: bytes | str) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def read_stream(
    stream: IO[bytes] | gzip.GzipFile | io.BufferedReader, most: int | None = None
) -> Iterator[tuple[int, bytes] | LineError]:
    """Like read_lines, from an open stream; at most `most` bytes are read."""
    number = read = 0
    begins = True
    while True:
        try:
            chunk = stream.readline(LONGEST_LINE_BYTES + 1)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            yield LineError(number + 1, f"The gzip file is broken: {error}.")
            return
        if not chunk:
            return
        read += len(chunk)
        number += begins
        if most is not None and read > most:
            yield unpacks_too_far(number, most)
            return
        if number == 1 and begins and (refusal := _why_not_json_lines(chunk)):
            yield LineError(1, refusal)
            return
        if begins and len(chunk) > LONGEST_LINE_BYTES:
            yield too_long(number)
        elif begins and not chunk.isspace():
            yield number, chunk
        begins = chunk.endswith(b"\n")


def _why_not_json_lines(first: bytes) -> str | None:
    """Why a file is not JSON Lines, if its first line looks like another format."""
    if first.startswith(UTF16_BOMS):
        return "The file is UTF-16. Save it as UTF-8."
    if first.startswith(b"["):
        return "The file is one JSON array. Write one object per line: jq -c '.[]' FILE."
    if first.strip() == b"{":
        return "The file is indented JSON. Write each object on one line: jq -c . FILE."
    if CSV_HEADER.fullmatch(first.strip()):
        return "The file looks like CSV. Write each of its rows as a JSON object, one per line."
    return None


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
