"""Computes the size of the JSON of a table's rows in advance.

A file may store once what thousands of rows share: dictionaries, runs and references can expand kilobytes to gigabytes.
So each size is computed from the stored data without decoding it.
"""

from __future__ import annotations

from typing import Any

import numpy
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray
from pyarrow import types

Numbers = NDArray[numpy.int64]


class UnknownTypeError(TypeError):
    """An Arrow type whose sizes can't be computed here."""


MOST_VALUES = 2**31
LARGEST = 2**30
"""Sizes are capped at this many bytes, so that the sum of MOST_VALUES sizes does not overflow."""


def least_json_bytes(array: Any) -> int | None:
    """A lower bound of an array's size as JSON, in bytes without quotes, keys and nulls; None for an unknown type.

    It is capped at LARGEST, which is also returned for an array that refers to more than MOST_VALUES values.
    """
    try:
        return int(_sums(array, numpy.array([0]), numpy.array([len(array)]))[0])
    except OverflowError:
        return LARGEST
    except (UnknownTypeError, pyarrow.ArrowNotImplementedError):
        return None


def _sums(array: Any, starts: Numbers, ends: Numbers) -> Numbers:
    """The size in bytes of each range of an array. Raises OverflowError, UnknownTypeError."""
    if not len(starts):
        return numpy.zeros(0, numpy.int64)
    first, last = int(starts.min()), int(ends.max())
    if last - first > MOST_VALUES:
        raise OverflowError
    part, starts, ends = array.slice(first, last - first), starts - first, ends - first
    kind = part.type
    if isinstance(kind, pyarrow.BaseExtensionType):
        sums = _sums(part.storage, starts, ends)
    elif types.is_null(kind):
        sums = numpy.zeros_like(starts)
    elif _is_text(kind):
        sums = _ranges(_text_lengths(part), starts, ends)
    elif types.is_run_end_encoded(kind):
        sums = _run_sums(part, starts, ends)
    elif types.is_union(kind):
        sums = _ranges(_union_sizes(part), starts, ends)
    elif not part.null_count:
        sums = _sums_without_nulls(part, starts, ends)
    elif types.is_nested(kind) or types.is_dictionary(kind):
        at = numpy.arange(len(part))
        sums = _ranges(numpy.where(_valid(part), _sums_without_nulls(part, at, at + 1), 0), starts, ends)
    else:
        sums = _ranges(_valid(part), starts, ends)
    return numpy.minimum(sums, LARGEST)


def _sums_without_nulls(array: Any, starts: Numbers, ends: Numbers) -> Numbers:
    """The same for arrays without nulls: the value behind a null would count, too."""
    kind = array.type
    if types.is_dictionary(kind):
        at = _numbers(array.indices.fill_null(0))
        return _ranges(_sums(array.dictionary, at, at + 1) if len(array.dictionary) else at, starts, ends)
    if types.is_struct(kind):
        return sum((_sums(array.field(at), starts, ends) for at in range(kind.num_fields)), numpy.zeros_like(starts))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        begins = _numbers(array.offsets)
        return _ranges(_list_sums([array.values], begins, begins + _numbers(array.sizes)), starts, ends)
    if types.is_fixed_size_list(kind):
        return _list_sums([array.values], *((array.offset + at) * kind.list_size for at in (starts, ends)))
    if types.is_map(kind) or types.is_list(kind) or types.is_large_list(kind):
        offsets = _numbers(array.offsets)
        parts = [array.keys, array.items] if types.is_map(kind) else [array.values]
        return _list_sums(parts, offsets[starts], offsets[ends])
    if types.is_nested(kind):
        raise UnknownTypeError(str(kind))
    return ends - starts


def _list_sums(parts: list[Any], starts: Numbers, ends: Numbers) -> Numbers:
    """The sizes of lists, with one byte per value for its comma or bracket: a list of nulls is not empty."""
    return sum((_sums(part, starts, ends) for part in parts), numpy.minimum(ends - starts, LARGEST))


def _run_sums(array: Any, starts: Numbers, ends: Numbers) -> Numbers:
    run_ends = numpy.clip(_numbers(array.run_ends) - array.offset, 0, len(array))
    at = numpy.arange(len(run_ends))
    sizes = _sums(array.values, at, at + 1)
    until_run = numpy.concatenate([[0], numpy.cumsum(sizes * numpy.diff(run_ends, prepend=0))])

    def until(position: Numbers) -> Numbers:
        run = numpy.searchsorted(run_ends, position)
        begin = numpy.concatenate([[0], run_ends])[run]
        return numpy.asarray(until_run[run] + numpy.append(sizes, 0)[run] * (position - begin))

    return until(ends) - until(starts)


def _union_sizes(array: Any) -> Numbers:
    """The size of each value of a union."""
    of_array = slice(array.offset, array.offset + len(array))  # pyarrow's type_codes and offsets ignore the slice.
    codes = numpy.frombuffer(array.buffers()[1] or b"", numpy.int8)[of_array]
    offsets = numpy.arange(len(array))
    if array.type.mode == "dense":
        offsets = numpy.frombuffer(array.buffers()[2] or b"", numpy.int32)[of_array].astype(numpy.int64)
    sizes = numpy.zeros(len(array), numpy.int64)
    for number, code in enumerate(array.type.type_codes):
        of_type = codes == code
        at = offsets[of_type]
        sizes[of_type] = _sums(array.field(number), at, at + 1)
    return sizes


def _is_text(kind: Any) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or _is_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    )


def _is_view(kind: Any) -> bool:
    return bool(types.is_string_view(kind) or types.is_binary_view(kind))


def _text_lengths(array: Any) -> Numbers:
    if not _is_view(array.type):
        return _numbers(pyarrow.compute.binary_length(array).fill_null(0))
    # pyarrow can't compute the lengths of views: each view has 16 bytes, the first four of which are its length.
    # https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout
    views = numpy.frombuffer(array.buffers()[1] or b"", numpy.int32).reshape(-1, 4)
    return numpy.where(_valid(array), views[array.offset : array.offset + len(array), 0], 0)


def _valid(array: Any) -> NDArray[numpy.bool]:
    """Reads the validity bitmap: pyarrow's is_valid crashes the process on some slices of dictionaries and structs."""
    bits = array.buffers()[0]
    if bits is None:
        return numpy.ones(len(array), numpy.bool)
    first, last = array.offset // 8, (array.offset + len(array) + 7) // 8
    unpacked = numpy.unpackbits(numpy.frombuffer(bits, numpy.uint8)[first:last], bitorder="little")
    return unpacked[array.offset % 8 :][: len(array)].astype(numpy.bool)


def _numbers(array: Any) -> Numbers:
    return numpy.asarray(array.to_numpy(zero_copy_only=False)).astype(numpy.int64)


def _ranges(sizes: NDArray[Any], starts: Numbers, ends: Numbers) -> Numbers:
    """The sum of each range."""
    until = numpy.concatenate([[0], numpy.cumsum(sizes, dtype=numpy.int64)])
    return numpy.asarray(until[ends] - until[starts])
