"""Which safetensors files of a folder are loaded, and what their headers say of the weights. No weight is read.

Files that contradict themselves, each other or the index are refused: loaders silently pick one
meaning, or fail when the accelerators are already allocated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError

LONGEST_HEADER_BYTES = 16 * 2**20
"""The largest models have 100,000 weights in all, of some hundred bytes each. The safetensors library allows 100 MB."""
LONGEST_INDEX_BYTES = 32 * 2**20
"""An index names all weights of all files, with the file of each."""
MOST_DIMENSIONS = 64
"""PyTorch has no tensor of more."""
SHOWN_CHARACTERS = 200
"""Of a name in a message."""
LENGTH_BYTES = 8
INDEX_NAME = "model.safetensors.index.json"
WHOLE_NAME = "model.safetensors"
ADAPTER_NAME = "adapter_model.safetensors"
NO_WEIGHT = "__metadata__"
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Of one element, by the format's name of its type."""
SAVE_AGAIN = "Upload the folder again, whole and without files of another save, as save_pretrained wrote it."


class Tensor(msgspec.Struct, frozen=True):
    """A weight in a header. `data_offsets` count from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


Tensors = Mapping[str, Tensor]
"""By the weight's name."""


class _Index(msgspec.Struct):
    """What is read of the index of a model in several files."""

    weight_map: dict[str, str]


def files_to_load(folder: Path, paths: Iterable[str], uri: str) -> dict[str, frozenset[str]]:
    """The files that transformers loads of a model, and the weights that the index promises of each.

    `folder`: where the index is, if there is one; `paths`: all that the model's own folder has. Raises DiagnosedError
    (ModelInvalid). An index is untrusted, and transformers opens what it names: only plain names of files that are
    there pass.
    """
    there = frozenset(paths)
    if WHOLE_NAME in there:
        return {WHOLE_NAME: frozenset()}
    if INDEX_NAME not in there:
        raise _invalid(
            f"{uri} has neither {WHOLE_NAME} nor {INDEX_NAME}, which lists the files of a model that has several. "
            "Upload the whole folder as save_pretrained wrote it."
        )
    named = _read_index(folder / INDEX_NAME, uri)
    for name in sorted(named):
        if not (name.endswith(".safetensors") and is_plain(name)):
            raise _invalid(
                f"{uri}: {INDEX_NAME} names {_shown(name)!r}, which is not a safetensors file of the model's own "
                "folder."
            )
    missing = sorted(named.keys() - there)
    if missing:
        raise _invalid(
            f"{uri} is not complete: {INDEX_NAME} names {', '.join(map(_shown, missing[:3]))}, and "
            f"{len(missing)} of its {len(named)} files are not there. Upload the whole model."
        )
    return named


def _read_index(file: Path, uri: str) -> dict[str, frozenset[str]]:
    """The weights of each file that an index names."""
    if (size := file.stat().st_size) > LONGEST_INDEX_BYTES:
        raise _invalid(f"{uri}: {INDEX_NAME} has {size} bytes; the maximum is {LONGEST_INDEX_BYTES}. {SAVE_AGAIN}")
    try:
        weights = msgspec.json.decode(file.read_bytes(), type=_Index).weight_map
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _invalid(f"{uri}: {INDEX_NAME} can't be read: {error}") from error
    of_file: dict[str, list[str]] = {}
    for weight, name in weights.items():
        of_file.setdefault(name, []).append(weight)
    return {name: frozenset(named) for name, named in of_file.items()}


