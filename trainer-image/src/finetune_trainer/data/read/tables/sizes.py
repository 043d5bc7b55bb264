"""How long the JSON of a table's rows will be, before it is made.

A file may say but once what thousands of rows have: dictionaries, runs and references make gigabytes of kilobytes.
"""

from __future__ import annotations

from typing import Any

import pyarrow
import pyarrow.compute
from pyarrow import types


def least_json_bytes(array: Any) -> int | None:
    """The bytes of an array's values as JSON, without quotes, keys and nulls. None: pyarrow has no lengths of views."""
    try:
        return _least(array)
    except pyarrow.ArrowNotImplementedError:  # views
        return None


def _least(array: Any) -> int:
    kind = array.type
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _least(array.storage)
    if types.is_dictionary(kind) and _is_text(kind.value_type):
        lengths = pyarrow.compute.binary_length(array.dictionary)
        return _sum(pyarrow.compute.take(lengths, array.indices))
    if types.is_struct(kind):
        return sum(map(_least, array.flatten()))
    if types.is_map(kind):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(_least(part.slice(first, last - first)) for part in (array.keys, array.items))
    if types.is_nested(kind):
        return _least(array.flatten())
    if _is_text(kind):
        return _sum(pyarrow.compute.binary_length(array))
    return len(array) - int(array.null_count)


def _is_text(kind: Any) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _sum(lengths: Any) -> int:
    return int(pyarrow.compute.sum(lengths).as_py() or 0)