def join(files: Mapping[str, Tensors], promised: Mapping[str, frozenset[str]], uri: str) -> dict[str, Tensor]:
    """The weights of all files. Raises DiagnosedError (ModelInvalid): one is twice there, or not where promised."""
    holders = {weight: file for file, tensors in files.items() for weight in tensors}
    for file, weights in promised.items():
        lacking = sorted(weights - files[file].keys())
        if lacking:
            where = f"; it is in {holders[lacking[0]]}" if lacking[0] in holders else ""
            raise _invalid(
                f"{uri}: {INDEX_NAME} says that {_some(lacking)} is in {file}, which does not have it{where}. "
                f"{SAVE_AGAIN}"
            )
    for file, tensors in files.items():
        twice = sorted(weight for weight in tensors if holders[weight] != file)
        if twice:
            raise _invalid(
                f"{uri} has {_some(twice)} twice: in {file} and in {holders[twice[0]]}. Which one is meant "
                f"can't be determined. {SAVE_AGAIN}"
            )
    return {weight: tensor for tensors in files.values() for weight, tensor in tensors.items()}


def read_tensors(read: Callable[[int, int], bytes], size: int, uri: str) -> Tensors:
    """The weights in a safetensors file's header. Raises DiagnosedError (ModelInvalid).

    A file is 8 bytes with the header's length, the header as JSON, then the weights without gaps.
    https://huggingface.co/docs/safetensors/index#format

    `read`: bytes of the file from a place, so many. `size`: of the file, in bytes.
    """
    prefix = read(0, LENGTH_BYTES) if size else b""
    (length,) = struct.unpack("<Q", prefix) if len(prefix) == LENGTH_BYTES else (0,)
    if not 0 < length <= LONGEST_HEADER_BYTES:
        raise _invalid(f"{uri} is not a safetensors file.")
    start = LENGTH_BYTES + length
    if start > size:
        raise _invalid(f"{uri} is cut: it has {size} bytes, and its header alone has {length}. Upload it again.")
    try:
        tensors = parse_header(read(LENGTH_BYTES, length))
        end = start + end_of_weights(tensors)
    except ValueError as error:
        raise _invalid(f"{uri} is not a safetensors file: {error}.") from error
    if end > size:
        raise _invalid(f"{uri} is cut: it has {size} bytes, and by its header {end}. Upload it again.")
    if end < size:
        raise _invalid(f"{uri} has {size} bytes, and by its header only {end}. Upload it again.")
    return tensors


def parse_header(text: bytes) -> Tensors:
    """The weights in the header of a safetensors file. Raises ValueError. What is nested deeply is not followed."""
    try:
        items = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return {name: msgspec.json.decode(items[name], type=Tensor) for name in items if name != NO_WEIGHT}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def end_of_weights(tensors: Tensors) -> int:
    """Where the last weight ends. Raises ValueError as the safetensors library does: offsets overlap, leave gaps, or
    are not as long as the weight.
    """
    end = 0
    for weight, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        name, (first, last) = _shown(weight), tensor.data_offsets
        if len(tensor.shape) > MOST_DIMENSIONS:
            raise ValueError(f"{name} has {len(tensor.shape)} dimensions; the maximum is {MOST_DIMENSIONS}")
        if tensor.dtype not in BITS or any(length < 0 for length in tensor.shape):
            raise ValueError(f"{name} has the type {tensor.dtype[:20]} and the shape {list(tensor.shape)[:8]}")
        if first != end:
            what = "overlap with another weight's" if first < end else "leave a gap"
            raise ValueError(f"the bytes of {name} {what}")
        if 8 * (last - first) != math.prod(tensor.shape) * BITS[tensor.dtype]:
            raise ValueError(f"{name} has {last - first} bytes, which its shape and type do not take")
        end = last
    return end


def is_plain(name: str) -> bool:
    """Whether this is the name of a file of a folder itself: no path, and not hidden."""
    return name == PurePosixPath(name).name and not name.startswith(".") and "\\" not in name and "\0" not in name


def _shown(name: str) -> str:
    return name[:SHOWN_CHARACTERS]


def _some(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{_shown(names[0])}{more}"


def _invalid(message: str) -> DiagnosedError:
    return DiagnosedError(Reason.MODEL_INVALID, message)
